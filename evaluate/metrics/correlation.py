"""Pearson correlations, and identification by them: whose photograph is it, among others?

Scores as the decoding field uses them (bdpy's ``pairwise_identification``): a reconstruction's features are correlated
with those of all originals; an other original is beaten where its correlation is lower than that of the right one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepsim.evaluate.metrics.rows import BLOCK_BYTES, RowSource, blocks, matrix, over_blocks, width_of
from deepsim.runtime.errors import NumericError, ShapeError

TIE = 1e-6  # correlations in float32 that differ by less are equal: such an original is not beaten
_COLUMNS = 1 << 12  # whose products float32 adds up, before float64 does

Floats = NDArray[np.float64]


def pearson(a: NDArray[Any], b: NDArray[Any]) -> Floats:
    """Return the correlation of each pair of rows of (N, ...), float64 (N,), -1 to 1; NaN where a row is constant.

    Raises ShapeError when the shapes differ, NumericError on NaN or infinity.

    >>> pearson(np.array([[1, 2, 3], [1, 1, 1]]), np.array([[2, 4, 6], [0, 1, 2]]))
    array([ 1., nan])
    """
    if a.shape != b.shape or a.ndim < 2:
        raise ShapeError(f"correlation: shapes {a.shape} and {b.shape}, expected the same (N, ...).")
    found = np.empty(len(a))
    for row, (left, right) in enumerate(zip(a, b, strict=True)):
        one, other = _centred(left), _centred(right)
        lengths = np.sqrt(one @ one) * np.sqrt(other @ other)
        if not np.isfinite(lengths):
            raise NumericError("correlation: a row holds NaN or infinity, expected finite values.")
        constant = (left == left.flat[0]).all() or (right == right.flat[0]).all()
        found[row] = np.nan if constant else np.clip(one @ other / lengths, -1, 1)
    return found


def byte_distance_and_correlation(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> tuple[Floats, Floats]:
    """Return Euclidean distance and correlation of each pair of rows of (N, ...), float64 (N,) each, in one pass.

    Sums of products of bytes are whole numbers that float64 holds exactly. NaN is the correlation of a constant row.

    >>> byte_distance_and_correlation(np.array([[0, 3]], np.uint8), np.array([[4, 6]], np.uint8))
    (array([5.]), array([1.]))
    """
    found = np.empty((2, len(a)))
    for row, (left, right) in enumerate(zip(a, b, strict=True)):
        one, other = left.ravel().astype(np.float64), right.ravel().astype(np.float64)
        squares, products, count = (one @ one, other @ other), one @ other, one.size
        found[0, row] = np.sqrt(squares[0] + squares[1] - 2 * products)
        sums = one.sum(), other.sum()
        spreads = [count * square - total**2 for square, total in zip(squares, sums, strict=True)]
        covariance = count * products - sums[0] * sums[1]
        found[1, row] = covariance / np.sqrt(spreads[0]) / np.sqrt(spreads[1]) if min(spreads) > 0 else np.nan
    return found[0], found[1]


@dataclass(frozen=True)
class Identification:
    """How each of N reconstructions fared: ``beaten`` others of ``others`` that it was compared with, int64 (N,)."""

    beaten: NDArray[np.int64]
    others: NDArray[np.int64]

    def n_way(self, ways: int) -> Floats:
        """Return the chance of each reconstruction to be recognised among ``ways`` originals, float64 (N,).

        Exact: over all choices of ``ways`` - 1 others, not a sample of them. Two ways is bdpy's score. NaN where there
        are fewer others than that. Guessing scores 1 / ``ways``. Raises ShapeError for fewer than two ways.

        >>> Identification(np.array([3, 2]), np.array([4, 4])).n_way(3)
        array([0.5       , 0.16666667])
        """
        if ways < 2:
            raise ShapeError(f"identification: {ways} ways, expected two or more.")
        chance: Floats = np.ones(len(self.beaten))
        for drawn in range(ways - 1):
            left = self.others - drawn
            chance *= np.where(left > 0, np.maximum(self.beaten - drawn, 0) / np.maximum(left, 1), np.nan)
        return chance

    @property
    def first(self) -> Floats:
        """Return 1.0 where the right original beats all others, else 0.0: identification among all of them."""
        found: Floats = (self.beaten == self.others).astype(np.float64)
        return found


def identify(
    reached: RowSource,
    originals: RowSource,
    own: Sequence[int],
    block_bytes: int = BLOCK_BYTES,
    progress: Callable[[int], object] | None = None,
) -> Identification:
    """Correlate the rows of ``reached`` (n, ...) with all rows of ``originals`` (m, ...), in flat memory.

    ``own[i]`` is the row of the right original. An original that is constant is nobody's rival; a reconstruction that
    is constant, or whose own original is, beats none. ``progress`` gets how many reconstructions are done. Raises
    ShapeError when the rows differ in shape, NumericError on NaN or infinity.
    """
    if reached.shape[1:] != originals.shape[1:] or len(own) != reached.shape[0]:
        raise ShapeError(f"identification: {reached.shape} and {originals.shape}, expected rows of one shape.")
    width = width_of(reached)
    beaten, others = np.zeros(len(own), np.int64), np.zeros(len(own), np.int64)
    columns = blocks(originals.shape[0], width, 4, block_bytes)
    for part in blocks(len(own), width, 4, block_bytes):
        rows, places = _standard(matrix(reached, part)), np.asarray(own[part])
        right = _right(rows, originals, places)

        def compare(column: slice, rows: Any = rows, right: Any = right, places: Any = places) -> tuple[Any, Any]:
            return _compared(rows, right, places, _standard(matrix(originals, column)), column.start)

        for lower, rivals in over_blocks(compare, columns):
            beaten[part] += lower
            others[part] += rivals
        if progress is not None:
            progress(part.stop)
    return Identification(beaten, others)


def _right(rows: NDArray[Any], originals: RowSource, places: NDArray[Any]) -> Floats:
    """Return the correlation of each row with its own original."""
    found = np.empty(len(rows))
    for row, place in enumerate(places):
        own = _standard(matrix(originals, slice(int(place), int(place) + 1)))
        found[row] = _products(rows[row : row + 1], own)[0, 0]
    return found


def _compared(
    rows: NDArray[Any], right: Floats, places: NDArray[Any], column: NDArray[Any], start: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count the rivals among some originals, and those of them that each row beats."""
    products = _products(rows, column)
    rivals = np.isfinite(column[:, 0])[None] & (np.arange(start, start + len(column))[None] != places[:, None])
    lower = rivals & (products < right[:, None] - TIE)
    return lower.sum(1), rivals.sum(1)


def _products(a: NDArray[Any], b: NDArray[Any]) -> Floats:
    found = np.zeros((len(a), len(b)))
    for start in range(0, a.shape[1], _COLUMNS):
        found += a[:, start : start + _COLUMNS] @ b[:, start : start + _COLUMNS].T
    return found


def _centred(row: NDArray[Any]) -> Floats:
    """Return a row's values less their mean, float64 (D,)."""
    values: Floats = row.ravel().astype(np.float64)
    values -= values.mean()
    return values


def _standard(rows: NDArray[Any]) -> NDArray[np.float32]:
    """Return rows (n, D) less their mean, of length 1; NaN where a row is constant."""
    values: NDArray[np.float32] = rows.astype(np.float32)
    values -= values.mean(axis=1, keepdims=True, dtype=np.float64).astype(np.float32)
    lengths = np.sqrt(np.einsum("ij,ij->i", values, values, dtype=np.float64))
    if not np.isfinite(lengths).all():
        raise NumericError("correlation: a row holds NaN or infinity, expected finite values.")
    constant = (rows == rows[:, :1]).all(axis=1)
    lengths[constant] = np.nan
    values /= lengths[:, None].astype(np.float32)
    return values
