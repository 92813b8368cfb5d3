"""Distances between all rows, exact, and N of the paper's normalised error over any number of rows in flat memory.

Bytes are compared in whole numbers: they are shifted by 128, and 1024 products of two of them stay below 2^24, up to
which float32 holds every whole number. So the fast matrix product of float32 gives their exact squared distances. Any
other type is computed in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepsim.evaluate.metrics.rows import BLOCK_BYTES, RowSource, blocks, matrix, over_blocks, width_of
from deepsim.runtime.errors import NumericError, ShapeError

_EXACT_COLUMNS = 1 << 10  # of bytes, whose products float32 adds up without rounding
_COLUMNS = 1 << 12  # of other types, converted to float64 at a time
_MIDDLE = 128  # of bytes

Floats = NDArray[np.float64]


def squared_distances(a: NDArray[Any], b: NDArray[Any]) -> Floats:
    """Return |a_i - b_j|^2 of all rows of (n, D) and (m, D): float64 (n, m); exact where both are uint8.

    Raises ShapeError where D differs.

    >>> squared_distances(np.array([[0, 0]], np.uint8), np.array([[3, 4], [0, 10]], np.uint8))
    array([[ 25., 100.]])
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ShapeError(f"distances: shapes {a.shape} and {b.shape}, expected (n, D) and (m, D).")
    is_bytes = a.dtype == np.uint8 and b.dtype == np.uint8
    squares_a, squares_b, products = np.zeros(len(a)), np.zeros(len(b)), np.zeros((len(a), len(b)))
    columns = _EXACT_COLUMNS if is_bytes else _COLUMNS
    for start in range(0, a.shape[1], columns):
        part = slice(start, start + columns)
        left, right = (_as_bytes if is_bytes else _as_floats)(a[:, part], b[:, part])
        squares_a += _squares(left)
        squares_b += _squares(right)
        products += left @ right.T
    products *= -2
    products += squares_a[:, None]
    products += squares_b
    products[products < 0] = 0
    return products


def streamed_mean_distance(
    rows: RowSource,
    block_bytes: int = BLOCK_BYTES,
    known: Mapping[int, float] | None = None,
    finished: Callable[[int, float, float], None] | None = None,
) -> float:
    """Return the mean Euclidean distance over all pairs i < j of rows (N, ...), in memory that N does not change.

    The same as :func:`deepsim.runtime.metrics.mean_pairwise_distance`, of any number of rows: blocks of at most
    ``block_bytes`` are read and compared. ``finished(block, total, share)`` is called after each block with the sum of
    its rows' distances to all rows from the block on, and with the share of all pairs that is done; ``known`` are such
    sums of an earlier run with the same ``block_bytes``, which are not computed again.

    Raises ShapeError on fewer than two rows, NumericError on NaN or infinity.

    >>> streamed_mean_distance(np.array([[0.0], [1.0], [3.0]]), block_bytes=8)
    2.0
    """
    count = rows.shape[0]
    if len(rows.shape) < 2 or count < 2:
        raise ShapeError(f"pairwise distances: shape {rows.shape}, expected (N, ...) with N >= 2.")
    parts, total, done = blocks(count, width_of(rows), rows.dtype.itemsize, block_bytes), 0.0, 0
    for number, part in enumerate(parts):
        found = (known or {}).get(number)
        if found is None:
            found = _distances_from(rows, part, parts[number:])
        total += found
        done += len(range(*part.indices(count))) * (2 * count - part.start - part.stop)
        if finished is not None:
            finished(number, found, done / count**2)
    return total / (count * (count - 1) / 2)


def _distances_from(rows: RowSource, part: slice, later: list[slice]) -> float:
    """Return the sum of the distances of a block's rows to each other and to the rows of later blocks, once each."""
    block = matrix(rows, part)

    def to(other: slice) -> float:
        if other == part:
            squares = squared_distances(block, block)
            np.fill_diagonal(squares, 0)  # what rounding left of a row's distance to itself
            return float(np.sqrt(squares, out=squares).sum()) / 2
        squares = squared_distances(block, matrix(rows, other))
        return float(np.sqrt(squares, out=squares).sum())

    total = sum(over_blocks(to, later))
    if not np.isfinite(total):
        raise NumericError("pairwise distances: a row holds NaN or infinity, expected finite values.")
    return total


def _as_bytes(a: NDArray[Any], b: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    return a.astype(np.float32) - _MIDDLE, b.astype(np.float32) - _MIDDLE


def _as_floats(a: NDArray[Any], b: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Convert to float64 and centre on a's mean, which keeps the distances of close rows exact."""
    left, right = a.astype(np.float64), b.astype(np.float64)
    centre = left.mean(axis=0)
    return left - centre, right - centre


def _squares(values: NDArray[Any]) -> Floats:
    squares: Floats = np.einsum("ij,ij->i", values, values).astype(np.float64)
    return squares
