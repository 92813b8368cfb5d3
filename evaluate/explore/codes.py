"""The codes that the page speaks of: kept in memory under ids, the least recently used forgotten first."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepsim.runtime.errors import DataError, ShapeError
from deepsim.runtime.inputs import feature_rows
from deepsim.runtime.pixels import Pixels

MOST_BYTES = 256 << 20  # about 800 codes of norm2 with their photographs, 1,500 of fc6
ZERO = "zero"  # the id of the code whose units are all 0; it is never forgotten


class Forgotten(DataError):
    """An id whose code was dropped for newer ones, or that never had one."""


@dataclass(frozen=True)
class Code:
    """One code (C,) or (C, H, W), float32, read-only; ``photograph`` is the square that it was encoded from."""

    values: NDArray[np.float32]
    photograph: Pixels | None = None

    @property
    def nbytes(self) -> int:
        """Return how much memory it takes."""
        return self.values.nbytes + (0 if self.photograph is None else self.photograph.nbytes)


class Codes:
    """Codes of one shape, in at most ``most_bytes``. Threads may share it.

    The page sends ids, a few hundred bytes at each step of a slider, instead of codes of up to some hundred kilobytes.
    An id is a hash of what it names: nothing behind an id ever changes, and to add the same photograph again brings
    back its id after it was forgotten.

    >>> codes = Codes((2,))
    >>> codes.get(codes.add(np.array([1.0, 2.0]))).values
    array([1., 2.], dtype=float32)
    """

    def __init__(self, shape: tuple[int, ...], most_bytes: int = MOST_BYTES) -> None:
        self.shape, self.most_bytes = shape, most_bytes
        self._kept: OrderedDict[str, Code] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def add(self, values: NDArray[Any], photograph: Pixels | None = None) -> str:
        """Keep a code and return its id. Raises ShapeError for another shape, DataError for NaN or infinity."""
        if values.shape != self.shape:
            raise ShapeError(f"code: shape {values.shape}, expected {self.shape}.")
        code = Code(feature_rows(values, "code").copy(), photograph)
        code.values.flags.writeable = False
        name = _hash(code)
        with self._lock:
            if name not in self._kept:
                self._bytes += code.nbytes
            self._kept[name] = code
            self._kept.move_to_end(name)
            while self._bytes > self.most_bytes and len(self._kept) > 1:
                self._bytes -= self._kept.popitem(last=False)[1].nbytes
        return name

    def get(self, name: str) -> Code:
        """Return a code by its id. Raises Forgotten."""
        if name == ZERO:
            return Code(np.zeros(self.shape, np.float32))
        with self._lock:
            if name not in self._kept:
                raise Forgotten("code: no longer kept here, expected a newer one. Add its photograph or file again.")
            self._kept.move_to_end(name)
            return self._kept[name]

    def __len__(self) -> int:
        return len(self._kept)


def _hash(code: Code) -> str:
    found = hashlib.sha256(code.values.tobytes())
    if code.photograph is not None:
        found.update(code.photograph.tobytes())
    return found.hexdigest()[:24]
