"""Charts of lines over a common x, with their spread and shaded stretches behind them."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, MaxNLocator

from deepsim.benchmarks.charts.svg import COLOURS, Drawing, plain
from deepsim.benchmarks.charts.wording import tick

WIDTH, HEIGHT = 340, 200  # of a small panel, in CSS pixels at full scale
LEFT, RIGHT, TOP, BOTTOM = 42, 12, 10, 26  # margins around the plotted area
STEPS = (1, 2, 2.5, 5, 10)  # of ticks, times a power of ten

Point = tuple[float, float]
Bucket = tuple[float, float, float, float]  # x, least, median, greatest


@dataclass(frozen=True)
class Line:
    """One series: its points in order of x, its colour, and a label at its end."""

    points: Sequence[Point]
    colour: str
    label: str = ""
    dots: bool = False


@dataclass(frozen=True)
class Shade:
    """Stretches of x to shade behind the lines, and their colour."""

    stretches: Sequence[tuple[float, float]]
    colour: str


@dataclass(frozen=True)
class Frame:
    """Size of a chart in CSS pixels, and the room at its right for the labels of the lines."""

    width: int = WIDTH
    height: int = HEIGHT
    right: int = RIGHT
    log: bool = False
    every: bool = False  # a tick at every x, for a few whole numbers
    x_range: tuple[float, float] | None = None  # None: from the first x to the last


@plain()
def line_chart(description: str, lines: Sequence[Line], shades: Sequence[Shade] = (), frame: Frame = Frame()) -> str:
    """Draw lines over a common x as an SVG element; more points than there is room for become medians with their range.

    ``description`` is read out instead of the picture. Values of 0 and below sit at the bottom of a log axis.
    """
    drawing = Drawing(frame.width, frame.height)
    axes = drawing.axes(LEFT, frame.width - frame.right, TOP, frame.height - BOTTOM)
    scale_y(axes, [y for line in lines for _, y in line.points], frame.log)
    _scale_x(axes, sorted({x for line in lines for x, _ in line.points}), frame)
    for shade in shades:
        _shade(axes, shade, frame)
    for line in lines:
        _line(drawing, axes, line, frame)
    return drawing.inline(description)


def scale_y(axes: Axes, values: Sequence[float], log: bool = False) -> None:
    """Set the limits of y to ticks around the values: from 0, or on a log axis at powers of ten, or 1-2-5 on short."""
    if log:
        positive = [value for value in values if value > 0] or [1.0]
        low, high = min(positive), max(positive)
        axes.set_yscale("log")
        short = high / low < 30
        ticks = LogLocator(subs=(1, 2, 5)).tick_values(low / 10, high * 10) if short else _decades(low, high)
        first = max(value for value in ticks if value <= low * (1 + 1e-9))
        last = min(value for value in ticks if value >= high * (1 - 1e-9) and value > first)
    else:
        low, high = min(0.0, *values, 0.0), max(values, default=1.0)
        ticks = MaxNLocator(4, steps=STEPS).tick_values(low, high if high > low else low + (abs(low) or 1.0))
        first, last = ticks[0], ticks[-1]
    shown = [float(f"{value:.12g}") for value in ticks if first <= value <= last]
    axes.set_ylim(first, last)
    axes.set_yticks(shown, [tick(value) for value in shown])
    axes.set_yticks([], minor=True)


def _decades(low: float, high: float) -> list[float]:
    """Return at most seven powers of ten, evenly apart, of which the first and the last enclose the values."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    stride = max(1, math.ceil((last - first) / 5))
    return [10.0**power for power in range(first, last + stride, stride)]


def buckets(points: Sequence[Point], count: int) -> list[Bucket]:
    """Gather points into at most ``count`` runs of equal number: mean x; least, median and greatest y."""
    runs = min(count, len(points))
    edges = [round(index * len(points) / runs) for index in range(runs + 1)] if runs else []
    gathered = []
    for first, last in itertools.pairwise(edges):
        xs, ys = zip(*points[first:last], strict=True)
        gathered.append((statistics.fmean(xs), min(ys), statistics.median(ys), max(ys)))
    return gathered


def _scale_x(axes: Axes, xs: Sequence[float], frame: Frame) -> None:
    low, high = frame.x_range or (min(xs, default=0), max(xs, default=1))
    high = high if high > low else low + 1
    ticks = xs if frame.every else MaxNLocator(4, steps=STEPS, integer=True).tick_values(low, high)
    shown = [float(value) for value in ticks if low <= value <= high]
    axes.set_xlim(low, high)
    axes.set_xticks(shown, [tick(value) for value in shown])
    if shown and frame.right < 20 and shown[-1] > high - (high - low) / 25 and len(tick(shown[-1])) > 1:
        axes.get_xticklabels()[-1].set_horizontalalignment("right")  # what ends at the edge of the drawing


def _shade(axes: Axes, shade: Shade, frame: Frame) -> None:
    low, high = axes.get_xlim()
    pixel = (high - low) / (frame.width - LEFT - frame.right)
    for first, last in shade.stretches:
        axes.axvspan(first, max(last, first + pixel), color=COLOURS[shade.colour], linewidth=0, zorder=0.4)


def _line(drawing: Drawing, axes: Axes, line: Line, frame: Frame) -> None:
    room = max(2, (frame.width - LEFT - frame.right) // 2)  # a point every two pixels
    runs = np.array(buckets(line.points, room))
    if not len(runs):
        return
    runs[:, 1:] = np.clip(runs[:, 1:], *axes.get_ylim())
    x, low, middle, high = runs.T
    colour = COLOURS[line.colour]
    if len(runs) < len(line.points):
        axes.fill([*x, *x[::-1]], [*high, *low[::-1]], color=colour, alpha=0.18, linewidth=0, clip_on=False)
    axes.plot(x, middle, color=colour, linewidth=1.8, solid_capstyle="round", clip_on=False)
    if line.dots or len(runs) == 1:
        drawing.dots(axes, list(zip(x, middle, strict=True)), line.colour, 3)
    if line.label:
        at, height = drawing.place(axes, x[-1], middle[-1])
        drawing.text(line.label, at + 8, height + 4, colour=line.colour, bold=True)
