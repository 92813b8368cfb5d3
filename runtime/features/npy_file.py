"""Features in NumPy's .npy: one array."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
from numpy.lib import format as npy

from deepsim.runtime.features.records import FeatureFile, Key, Labels, Rows, no_key
from deepsim.runtime.features.stored import StoredArray


def read(path: Path, key: Key) -> FeatureFile:
    """Open a file; its entries are read when they are asked for."""
    no_key(path, key)
    with path.open("rb") as file:
        return lazy(path, file, 0, os.fstat(file.fileno()).st_size)


def lazy(path: Path, file: BinaryIO, begin: int, end: int) -> FeatureFile:
    """Return the array that lies in bytes ``begin`` to ``end`` of a file, read when it is asked for.

    Raises ValueError when the header claims more than these bytes hold, or objects (which would be pickled).
    """
    file.seek(begin)
    stored = header(path, file)
    stored.check(end)
    return stored.file()


def header(path: Path, file: IO[bytes]) -> StoredArray:
    """Read an array's header; return where the array lies. Raises ValueError."""
    shape, fortran, dtype = _header(file)
    return StoredArray(path, file.tell(), shape, dtype, fortran)


def write(file: BinaryIO, rows: Rows, labels: Labels) -> None:
    """Write one array, block by block."""
    npy.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": rows.shape})
    for block in rows.blocks():
        file.write(block.data)


def check(path: Path, shape: tuple[int, ...] | None) -> None:
    """Any size can be written."""


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = npy.read_magic(file)
    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"version {version} of .npy, expected 1.0 or 2.0")
    return readers[version](file)
