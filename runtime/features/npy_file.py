"""Features in NumPy's .npy: one array."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from deepsim.runtime.features.records import FeatureFile, Labels, Rows, no_key


def read(path: Path, key: str | None) -> FeatureFile:
    """Open a file; entries along its slowest axis are read when asked for, along others all at once."""
    no_key(path, key)
    with path.open("rb") as file:
        return lazy(path, file, 0, os.fstat(file.fileno()).st_size)


def lazy(path: Path, file: BinaryIO, begin: int, end: int) -> FeatureFile:
    """Return the array that lies in bytes ``begin`` to ``end`` of a file, read when it is asked for.

    Raises ValueError when the header claims more than these bytes hold, or objects (which would be pickled).
    """
    file.seek(begin)
    shape, fortran, dtype = _header(file)
    stored = shape[::-1] if fortran else shape  # in row-major order
    offset, row = file.tell(), int(np.prod(stored[1:], dtype=np.int64)) * dtype.itemsize
    if any(extent < 0 for extent in shape):
        raise ValueError(f"shape {shape}")
    if dtype.hasobject:
        raise ValueError("an array of Python objects, which are never unpickled")
    if offset + (stored[0] if stored else 1) * row > end:
        raise ValueError(f"cut off, its header says {shape} of {dtype}")

    def values(start: int, stop: int) -> NDArray[Any]:
        """Read entries of the slowest axis."""
        flat: NDArray[Any] = np.fromfile(
            path, dtype, (stop - start) * (row // dtype.itemsize), offset=offset + start * row
        )
        found = flat.reshape(stop - start, *stored[1:])
        return found.T if fortran else found

    @cache
    def whole() -> NDArray[Any]:
        return values(0, stored[0])

    def cut(axis: int, start: int, stop: int) -> NDArray[Any]:
        if axis == (len(shape) - 1 if fortran else 0):
            return values(start, stop)
        part: NDArray[Any] = whole()[(slice(None),) * axis + (slice(start, stop),)]
        return part

    return FeatureFile(path, shape, dtype, cut)


def write(file: BinaryIO, rows: Rows, labels: Labels) -> None:
    """Write one array, block by block."""
    npy.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": rows.shape})
    for block in rows.blocks():
        file.write(block.data)


def check(path: Path, shape: tuple[int, ...] | None) -> None:
    """Any size can be written."""


def _header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = npy.read_magic(file)
    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"version {version} of .npy, expected 1.0 or 2.0")
    return readers[version](file)
