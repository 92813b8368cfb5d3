"""Matplotlib's figures as SVG: for a page, whose style sheet colours them, or as a file of its own.

A length is a pixel, and y grows downwards. Text stays text in the reader's own faces, so that it is drawn, selected and
read out as the rest of a page is; what is drawn depends on nothing else, so that equal figures give equal bytes.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from xml.etree import ElementTree

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

# The light page's colours by the names of its style sheet's variables, by which a page replaces them.
COLOURS = {
    "ink": "#1b1e21",
    "soft": "#565c62",
    "rule": "#deded8",
    "first": "#0a6874",
    "second": "#b04a12",
    "third": "#7d2d86",
    "peer-1": "#66707c",
    "peer-2": "#857043",
    "peer-3": "#86607f",
    "peer-4": "#5a7a60",
    "peer-5": "#8a6457",
    "peer-6": "#6a6b99",
    "pause-d": "#f0e3da",
    "pause-g": "#c8dcdd",
}
PAPER = "#fdfdfb"
FACES = '"Helvetica Neue", "Segoe UI", Roboto, "Liberation Sans", Arial, sans-serif'
SIZE = 11.5  # of text, in pixels

Point = tuple[float, float]

_NAMES = {colour: name for name, colour in COLOURS.items()}
_TAG = "{http://www.w3.org/2000/svg}"
_LINK = "{http://www.w3.org/1999/xlink}href"
_SETTINGS = {"svg.fonttype": "none", "svg.hashsalt": "deepsim", "path.simplify": False}
_DEFAULTS = {name: value for name, value in matplotlib.rcParamsDefault.items() if not name.startswith("backend")}
_UNDATED = {"Creator": None, "Date": None, "Format": None, "Type": None}


@contextmanager
def plain() -> Iterator[None]:
    """Keep the reader's own settings of matplotlib from what is drawn within."""
    with matplotlib.rc_context({**_DEFAULTS, **_SETTINGS}):
        yield


class Drawing:
    """A figure of ``width`` x ``height`` pixels to draw axes, lines and text into."""

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self.figure = Figure(figsize=(width / 72, height / 72), dpi=72)
        self.figure.patch.set_visible(False)
        self._told: dict[str, list[str]] = {}

    def axes(self, left: float, right: float, top: float, bottom: float) -> Axes:
        """Add axes between these edges: a line at the bottom with ticks, and rules at the ticks of y."""
        w, h = self.width, self.height
        axes = self.figure.add_axes((left / w, 1 - bottom / h, (right - left) / w, (bottom - top) / h))
        axes.patch.set_visible(False)
        axes.spines[["left", "right", "top"]].set_visible(False)
        axes.spines["bottom"].set(color=COLOURS["soft"], linewidth=1, capstyle="butt")
        axes.tick_params(labelsize=SIZE, labelcolor=COLOURS["soft"], color=COLOURS["soft"])
        axes.tick_params(axis="x", which="both", length=4, width=1, pad=5)
        axes.tick_params(axis="y", which="both", length=0, pad=6)
        axes.grid(axis="y", color=COLOURS["rule"], linewidth=1)
        axes.set_axisbelow(True)
        return axes

    def place(self, axes: Axes, x: float, y: float) -> tuple[float, float]:
        """Return where a value lies, in pixels; the limits of the axes are set before."""
        across, up = axes.transData.transform((x, y))
        return float(across), self.height - float(up)

    def line(self, points: Sequence[Point], colour: str, width: float, opacity: float = 1.0) -> None:
        """Draw a line through pixels."""
        xs, ys = zip(*((x / self.width, 1 - y / self.height) for x, y in points), strict=True)
        self.figure.add_artist(Line2D(xs, ys, color=COLOURS[colour], linewidth=width, alpha=opacity))

    def block(self, x: float, y: float, width: float, height: float, colour: str, opacity: float = 1.0) -> None:
        """Fill a rectangle whose upper left corner is at (x, y)."""
        corner = (x / self.width, 1 - (y + height) / self.height)
        size = (width / self.width, height / self.height)
        self.figure.add_artist(Rectangle(corner, *size, facecolor=COLOURS[colour], alpha=opacity, linewidth=0))

    def text(
        self, words: str, x: float, y: float, anchor: str = "left", colour: str = "soft", size: float = SIZE,
        bold: bool = False,
    ) -> None:  # fmt: skip
        """Write words with their baseline at y, and their "left", "center" or "right" at x."""
        weight = "bold" if bold else "normal"
        self.figure.text(
            x / self.width, 1 - y / self.height, drawable(words), ha=anchor, va="baseline", color=COLOURS[colour],
            fontsize=size, fontweight=weight, parse_math=False,
        )  # fmt: skip

    def dots(
        self, axes: Axes, points: Sequence[Point], colour: str, radius: float, told: Sequence[str] = ()
    ) -> None:  # fmt: skip
        """Draw a dot at each (x, y); what is ``told`` of it is shown while a pointer rests on it."""
        name = f"dots-{len(self._told)}"
        self._told[name] = [drawable(each) for each in told]
        xs, ys = zip(*points, strict=True)
        axes.plot(
            xs, ys, "o", markersize=2 * radius, markeredgewidth=0, color=COLOURS[colour], clip_on=False, gid=name
        )  # fmt: skip

    def inline(self, description: str) -> str:
        """Return the figure as an element for a page; ``description`` is read out instead of it."""
        attributes = {"class": "chart", "viewBox": self._box, "role": "img", "aria-label": drawable(description)}
        marks = list(self._marks())
        for mark in marks:
            mark.set("style", re.sub("#[0-9a-f]{6}", _variable, mark.get("style", "")))
        return _written(attributes, marks)

    def file(self, title: str) -> str:
        """Return the figure as the content of an SVG file, on light paper."""
        size = {"width": f"{self.width:g}", "height": f"{self.height:g}"}
        attributes = {"xmlns": _TAG[1:-1], **size, "viewBox": self._box, "role": "img", "font-family": FACES}
        paper = ElementTree.Element("rect", {**size, "style": f"fill: {PAPER}"})
        return f"{_written(attributes, [_titled(drawable(title)), paper, *self._marks()])}\n"

    @property
    def _box(self) -> str:
        return f"0 0 {self.width:g} {self.height:g}"

    def _marks(self) -> Iterator[ElementTree.Element]:
        """Yield what matplotlib draws as paths, circles and texts that refer to nothing."""
        content = io.BytesIO()
        with plain(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing")  # the reader's faces may have it
            self.figure.savefig(content, format="svg", metadata=_UNDATED)
        root = ElementTree.fromstring(content.getvalue())
        shapes = {each.get("id", ""): each.get("d", "") for each in root.iter(f"{_TAG}path")}
        defined = {each for group in root.iter(f"{_TAG}defs") for each in group}
        for group in root.iter(f"{_TAG}g"):
            told = iter(self._told.get(group.get("id", ""), ()))
            for each in group.findall("*"):
                if each not in defined and each.tag in (f"{_TAG}path", f"{_TAG}text"):
                    yield _mark(each)
            for use in group.findall(f"{_TAG}g/{_TAG}use"):
                yield _used(use, shapes[use.get(_LINK, "")[1:]], next(told, ""))


def drawable(text: str) -> str:
    """Replace what XML cannot hold: control characters and halves of surrogate pairs, as file names may have."""
    return "".join(sign if sign.isprintable() or sign == "\u00a0" else "\ufffd" for sign in text)


def _variable(colour: re.Match[str]) -> str:
    return f"var(--{_NAMES[colour[0]]})" if colour[0] in _NAMES else colour[0]


def _mark(found: ElementTree.Element) -> ElementTree.Element:
    """Return a path or text without identity, clipping and faces."""
    tag = found.tag.removeprefix(_TAG)
    kept = {name: _short(value) for name, value in found.items() if name in ("d", "x", "y")}
    style = re.sub(r"font-family: [^;]*;? ?", "", found.get("style", "")).rstrip("; ")
    mark = ElementTree.Element(tag, {**kept, "style": style.replace("font-weight: 700", "font-weight: 600")})
    mark.text = found.text if tag == "text" else None
    return mark


def _used(use: ElementTree.Element, shape: str, told: str) -> ElementTree.Element:
    """Return a marker where it stands: a circle that tells its value, or a tick."""
    x, y = (float(use.get(name, "0")) for name in ("x", "y"))
    round_ = re.match(r"M 0 ([\d.]+)\s+C", shape)
    if round_:
        places: dict[str, Any] = {"cx": x, "cy": y, "r": float(round_[1])}
        mark = ElementTree.Element("circle", {name: _short(str(value)) for name, value in places.items()})
        mark.extend([_titled(told)] if told else [])
    else:
        moved = {"d": _short(shape), "transform": f"translate({_short(str(x))} {_short(str(y))})"}
        mark = ElementTree.Element("path", moved)
    mark.set("style", use.get("style", ""))
    return mark


def _titled(text: str) -> ElementTree.Element:
    title = ElementTree.Element("title")
    title.text = text
    return title


def _short(numbers: str) -> str:
    """Round every number of an attribute to the tenth of a pixel."""
    return re.sub(r"-?\d+\.\d+", lambda found: f"{round(float(found[0]), 1):g}", " ".join(numbers.split()))


def _written(attributes: dict[str, str], marks: Sequence[ElementTree.Element]) -> str:
    root = ElementTree.Element("svg", attributes)
    root.extend(marks)
    return ElementTree.tostring(root, encoding="unicode")
