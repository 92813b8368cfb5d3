"""Sparse arrays of bdpy in MATLAB's files of version 7.3: a group of indices, values, a shape and a background.

After ``bdpy.dataform.sparse.SparseArray``: a cell array of index vectors, one per axis; one value for each entry; the
shape as a cell array of numbers; and the number that all other entries have.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

MARK = "__bdpy_sparse_arrray"  # bdpy's spelling
_MAX_ENTRIES = 1 << 28  # entries of one array: a gigabyte as float32


def dense(group: Any) -> NDArray[np.float32]:
    """Return the array of a group, float32, its axes in Python's order. Raises ValueError or LookupError for damage."""
    shape = tuple(int(extent) for extent in _cells(group, "shape"))
    if not shape or min(shape) < 0 or math.prod(shape) > _MAX_ENTRIES:
        raise ValueError(f"a sparse array of shape {shape}")
    values = _array(group["value"]).ravel()
    index = [_array(axis).ravel().astype(np.int64) for axis in _cells(group, "index")]
    if len(index) != len(shape) or any(len(axis) != len(values) for axis in index):
        raise ValueError(f"a sparse array of shape {shape} with {len(values)} values and other counts of indices")
    if any(len(axis) and not 0 <= axis.min() <= axis.max() < extent for axis, extent in zip(index, shape, strict=True)):
        raise ValueError(f"a sparse array of shape {shape} with an index outside")
    found = np.full(shape, np.asarray(group["background"]).ravel()[0], np.float32)
    found[tuple(index)] = values
    return found


def _cells(group: Any, name: str) -> list[Any]:
    """Return the entries of a cell array, those of "shape" as numbers; a plain array is one entry, or these numbers."""
    stored = group[name]
    found = [stored]
    if stored.dtype.kind == "O":
        found = [stored.file[reference] for reference in np.asarray(stored).ravel()]
    return [number for entry in found for number in _array(entry).ravel()] if name == "shape" else found


def _array(stored: Any) -> NDArray[Any]:
    """Return a dataset's entries; of an empty one its extents are stored in their place."""
    return np.empty(0) if "MATLAB_empty" in stored.attrs else np.asarray(stored)
