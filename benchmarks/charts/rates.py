"""Charts of a benchmark: images per second over the batch size, a line per contender with its name at the end.

Where a call was timed at one batch size only, bars. Ours are drawn strongly and above the peers; a peer's colour is
that of its family (the name up to the first hyphen), its dashes tell the members of a family apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from deepsim.benchmarks.charts.lines import LEFT, WIDTH, scale_y
from deepsim.benchmarks.charts.svg import COLOURS, Drawing, plain
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
OWN_COLOURS = ("first", "second", "third")
HUES = 6  # of peers, each a colour
DASHES: tuple[tuple[float, ...], ...] = ((), (7, 3.5), (1.5, 3.5), (9, 3, 1.5, 3))  # pixels on and off

Point = tuple[float, float]


@dataclass(frozen=True)
class Style:
    """How a contender is drawn: its colour, whether it is ours, and which of DASHES its line has."""

    colour: str
    own: bool
    dashes: int = 0


@dataclass(frozen=True)
class Series:
    """One contender's images per second at each batch size, in order, and how it is drawn."""

    name: str
    style: Style
    points: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Panel:
    """One chart: its lines, its size in pixels, and what is read out instead of it."""

    lines: tuple[Series, ...]
    width: int
    height: int
    description: str

    @plain()
    def svg(self) -> str:
        """Return the chart as an element for a page."""
        drawing = Drawing(self.width, self.height)
        self.draw(drawing)
        return drawing.inline(self.description)

    def draw(self, drawing: Drawing, left: float = 0, top: float = 0) -> None:
        """Draw the chart into a drawing, its upper left corner at (left, top)."""
        sizes = sorted({batch for series in self.lines for batch, _ in series.points})
        if len(sizes) == 1:
            _bars(drawing, self.lines, left, top)
        else:
            _lines(drawing, self, sizes, left, top)


def styles(contenders: Sequence[str]) -> dict[str, Style]:
    """Map contenders to how they are drawn; the only one is drawn as ours would be."""
    families: dict[str, list[str]] = {}
    found: dict[str, Style] = {}
    for name in contenders:
        if name in OWN or len(contenders) == 1:
            ours = sum(style.own for style in found.values())
            found[name] = Style(OWN_COLOURS[ours % len(OWN_COLOURS)], own=True)
            continue
        family = families.setdefault(name.split("-")[0], [])
        hue = list(families).index(name.split("-")[0]) % HUES + 1
        found[name] = Style(f"peer-{hue}", own=False, dashes=len(family) % len(DASHES))
        family.append(name)
    return found


def panels(measured: Throughput) -> dict[str, Panel]:
    """Draw one chart for each call that was timed."""
    drawn = styles(measured.contenders)
    return {what: _panel(what, _series(measured, what, drawn)) for what in measured.calls}


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


def _series(measured: Throughput, what: str, drawn: Mapping[str, Style]) -> list[Series]:
    """Return the lines of a call in the order of drawing: ours last, the first of them on top."""
    points: dict[str, dict[int, float]] = {}
    for row in measured.rows:
        if row["what"] == what:
            points.setdefault(measured.name_of(row), {})[row["batch"]] = rate(row)
    lines = [Series(name, drawn[name], tuple(sorted(found.items()))) for name, found in points.items()]
    lines.reverse()
    return sorted(lines, key=lambda series: series.style.own)


def _panel(what: str, lines: Sequence[Series]) -> Panel:
    description = f"{CALLS.get(what, what)}, images per second: {'; '.join(map(_told, reversed(lines)))}"
    sizes = sorted({batch for series in lines for batch, _ in series.points})
    if len(sizes) == 1:
        return Panel(tuple(lines), WIDTH, len(lines) * ROW + 4, f"{description}, all at batch {sizes[0]}")
    height = max(HEIGHT, round(TOP + BOTTOM + len(lines) * LINE))
    return Panel(tuple(lines), WIDTH, height, description)


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


def _lines(drawing: Drawing, panel: Panel, sizes: Sequence[int], left: float, top: float) -> None:
    right, base = left + panel.width - round(GAP + _column(panel.lines)), top + panel.height - BOTTOM
    axes = drawing.axes(left + LEFT, right, top + TOP, base)
    scale_y(axes, [value for series in panel.lines for _, value in series.points])
    _scale_x(drawing, axes, sizes, left, base)
    drawing.text("images/s", left, top + 11)
    drawing.text("batch", right + GAP, base + 18)
    for series in panel.lines:
        _line(drawing, axes, series)
    ends = [drawing.place(axes, *series.points[-1]) for series in panel.lines]
    _labels(drawing, panel.lines, ends, right + GAP, (top + TOP, base))


def _scale_x(drawing: Drawing, axes: Axes, sizes: Sequence[int], left: float, base: float) -> None:
    """Put a tick at every batch size, and its number where there is room."""
    axes.set_xscale("log")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(sizes[0], sizes[-1])
    axes.set_xticks(list(sizes), [""] * len(sizes))
    free = left + LEFT - 20.0
    for size in sizes:
        x, _ = drawing.place(axes, size, 0)
        half = CHARACTER * len(tick(size)) / 2
        if x - half > free:
            drawing.text(tick(size), x, base + 18, "center")
            free = x + half + 3


def _line(drawing: Drawing, axes: Axes, series: Series) -> None:
    style, dashes = series.style, DASHES[series.style.dashes]
    if len(series.points) > 1:
        width = 2.6 if style.own else 1.3
        (line,) = axes.plot(*zip(*series.points, strict=True), color=COLOURS[style.colour], clip_on=False)
        line.set(linewidth=width, solid_capstyle="round", dash_capstyle="round")
        if dashes:
            line.set_linestyle((0, tuple(length / width for length in dashes)))  # in widths of the line
    told = [
        f"{series.name}, batch {batch}: {significant(value)} images/s".lstrip(", ") for batch, value in series.points
    ]
    drawing.dots(axes, series.points, style.colour, 3.2 if style.own else 2.2, told)


def _labels(
    drawing: Drawing, lines: Sequence[Series], ends: Sequence[Point], x: float, limits: tuple[float, float]
) -> None:
    """Write the names in a column, each as near to the end of its line as the others let it, and tied to it."""
    moved = spread([y for _, y in ends], LINE, *limits)
    for series, (end, at), y in zip(lines, ends, moved, strict=True):
        if series.name and (abs(y - at) > 2 or end < x - GAP):
            drawing.line([(end + 4, at), (x - 3, y)], series.style.colour, 0.7, opacity=0.7)
        drawing.text(_shown(series.name), x, y + 4, colour=series.style.colour, bold=series.style.own)


def _bars(drawing: Drawing, lines: Sequence[Series], left: float, top: float) -> None:
    """Draw a bar for each contender, the fastest at the top, with its name before it and its rate behind."""
    start = left + (round(_column(lines)) if any(series.name for series in lines) else 0)
    scale = (left + WIDTH - start - 48) / max(series.points[0][1] for series in lines)
    for place, series in enumerate(sorted(lines, key=lambda each: -each.points[0][1])):
        value, style = series.points[0][1], series.style
        middle, width = top + place * ROW + ROW / 2, max(1.0, value * scale)
        drawing.text(_shown(series.name), start - 8, middle + 4, "right", style.colour, bold=style.own)
        drawing.block(start, middle - 6, width, 12, style.colour, opacity=1.0 if style.own else 0.7)
        drawing.text(significant(value), start + width + 6, middle + 4)
