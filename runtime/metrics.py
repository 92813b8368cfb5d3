"""Errors between images or features, with numpy alone: Euclidean distance, RMSE, PSNR, the paper's normalised error.

Every function takes arrays (N, ...) of any numeric dtype whose rows are samples, and computes in float64.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepsim.runtime.errors import NumericError, ShapeError

PEAK = 255.0  # the largest grey level, the peak of PSNR
_COLUMNS = 1 << 14  # columns converted to float64 at a time in the pairwise distances

Floats = NDArray[np.float64]


def euclidean_distances(a: NDArray[Any], b: NDArray[Any]) -> Floats:
    """Return |a_i - b_i| of each pair of rows, float64 (N,), in the unit of the inputs.

    Raises ShapeError when the shapes differ or there is no row axis, NumericError on NaN or infinity.

    >>> euclidean_distances(np.array([[0.0, 0.0]]), np.array([[3.0, 4.0]]))
    array([5.])
    """
    _check_pair(a, b)
    distances = np.empty(len(a))
    for row, (left, right) in enumerate(zip(a, b, strict=True)):
        distances[row] = np.linalg.norm(left.astype(np.float64).ravel() - right.astype(np.float64).ravel())
    return _finite(distances)


def rmse(a: NDArray[Any], b: NDArray[Any]) -> Floats:
    """Return the root of the mean squared difference of each pair of rows, float64 (N,): grey levels for images.

    Raises ShapeError and NumericError as :func:`euclidean_distances` does.

    >>> rmse(np.array([[0, 0]]), np.array([[3, 3]]))
    array([3.])
    """
    distances = euclidean_distances(a, b)
    return distances / math.sqrt(max(1, math.prod(a.shape[1:])))


def psnr(a: NDArray[Any], b: NDArray[Any], peak: float = PEAK) -> Floats:
    """Return the peak signal-to-noise ratio 20 log10(peak / RMSE) of each pair of rows, float64 (N,), in decibels.

    Equal rows give infinity. Raises ShapeError and NumericError as :func:`euclidean_distances` does.

    >>> psnr(np.array([[0.0, 0.0]]), np.array([[25.5, 25.5]]))
    array([20.])
    """
    return decibels(rmse(a, b), peak)


def decibels(errors: Floats, peak: float = PEAK) -> Floats:
    """Return RMSE as peak signal-to-noise ratio, float64 (N,), infinite for 0.

    >>> decibels(np.array([25.5]))
    array([20.])
    """
    with np.errstate(divide="ignore"):
        found: Floats = 20 * np.log10(peak / errors)
    return found


def mean_pairwise_distance(rows: NDArray[Any]) -> float:
    """Return the mean Euclidean distance over all pairs i < j of the rows of (N, ...), in the unit of the input.

    Raises ShapeError on fewer than two rows, NumericError on NaN or infinity.

    >>> mean_pairwise_distance(np.array([[0.0], [1.0], [3.0]]))
    2.0
    """
    if rows.ndim < 2 or len(rows) < 2:
        raise ShapeError(f"pairwise distances: shape {rows.shape}, expected (N, ...) with N >= 2.")
    products = _centred_products(rows.reshape(len(rows), -1))  # (N, N)
    squares = np.diag(products)
    first, second = np.triu_indices(len(rows), k=1)
    squared = squares[first] + squares[second] - 2 * products[first, second]
    return float(_finite(np.sqrt(np.maximum(squared, 0))).mean())


def normalized_error(a: NDArray[Any], b: NDArray[Any], reference: NDArray[Any] | None = None) -> float:
    """Return the paper's normalised Euclidean error as a fraction: the mean of |a_i - b_i| divided by N (section 5).

    N is the mean distance over all pairs of different rows of ``reference`` (``b`` when None), so that 1.0 is what
    drawing a random other sample would score. ``a`` and ``b`` are (n, ...), ``reference`` is (m, ...), m >= 2, all in
    one space and unit: pixels of an encoder's square, or features of one layer.

    Raises ShapeError on shapes that differ or m < 2, NumericError on NaN, infinity, or reference rows all equal.

    >>> photographs = np.array([[0.0, 0.0], [3.0, 4.0]])
    >>> normalized_error(photographs + [0.0, 1.0], photographs)
    0.2
    """
    distances = euclidean_distances(a, b)
    if len(distances) == 0:
        raise ShapeError("normalized_error: no rows, expected at least one.")
    reference = b if reference is None else reference
    if reference.shape[1:] != b.shape[1:]:
        raise ShapeError(f"normalized_error: reference {reference.shape}, expected rows like {b.shape}.")
    scale = mean_pairwise_distance(reference)
    if scale == 0:
        raise NumericError("normalized_error: all reference rows are equal, expected different ones.")
    return float(distances.mean() / scale)


def _centred_products(rows: NDArray[Any]) -> Floats:
    """Return the inner products (N, N) of rows (N, D) minus their mean row; centring keeps close rows exact."""
    products = np.zeros((len(rows), len(rows)))
    for start in range(0, rows.shape[1], _COLUMNS):
        block = rows[:, start : start + _COLUMNS].astype(np.float64)
        block -= block.mean(axis=0)
        products += block @ block.T
    return products


def _check_pair(a: NDArray[Any], b: NDArray[Any]) -> None:
    if a.shape != b.shape or a.ndim < 2:
        raise ShapeError(f"errors: shapes {a.shape} and {b.shape}, expected the same (N, ...).")


def _finite(distances: Floats) -> Floats:
    if not np.isfinite(distances).all():
        raise NumericError("errors: a sample holds NaN or infinity, expected finite values.")
    return distances
