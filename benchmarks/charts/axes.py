"""Axes of the charts: from values to pixels, and where the ticks go."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Axis:
    """Maps values ``low``..``high`` to pixels ``start``..``end``, linearly or logarithmically; ``ticks`` are values."""

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]
    log: bool = False

    def __call__(self, value: float) -> float:
        """Return the pixel position of a value, clipped to the axis."""
        low, high, at = (math.log10(v) if self.log else v for v in (self.low, self.high, max(value, self._least)))
        return self.start + (self.end - self.start) * min(1.0, max(0.0, (at - low) / (high - low)))

    @property
    def _least(self) -> float:
        return self.low if self.log else -math.inf


def linear_axis(values: Sequence[float], start: float, end: float, zero: bool = True, count: int = 4) -> Axis:
    """Build a linear axis over the values, from 0 if ``zero``, with about ``count`` round ticks."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    low = min(0.0, low) if zero else low
    high = high if high > low else low + (abs(low) or 1.0)
    step = nice_step((high - low) / count)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = tuple(round(index * step, 12) for index in range(first, last + 1))
    return Axis(ticks[0], ticks[-1], start, end, ticks)


def span_axis(low: float, high: float, start: float, end: float, count: int = 4) -> Axis:
    """Build a linear axis exactly from ``low`` to ``high``, with round ticks inside it."""
    high = high if high > low else low + 1
    step = max(1.0, nice_step((high - low) / count))
    ticks = tuple(index * step for index in range(math.ceil(low / step), math.floor(high / step) + 1))
    return Axis(low, high, start, end, ticks)


def log_axis(values: Sequence[float], start: float, end: float) -> Axis:
    """Build a logarithmic axis over the positive values, with ticks at powers of ten, or 1-2-5 on short ranges."""
    positive = [value for value in values if value > 0] or [1.0]
    low, high = min(positive), max(positive)
    if high / low < 30:
        marks = _one_two_five(low, high)
    else:
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
        stride = max(1, math.ceil((last - first) / 5))
        marks = [10.0**power for power in range(first, last + stride, stride)]
    return Axis(marks[0], marks[-1], start, end, tuple(marks), log=True)


def nice_step(rough: float) -> float:
    """Return the least of 1, 2, 2.5, 5, 10 times a power of ten that is not below ``rough``."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * (1 - 1e-9))


def _one_two_five(low: float, high: float) -> list[float]:
    """Return consecutive 1-2-5 values of which the first is at most ``low`` and the last at least ``high``."""
    powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2)
    grid = [float(f"{factor}e{power}") for power in powers for factor in (1, 2, 5)]
    first = max(index for index, mark in enumerate(grid) if mark <= low * (1 + 1e-9))
    last = min(index for index, mark in enumerate(grid) if mark >= high * (1 - 1e-9))
    return grid[first : max(last, first + 1) + 1]
