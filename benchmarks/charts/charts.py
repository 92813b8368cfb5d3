"""Charts as inline SVG, coloured by the page's style sheet: lines with spread and shaded stretches, and bars."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from deepsim.benchmarks.charts.axes import Axis, linear_axis, log_axis, span_axis
from deepsim.benchmarks.charts.markup import Html, element, join
from deepsim.benchmarks.charts.wording import tick

WIDTH, HEIGHT = 340, 200  # of a small panel, in CSS pixels at full scale
LEFT, RIGHT, TOP, BOTTOM = 42, 12, 10, 26  # margins around the plotted area

Point = tuple[float, float]
Bucket = tuple[float, float, float, float]  # x, least, median, greatest


@dataclass(frozen=True)
class Line:
    """One series: its points in order of x, the style sheet's class for it, and a label at its end."""

    points: Sequence[Point]
    style: str
    label: str = ""
    dots: bool = False


@dataclass(frozen=True)
class Shade:
    """Stretches of x to shade behind the lines, with the style sheet's class for them."""

    stretches: Sequence[tuple[float, float]]
    style: str


@dataclass(frozen=True)
class Frame:
    """Size of a chart in CSS pixels, and the room at its right for the labels of the lines."""

    width: int = WIDTH
    height: int = HEIGHT
    right: int = RIGHT
    log: bool = False
    every: bool = False  # a tick at every x, for a few whole numbers
    x_range: tuple[float, float] | None = None  # None: from the first x to the last


def line_chart(
    description: str,
    lines: Sequence[Line],
    shades: Sequence[Shade] = (),
    frame: Frame | None = None,
) -> Html:
    """Draw lines over a common x; more points than the chart has room for become medians with their spread.

    ``description`` is read out instead of the picture. Values of 0 and below sit at the bottom of a log axis.
    """
    frame = frame or Frame()
    xs = [x for line in lines for x, _ in line.points]
    ys = [y for line in lines for _, y in line.points]
    x_axis, y_axis = _axes(xs, ys, frame)
    marks = [_shade(shade, x_axis, frame) for shade in shades]
    marks += [_grid(x_axis, y_axis, frame)]
    marks += [_line(line, x_axis, y_axis, frame) for line in lines]
    return element(
        "svg",
        *marks,
        class_="chart",
        viewBox=f"0 0 {frame.width} {frame.height}",
        role="img",
        aria_label=description,
    )


def bar(fraction: float, style: str) -> Html:
    """Draw a bar that fills a fraction of the width it is given; the number beside it says the same."""
    width = round(100 * min(1.0, max(0.0, fraction)), 2)
    track = element("rect", class_="track", width=100, height=8)
    filled = element("rect", class_=style, width=width, height=8)
    return element(
        "svg", track, filled, class_="bar", viewBox="0 0 100 8", preserveAspectRatio="none", aria_hidden="true"
    )


def buckets(points: Sequence[Point], count: int) -> list[Bucket]:
    """Gather points into at most ``count`` runs of equal number: mean x; least, median and greatest y."""
    runs = min(count, len(points))
    edges = [round(index * len(points) / runs) for index in range(runs + 1)] if runs else []
    gathered = []
    for first, last in itertools.pairwise(edges):
        xs, ys = zip(*points[first:last], strict=True)
        gathered.append((statistics.fmean(xs), min(ys), statistics.median(ys), max(ys)))
    return gathered


def _axes(xs: Sequence[float], ys: Sequence[float], frame: Frame) -> tuple[Axis, Axis]:
    left, right = LEFT, frame.width - frame.right
    top, bottom = TOP, frame.height - BOTTOM
    span = span_axis(*(frame.x_range or (min(xs, default=0), max(xs, default=1))), left, right)
    if frame.every:
        span = Axis(span.low, span.high, left, right, tuple(sorted(set(xs))))
    return span, (log_axis if frame.log else linear_axis)(ys, bottom, top)


def _grid(x_axis: Axis, y_axis: Axis, frame: Frame) -> Html:
    pieces = []
    for value in y_axis.ticks:
        y = px(y_axis(value))
        pieces.append(element("line", class_="grid", x1=LEFT, x2=frame.width - frame.right, y1=y, y2=y))
        pieces.append(text(tick(value), LEFT - 6, y_axis(value) + 4, "end"))
    base = frame.height - BOTTOM
    for value in x_axis.ticks:
        x = x_axis(value)
        pieces.append(element("line", class_="axis", x1=px(x), x2=px(x), y1=base, y2=base + 4))
        edge = x > frame.width - 20 and len(tick(value)) > 1
        pieces.append(text(tick(value), min(x, frame.width - 1) if edge else x, base + 17, "end" if edge else "middle"))
    pieces.append(element("line", class_="axis", x1=LEFT, x2=frame.width - frame.right, y1=base, y2=base))
    return join(*pieces)


def _line(line: Line, x_axis: Axis, y_axis: Axis, frame: Frame) -> Html:
    room = max(2, (frame.width - LEFT - frame.right) // 2)  # a point every two pixels
    runs = buckets(line.points, room)
    middle = [(x_axis(x), y_axis(median)) for x, _, median, _ in runs]
    pieces: list[Html] = []
    if len(runs) < len(line.points):
        upper = [(x_axis(x), y_axis(high)) for x, _, _, high in runs]
        lower = [(x_axis(x), y_axis(low)) for x, low, _, _ in runs]
        pieces.append(element("polygon", class_=f"band {line.style}", points=path([*upper, *reversed(lower)])))
    pieces.append(element("polyline", class_=f"line {line.style}", points=path(middle)))
    if line.dots or len(runs) == 1:
        pieces += [element("circle", class_=f"dot {line.style}", cx=px(x), cy=px(y), r=3) for x, y in middle]
    if line.label and middle:
        pieces.append(text(line.label, middle[-1][0] + 8, middle[-1][1] + 4, "start", f"label {line.style}"))
    return join(*pieces)


def _shade(shade: Shade, x_axis: Axis, frame: Frame) -> Html:
    pieces = []
    for first, last in shade.stretches:
        x, end = x_axis(first), x_axis(last)
        pieces.append(
            element(
                "rect",
                class_=shade.style,
                x=px(x),
                y=TOP,
                width=px(max(1.0, end - x)),
                height=frame.height - BOTTOM - TOP,
            )
        )
    return join(*pieces)


def text(words: str, x: float, y: float, anchor: str, style: str = "tick") -> Html:
    """Write words with their baseline at y, and their start, middle or end at x."""
    return element("text", words, class_=style, x=px(x), y=px(y), text_anchor=anchor)


def path(points: Sequence[Point]) -> str:
    """Return pixel positions as a polyline's or polygon's attribute."""
    return " ".join(f"{px(x)},{px(y)}" for x, y in points)


def px(value: float) -> float:
    """Round a position to the tenth of a pixel."""
    return round(value, 1)
