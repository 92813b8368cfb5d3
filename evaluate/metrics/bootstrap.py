"""Intervals by the bootstrap over photographs: percentile, or bias-corrected and accelerated (Efron 1987).

Every figure here is a function of means over photographs: so all figures share the resamples, which only need the means
of their columns, and the jackknife's means follow from the whole ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from deepsim.runtime.errors import ShapeError, UsageError

Kind: TypeAlias = Literal["bca", "percentile"]
Statistic: TypeAlias = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""Turns means of columns (..., K) into a figure (...,)."""
_DRAWN = 1 << 20  # numbers drawn at a time


@dataclass(frozen=True)
class Interval:
    """A figure with an interval; all are NaN where the figure is not defined."""

    value: float
    low: float
    high: float

    def to_json(self) -> dict[str, float | None]:
        """Return the numbers, null for what is not defined."""
        return {name: value if math.isfinite(value) else None for name, value in vars(self).items()}


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are made. ``seed`` makes them the same again. Raises UsageError for values out of range."""

    resamples: int = 2000
    confidence: float = 0.95
    seed: int = 0
    kind: Kind = "bca"

    def __post_init__(self) -> None:
        if not 0 < self.confidence < 1 or self.resamples < 1:
            raise UsageError(
                f"bootstrap: {self.resamples} resamples, confidence {self.confidence}, expected 1 or more, and 0 to 1."
            )

    def intervals(self, columns: NDArray[Any], statistics: list[Statistic]) -> list[Interval]:
        """Return an interval for each statistic of the means of ``columns`` (N, K), N photographs.

        Of one photograph alone the interval is its value. Raises ShapeError without any.

        >>> heights = np.array([[1.0], [2.0], [3.0], [4.0]])
        >>> Bootstrap(kind="percentile").intervals(heights, [lambda means: means[..., 0]])
        [Interval(value=2.5, low=1.5, high=3.5)]
        """
        if columns.ndim != 2 or len(columns) == 0:
            raise ShapeError(f"bootstrap: columns {columns.shape}, expected (N, K) with N >= 1.")
        values = columns.astype(np.float64)
        count, whole = len(values), values.mean(axis=0)
        drawn = np.concatenate(list(self._resampled_means(values)))  # (resamples, K)
        with np.errstate(invalid="ignore"):  # of infinite values
            left_out = (count * whole - values) / max(1, count - 1)  # (N, K): means without one photograph
        return [self._interval(statistic, whole, drawn, left_out) for statistic in statistics]

    def _resampled_means(self, values: NDArray[np.float64]) -> Iterator[NDArray[np.float64]]:
        """Yield the means of resamples: how often each photograph is drawn, times the columns."""
        count, rng = len(values), np.random.default_rng(self.seed)
        step = max(1, _DRAWN // count)
        for start in range(0, self.resamples, step):
            number = min(step, self.resamples - start)
            places = rng.integers(0, count, (number, count)) + count * np.arange(number)[:, None]
            times = np.bincount(places.ravel(), minlength=number * count).reshape(number, count)
            with np.errstate(invalid="ignore"):
                means = times @ values / count
            yield means

    def _interval(
        self,
        statistic: Statistic,
        whole: NDArray[np.float64],
        drawn: NDArray[np.float64],
        left_out: NDArray[np.float64],
    ) -> Interval:
        value, resampled = float(statistic(whole)), statistic(drawn)
        resampled = resampled[np.isfinite(resampled)]
        if not math.isfinite(value) or not len(resampled):
            return Interval(math.nan, math.nan, math.nan)
        tail = (1 - self.confidence) / 2
        tails = (tail, 1 - tail)
        if self.kind == "bca":
            tails = _corrected(value, resampled, statistic(left_out), tail)
        low, high = np.quantile(resampled, tails)
        return Interval(value, float(low), float(high))


def _corrected(
    value: float, resampled: NDArray[np.float64], left_out: NDArray[np.float64], tail: float
) -> tuple[float, float]:
    """Return the quantiles to take instead of ``tail`` and 1 - ``tail``: (6.8) and (6.6) of Efron & Tibshirani 1993.

    Where resamples do not vary, or all lie on one side, they stay.
    """
    normal = NormalDist()
    below = float(((resampled < value).sum() + (resampled == value).sum() / 2) / len(resampled))
    deviations = left_out.mean() - left_out
    spread = float((deviations**2).sum())
    if not 0 < below < 1 or not spread > 0 or not math.isfinite(spread):
        return tail, 1 - tail
    bias, acceleration = normal.inv_cdf(below), float((deviations**3).sum()) / (6 * spread**1.5)

    def moved(share: float) -> float:
        z = bias + normal.inv_cdf(share)
        return normal.cdf(bias + z / (1 - acceleration * z))

    return moved(tail), moved(1 - tail)
