"""Arrays that lie in a file byte after byte: any entries along any axis are read when they are asked for."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepsim.runtime.features.records import FeatureFile


@dataclass(frozen=True)
class StoredArray:
    """Where an array lies: from byte ``offset`` on, columns first with ``fortran``, as MATLAB stores it."""

    path: Path
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool

    def check(self, end: int) -> None:
        """Raise ValueError when it would not end before byte ``end``, or holds objects (which would be unpickled)."""
        if any(extent < 0 for extent in self.shape):
            raise ValueError(f"shape {self.shape}")
        if self.dtype.hasobject:
            raise ValueError("an array of Python objects, which are never unpickled")
        if self.offset + math.prod(self.shape) * self.dtype.itemsize > end:
            raise ValueError(f"cut off, its header says {self.shape} of {self.dtype}")

    def cut(self, axis: int, start: int, stop: int) -> NDArray[Any]:
        """Read entries ``start`` to ``stop`` along an axis, and nothing else. Raises ValueError when the file ends."""
        stored = self.shape[::-1] if self.fortran else self.shape  # in row-major order
        place = len(stored) - 1 - axis if self.fortran else axis
        inner = math.prod(stored[place + 1 :]) * self.dtype.itemsize
        pieces = np.empty((math.prod(stored[:place]), (stop - start) * inner), np.uint8)  # each lies in one piece
        with self.path.open("rb", buffering=0) as file:
            for number, piece in enumerate(pieces if pieces.size else ()):
                _read_into(file.fileno(), piece, self.offset + (number * stored[place] + start) * inner)
        part = (*stored[:place], stop - start, *stored[place + 1 :])
        found: NDArray[Any] = np.frombuffer(pieces, self.dtype, math.prod(part)).reshape(part)
        return found.T if self.fortran else found

    def file(self) -> FeatureFile:
        """Return it as the array of a feature file."""
        return FeatureFile(self.path, self.shape, self.dtype, self.cut if self.shape else self._number)

    def _number(self, axis: int, start: int, stop: int) -> NDArray[Any]:
        raise ValueError("a single number")


def _read_into(descriptor: int, piece: NDArray[np.uint8], offset: int) -> None:
    rest = piece.data
    while len(rest):
        count = os.preadv(descriptor, [rest], offset)
        if count == 0:
            raise ValueError(f"cut off: its end is at byte {offset:,}")
        rest, offset = rest[count:], offset + count
