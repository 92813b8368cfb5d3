"""Rows that need not be in memory, and walks over all pairs of them in blocks."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from deepsim.runtime.prefetch import map_ahead

BLOCK_BYTES = 64 << 20  # of one block of rows in the type that it is computed in
MOST_ROWS = 1024  # of one block: two of them have a million distances
_MOST_AT_ONCE = 8  # blocks under way together: each takes memory
_T = TypeVar("_T")


class RowSource(Protocol):
    """Rows (N, ...) that are read in slices: an array, a memory map, or rows in a file."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Return (N, ...)."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Return the type of the values."""
        ...

    def __getitem__(self, rows: slice, /) -> NDArray[Any]:
        """Return some rows in order."""
        ...


def blocks(count: int, row_values: int, bytes_per_value: int, most_bytes: int = BLOCK_BYTES) -> list[slice]:
    """Cut ``count`` rows of ``row_values`` values into slices of at most ``most_bytes`` and :data:`MOST_ROWS` rows.

    Each has one row or more.

    >>> blocks(5, 10, 4, most_bytes=80)
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    step = min(MOST_ROWS, max(1, most_bytes // max(1, row_values * bytes_per_value)))
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]


def matrix(rows: RowSource, part: slice) -> NDArray[Any]:
    """Read some rows as a matrix (n, D)."""
    found = rows[part]
    return found.reshape(len(found), -1)


def width_of(rows: RowSource) -> int:
    """Return how many values a row has."""
    return math.prod(rows.shape[1:])


def over_blocks(function: Callable[[slice], _T], parts: list[slice]) -> Iterator[_T]:
    """Yield ``function(part)`` in order, on as many CPUs as there are: BLAS itself may run on one."""
    yield from map_ahead(function, parts, min(_MOST_AT_ONCE, len(os.sched_getaffinity(0))))
