"""Nearest neighbours by Euclidean distance among any number of rows: exact, in flat memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepsim.evaluate.metrics.pairwise import squared_distances
from deepsim.evaluate.metrics.rows import BLOCK_BYTES, RowSource, blocks, matrix, over_blocks, width_of
from deepsim.runtime.errors import NumericError, ShapeError


@dataclass(frozen=True)
class Neighbours:
    """The ``rows`` int64 (n, k) that are nearest to each query, and their ``distances`` float64 (n, k), nearest first.

    Of equally near rows the first comes first.
    """

    rows: NDArray[np.int64]
    distances: NDArray[np.float64]


def nearest(
    queries: RowSource,
    among: RowSource,
    k: int = 5,
    block_bytes: int = BLOCK_BYTES,
    progress: Callable[[int], object] | None = None,
) -> Neighbours:
    """Find the ``k`` rows of ``among`` (m, ...) nearest to each of ``queries`` (n, ...); all of them where m < k.

    ``progress`` gets how many queries are done. Raises ShapeError when the rows differ in shape or ``among`` has none,
    NumericError on NaN or infinity.

    >>> nearest(np.array([[1.2]]), np.array([[0.0], [1.0], [3.0]]), k=2).rows
    array([[1, 0]])
    """
    if queries.shape[1:] != among.shape[1:] or among.shape[0] == 0 or k < 1:
        raise ShapeError(f"neighbours: {k} of {among.shape} for {queries.shape}, expected rows of one shape.")
    kept = min(k, among.shape[0])
    found = Neighbours(np.empty((queries.shape[0], kept), np.int64), np.empty((queries.shape[0], kept)))
    width, bytes_each = width_of(among), max(queries.dtype.itemsize, among.dtype.itemsize)
    parts = blocks(among.shape[0], width, bytes_each, block_bytes)
    for query in blocks(queries.shape[0], width, bytes_each, block_bytes):
        rows = matrix(queries, query)

        def best(part: slice, rows: NDArray[np.generic] = rows) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
            return _best(rows, matrix(among, part), part.start, kept)

        distances, places = np.full((len(rows), 0), np.inf), np.zeros((len(rows), 0), np.int64)
        for near, which in over_blocks(best, parts):
            distances, places = _first(np.hstack([distances, near]), np.hstack([places, which]), kept)
        found.rows[query], found.distances[query] = places, np.sqrt(distances)
        if progress is not None:
            progress(query.stop)
    return found


def _best(
    rows: NDArray[np.generic], block: NDArray[np.generic], start: int, k: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    squares = squared_distances(rows, block)
    if not np.isfinite(squares).all():
        raise NumericError("neighbours: a row holds NaN or infinity, expected finite values.")
    return _first(squares, np.broadcast_to(np.arange(start, start + len(block)), squares.shape), k)


def _first(
    squares: NDArray[np.float64], places: NDArray[np.int64], k: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the ``k`` smallest of each row, in order; of equal ones the first."""
    order = np.argsort(squares, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(squares, order, axis=1), np.take_along_axis(places, order, axis=1)
