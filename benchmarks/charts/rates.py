"""Charts of a benchmark: images per second over the batch size, a line per contender with its name at the end.

Where a call was timed at one batch size only, bars. Ours are drawn strongly and above the peers; a peer's colour is
that of its family (the name up to the first hyphen), its dashes tell the members of a family apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from deepsim.benchmarks.charts.axes import Axis, linear_axis
from deepsim.benchmarks.charts.charts import LEFT, WIDTH, path, px, text
from deepsim.benchmarks.charts.markup import Html, element, join
from deepsim.benchmarks.charts.wording import significant, tick, times
from deepsim.benchmarks.contenders import OWN
from deepsim.benchmarks.throughput import CALLS, Throughput, rate

TOP, BOTTOM = 24, 28  # margins around the plotted area
HEIGHT = 250  # of a chart of lines, more where there are many contenders
LINE = 14.0  # least distance between the baselines of two labels
CHARACTER = 5.8  # mean width of a label's character, ample for most faces
LONGEST = 22  # characters of a name
GAP = 18  # between the last batch size and the labels
ROW = 22  # height of a bar and the space below it
OWN_STYLES, HUES, DASHES = 3, 6, 4  # that the style sheets have

Point = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """One contender's images per second at each batch size, in order, and the style sheet's classes for it."""

    name: str
    style: str
    points: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Panel:
    """One chart: its marks, its size in pixels, and what is read out instead of it."""

    marks: Html
    width: int
    height: int
    description: str

    def svg(self) -> Html:
        """Return the chart as an element for the page."""
        box = f"0 0 {self.width} {self.height}"
        return element("svg", self.marks, class_="chart", viewBox=box, role="img", aria_label=self.description)


def styles(contenders: Sequence[str]) -> dict[str, str]:
    """Map contenders to the style sheet's classes; the only one is drawn as ours would be."""
    families: dict[str, list[str]] = {}
    found: dict[str, str] = {}
    for name in contenders:
        if name in OWN or len(contenders) == 1:
            found[name] = f"own-{sum(style.startswith('own') for style in found.values()) % OWN_STYLES + 1}"
            continue
        family = families.setdefault(name.split("-")[0], [])
        hue = list(families).index(name.split("-")[0]) % HUES + 1
        found[name] = f"peer peer-{hue} dash-{len(family) % DASHES}"
        family.append(name)
    return found


def panels(measured: Throughput) -> dict[str, Panel]:
    """Draw one chart for each call that was timed."""
    classes = styles(measured.contenders)
    return {what: _panel(what, _series(measured, what, classes)) for what in measured.calls}


def spread(positions: Sequence[float], least: float, low: float, high: float) -> list[float]:
    """Move positions as little as possible, in the sum of squares, so that neighbours are ``least`` apart.

    They keep their order and stay between ``low`` and ``high`` while there is room for all.
    """
    order = sorted(range(len(positions)), key=lambda index: positions[index])
    blocks: list[list[float]] = []  # offsets from an even stack, pooled where they would fall
    for place, index in enumerate(order):
        blocks.append([positions[index] - place * least])
        while len(blocks) > 1 and _mean(blocks[-2]) > _mean(blocks[-1]):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    room = max(low, high - (len(positions) - 1) * least)
    stack = [min(max(_mean(block), low), room) for block in blocks for _ in block]
    moved = [0.0] * len(positions)
    for place, index in enumerate(order):
        moved[index] = stack[place] + place * least
    return moved


def caption_of(measured: Throughput, what: str) -> tuple[str, str]:
    """Return a chart's title, and its figure at the largest batch: the ratio of our first contender, else a rate."""
    last = [each for each in measured.comparisons() if each.what == what][-1]
    rows = last.own or last.peers
    name = next(iter(last.own), None) or max(rows, key=lambda each: rate(rows[each]))
    ratio = last.ratio(name)
    whose = f"{name} " if len(measured.contenders) > 1 else ""
    number = f"{significant(rate(rows[name]))}/s" if ratio is None else f"{times(ratio)} {last.best_peer}"
    return CALLS.get(what, what), f"{whose}{number} at batch {last.batch}"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _series(measured: Throughput, what: str, classes: Mapping[str, str]) -> list[Series]:
    """Return the lines of a call in the order of drawing: ours last, the first of them on top."""
    points: dict[str, dict[int, float]] = {}
    for row in measured.rows:
        if row["what"] == what:
            points.setdefault(measured.name_of(row), {})[row["batch"]] = rate(row)
    lines = [Series(name, classes[name], tuple(sorted(found.items()))) for name, found in points.items()]
    lines.reverse()
    return sorted(lines, key=lambda series: series.style.startswith("own"))


def _panel(what: str, lines: Sequence[Series]) -> Panel:
    description = f"{CALLS.get(what, what)}, images per second: {'; '.join(map(_told, reversed(lines)))}"
    sizes = sorted({batch for series in lines for batch, _ in series.points})
    if len(sizes) == 1:
        return Panel(_bars(lines), WIDTH, len(lines) * ROW + 4, f"{description}, all at batch {sizes[0]}")
    height = max(HEIGHT, round(TOP + BOTTOM + len(lines) * LINE))
    return Panel(_lines(lines, sizes, height), WIDTH, height, description)


def _told(series: Series) -> str:
    (first, slow), (last, fast) = series.points[0], series.points[-1]
    if first == last:
        return f"{series.name} {significant(fast)}"
    return f"{series.name} {significant(slow)} at batch {first}, {significant(fast)} at batch {last}".lstrip()


def _shown(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}\u2026"


def _column(lines: Sequence[Series]) -> float:
    """Return the width of the names, or of the axis' title below them."""
    return 6 + CHARACTER * max(len("batch"), *(len(_shown(series.name)) for series in lines))


def _lines(lines: Sequence[Series], sizes: Sequence[int], height: int) -> Html:
    right = WIDTH - round(GAP + _column(lines))
    x_axis = Axis(sizes[0], sizes[-1], LEFT, right, tuple(sizes), log=True)
    top = [value for series in lines for _, value in series.points]
    y_axis = linear_axis(top, height - BOTTOM, TOP)
    drawn = [(series, [(x_axis(batch), y_axis(value)) for batch, value in series.points]) for series in lines]
    return join(_grid(x_axis, y_axis), *(_line(*each) for each in drawn), _labels(drawn, right + GAP, height))


def _grid(x_axis: Axis, y_axis: Axis) -> Html:
    pieces = [text("images/s", 0, 11, "start")]
    for value in y_axis.ticks:
        y = px(y_axis(value))
        pieces.append(element("line", class_="grid", x1=LEFT, x2=px(x_axis.end), y1=y, y2=y))
        pieces.append(text(tick(value), LEFT - 8, y + 4, "end"))
    base, free = y_axis.start, LEFT - 20.0
    for value in x_axis.ticks:
        x = x_axis(value)
        pieces.append(element("line", class_="axis", x1=px(x), x2=px(x), y1=base, y2=base + 4))
        half = CHARACTER * len(tick(value)) / 2
        if x - half > free:
            pieces.append(text(tick(value), x, base + 18, "middle"))
            free = x + half + 3
    pieces.append(element("line", class_="axis", x1=LEFT, x2=px(x_axis.end), y1=base, y2=base))
    pieces.append(text("batch", x_axis.end + GAP, base + 18, "start"))
    return join(*pieces)


def _line(series: Series, points: Sequence[Point]) -> Html:
    marks = [element("polyline", class_=f"line {series.style}", points=path(points))] if len(points) > 1 else []
    for (batch, value), (x, y) in zip(series.points, points, strict=True):
        told = element("title", f"{series.name}, batch {batch}: {significant(value)} images/s".lstrip(", "))
        radius = 3.2 if series.style.startswith("own") else 2.2
        marks.append(element("circle", told, class_=f"dot {series.style}", cx=px(x), cy=px(y), r=radius))
    return join(*marks)


def _labels(drawn: Sequence[tuple[Series, list[Point]]], x: float, height: int) -> Html:
    """Write the names in a column, each as near to the end of its line as the others let it, and tied to it."""
    ends = [points[-1] for _, points in drawn]
    moved = spread([y for _, y in ends], LINE, TOP, height - BOTTOM)
    pieces = []
    for (series, _), (end, at), y in zip(drawn, ends, moved, strict=True):
        if series.name and (abs(y - at) > 2 or end < x - GAP):
            pieces.append(
                element("line", class_=f"lead {series.style}", x1=px(end + 4), y1=px(at), x2=px(x - 3), y2=px(y))
            )
        pieces.append(text(_shown(series.name), x, y + 4, "start", f"label {series.style}"))
    return join(*pieces)


def _bars(lines: Sequence[Series]) -> Html:
    """Draw a bar for each contender, the fastest at the top, with its name before it and its rate behind."""
    left = round(_column(lines)) if any(series.name for series in lines) else 0
    fastest = max(series.points[0][1] for series in lines)
    scale = (WIDTH - left - 48) / fastest
    pieces = []
    for place, series in enumerate(sorted(lines, key=lambda each: -each.points[0][1])):
        value = series.points[0][1]
        middle, width = place * ROW + ROW / 2, max(1.0, value * scale)
        pieces.append(text(_shown(series.name), left - 8, middle + 4, "end", f"label {series.style}"))
        pieces.append(
            element("rect", class_=f"dot block {series.style}", x=left, y=px(middle - 6), width=px(width), height=12)
        )
        pieces.append(text(significant(value), left + width + 6, middle + 4, "start"))
    return join(*pieces)
