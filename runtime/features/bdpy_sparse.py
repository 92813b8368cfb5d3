"""Sparse arrays of bdpy in MATLAB's files of version 7.3: a group of indices, values, a shape and a background.

After ``bdpy.dataform.sparse.SparseArray``: a cell array of index vectors, one per axis; one value for each entry; the
shape as a cell array of numbers; and the number that all other entries have.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepsim.runtime.features.hdf5_file import whole
from deepsim.runtime.features.records import FeatureFile

MARK = "__bdpy_sparse_arrray"  # bdpy's spelling


@dataclass(frozen=True)
class BdpySparse:
    """Indices along every axis and the values there; all other entries are ``background``."""

    shape: tuple[int, ...]
    index: tuple[NDArray[np.int64], ...]
    values: NDArray[np.float32]
    background: np.float32

    @classmethod
    def read(cls, group: Any) -> BdpySparse:
        """Read a group. Raises ValueError or LookupError for damage."""
        shape = tuple(int(extent) for extent in _cells(group, "shape"))
        values = _array(group["value"]).ravel().astype(np.float32)
        index = tuple(_array(axis).ravel().astype(np.int64) for axis in _cells(group, "index"))
        if not shape or min(shape) < 0 or len(index) != len(shape) or any(len(axis) != len(values) for axis in index):
            raise ValueError(f"a sparse array of shape {shape} with {len(values)} values and other counts of indices")
        for axis, extent in zip(index, shape, strict=True):
            if len(axis) and not 0 <= axis.min() <= axis.max() < extent:
                raise ValueError(f"a sparse array of shape {shape} with an index outside")
        return cls(shape, index, values, np.float32(_array(group["background"]).ravel()[0]))

    def cut(self, axis: int, start: int, stop: int) -> NDArray[np.float32]:
        """Return entries along an axis as a dense array, the axes in Python's order."""
        part = (*self.shape[:axis], stop - start, *self.shape[axis + 1 :])
        found = np.full(part, self.background, np.float32)
        inside = (self.index[axis] >= start) & (self.index[axis] < stop)
        places = [each[inside] - (start if number == axis else 0) for number, each in enumerate(self.index)]
        found[tuple(places)] = self.values[inside]
        return found

    def file(self, path: Path) -> FeatureFile:
        """Return it as the array of a feature file."""
        return FeatureFile(path, self.shape, np.dtype(np.float32), self.cut)


def _cells(group: Any, name: str) -> list[Any]:
    """Return the entries of a cell array, those of "shape" as numbers; a plain array is one entry, or these numbers."""
    stored = group[name]
    found = [stored]
    if stored.dtype.kind == "O":
        found = [stored.file[reference] for reference in whole(stored).ravel()]
    return [number for entry in found for number in _array(entry).ravel()] if name == "shape" else found


def _array(stored: Any) -> NDArray[Any]:
    """Return a dataset's entries; of an empty one its extents are stored in their place."""
    return np.empty(0) if "MATLAB_empty" in stored.attrs else whole(stored)
