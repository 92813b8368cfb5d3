"""Rows of several arrays that grow together in a folder: what is on the disk outlives a kill, and is read in slices.

Each array is a file of its values, row after row. ``index.i64`` has the number that each row belongs to; it is written
last, so a row counts once its number is there.
"""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepsim.runtime.errors import UsageError
from deepsim.runtime.os_errors import disk_errors
from deepsim.runtime.partial import check_job

_INDEX, _JOB = "index.i64", "job.json"
_EVERY = 2.0  # seconds between rows that are forced to the disk: a kill costs at most the work of that time

Format = tuple[str, tuple[int, ...]]  # numpy's type of the values, and the shape of a row


class StoredRows:
    """The rows of one array: slices are read from the file, and nothing stays in memory."""

    def __init__(self, path: Path, count: int, kind: Format) -> None:
        self._path, self.shape, self.dtype = path, (count, *kind[1]), np.dtype(kind[0])

    def __getitem__(self, part: slice, /) -> NDArray[Any]:
        """Read some rows in order. Raises OSError where the file is shorter than it was."""
        start, stop, _ = part.indices(self.shape[0])
        found = np.empty((max(0, stop - start), *self.shape[1:]), self.dtype)
        size = math.prod(self.shape[1:]) * self.dtype.itemsize
        if not found.size:
            return found
        with self._path.open("rb", buffering=0) as file:
            file.seek(start * size)
            rest = found.data.cast("B")
            while len(rest):
                count = file.readinto(rest)
                if not count:
                    raise OSError(f"{self._path}: cut off, expected {self.shape[0]} rows.")
                rest = rest[count:]
        return found


class RowStore:
    """Arrays in ``folder`` whose rows are added together. What was added is on the disk when it is closed."""

    def __init__(self, folder: Path, formats: Mapping[str, Format], job: Mapping[str, Any]) -> None:
        """Go on with the rows of the folder, or begin. Raises UsageError when they are of another ``job``."""
        self.folder, self.formats = folder, dict(formats)
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            described = {name: [kind, list(shape)] for name, (kind, shape) in self.formats.items()}
            check_job(folder / _JOB, {**job, "arrays": described})
            self._files = {name: (folder / name).open("ab") for name in (*self.formats, _INDEX)}
            self.index = self._recover()
        self._waiting: list[int] = []
        self._last = time.monotonic()

    def _recover(self) -> list[int]:
        """Cut off what a killed process wrote of rows without a number."""
        found = np.fromfile(self.folder / _INDEX, "<i8")
        for name, kind in self.formats.items():
            found = found[: (self.folder / name).stat().st_size // _bytes(kind)]
        for name, kind in (*self.formats.items(), (_INDEX, ("<i8", ()))):
            self._files[name].truncate(len(found) * _bytes(kind))
        return [int(number) for number in found]

    def close(self) -> None:
        """Force everything to the disk."""
        try:
            self.commit()
        finally:
            for file in self._files.values():
                file.close()

    def __len__(self) -> int:
        return len(self.index) + len(self._waiting)

    def add(self, index: Sequence[int], rows: Mapping[str, NDArray[Any]]) -> None:
        """Append rows of every array, which belong to these numbers. Raises DeviceError on a full disk."""
        with disk_errors(self.folder):
            for name, (kind, shape) in self.formats.items():
                values = np.ascontiguousarray(rows[name], kind).reshape(len(index), *shape)
                self._files[name].write(values.data.cast("B") if values.size else b"")
        self._waiting += index
        if time.monotonic() - self._last > _EVERY:
            self.commit()

    def commit(self) -> None:
        """Force what was added to the disk, then its numbers."""
        with disk_errors(self.folder):
            for name in self.formats if self._waiting else ():
                self._files[name].flush()
                os.fsync(self._files[name].fileno())
            self._files[_INDEX].write(np.asarray(self._waiting, "<i8").tobytes())
            self._files[_INDEX].flush()
        self.index += self._waiting
        self._waiting, self._last = [], time.monotonic()

    def agree_with(self, index: Sequence[int]) -> None:
        """Cut off the rows from the first on whose number is not that of ``index``: a kill may fall between stores."""
        self.commit()
        pairs = enumerate(zip(self.index, index, strict=False))
        same = next((row for row, (own, other) in pairs if own != other), min(len(self.index), len(index)))
        with disk_errors(self.folder):
            for name, kind in (*self.formats.items(), (_INDEX, ("<i8", ()))):
                self._files[name].truncate(same * _bytes(kind))
        del self.index[same:]

    def rows(self, name: str) -> StoredRows:
        """Return all rows of an array, those just added too."""
        if self._waiting:
            self.commit()
        return StoredRows(self.folder / name, len(self.index), self.formats[name])


def check_no_rows(folder: Path, resume: bool, overwrite: bool) -> None:
    """Remove an earlier run's rows with ``overwrite``. Raises UsageError where they are and neither is set."""
    if not folder.exists() or resume:
        return
    if not overwrite:
        raise UsageError(f"{folder}: rows of an earlier run. Pass --resume to go on, or --overwrite to begin anew.")
    shutil.rmtree(folder)


def _bytes(kind: Format) -> int:
    return math.prod(kind[1]) * np.dtype(kind[0]).itemsize
