"""Write a page of figures as a PDF with matplotlib: the same content in the same order as the HTML page.

A length is a point, from the upper left corner of an A4 page; text stays text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import BinaryIO

import matplotlib
import numpy as np
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure as Sheet
from matplotlib.font_manager import FontProperties, findfont, get_font

from deepsim.evaluate.figures.document import Document, Figure, Grid, Panel, Picture, Tabular
from deepsim.evaluate.figures.wants import Want

WIDTH, HEIGHT = 595.0, 842.0  # A4
MARGIN, GAP = 48.0, 2.5  # around a page; between pictures
ACROSS = 6  # pictures of the usual size side by side
SAMPLES_ACROSS = 8
INK, SOFT, THEIRS = "#1b1e21", "#565c62", "#b04a12"
SERIF, SANS, MONO = "DejaVu Serif", "DejaVu Sans", "DejaVu Sans Mono"  # they come with matplotlib
_LARGE = 200.0  # size in which text is measured
LEADING = 1.42  # of a line, in sizes of its text
_SETTINGS = {**matplotlib.rcParamsDefault, "pdf.fonttype": 42, "image.composite_image": False}
_METADATA = {"Creator": "deepsim", "Producer": None, "CreationDate": None}


def write_pdf(document: Document, file: BinaryIO) -> None:
    """Write all pages into an open file; equal documents give equal bytes."""
    settings = {name: value for name, value in _SETTINGS.items() if not name.startswith("backend")}
    with matplotlib.rc_context(settings), PdfPages(file, metadata={**_METADATA, "Title": document.title}) as pages:
        paper = _Paper(pages)
        paper.text(document.title, size=22, face=SERIF, bold=True, after=10)
        paper.text(document.lead, size=10.5, face=SERIF, after=10)
        for sentence in document.conditions:
            paper.text(sentence, size=7.5, colour=SOFT, after=4)
        for figure in document.figures:
            _figure(paper, figure)
        if document.missing:
            paper.heading("What is not here")
            paper.text("These figures need runs that were not given. Nothing stands in for them.", after=6)
            for absent in document.missing:
                _want(paper, f"{absent.title}: needs", absent.want)
        paper.heading("What was given")
        _table(paper, document.sources, text_size=6.2)
        paper.finish()


class _Paper:
    """Pages that fill from the top; ``room`` begins a new one where a block does not fit."""

    def __init__(self, pages: PdfPages) -> None:
        self.pages, self.sheet, self.y = pages, _sheet(), MARGIN
        self.width = WIDTH - 2 * MARGIN

    def finish(self) -> None:
        """Write the last page."""
        self.pages.savefig(self.sheet)

    def room(self, height: float) -> None:
        """Make sure that a block of this height fits below, on a new page where it has to."""
        if self.y + min(height, HEIGHT - 2 * MARGIN) > HEIGHT - MARGIN:
            self.pages.savefig(self.sheet)
            self.sheet, self.y = _sheet(), MARGIN

    def heading(self, title: str, below: float = 60.0) -> None:
        """Write a heading that stays with the block below it."""
        self.y += 16 if self.y > MARGIN else 0
        self.room(28 + below)
        self.text(title, size=14, face=SERIF, bold=True, after=5)

    def text(
        self, text: str, size: float = 8.5, face: str = SANS, bold: bool = False, colour: str = INK, after: float = 3
    ) -> None:
        """Write a paragraph across the page."""
        font = FontProperties(family=face, weight="bold" if bold else "normal", size=size)
        for line in wrapped(text, font, self.width):
            self.room(size * LEADING)
            self.y += size * LEADING
            self.write(line, MARGIN, self.y, font, colour)
        self.y += after

    def write(self, text: str, x: float, y: float, font: FontProperties, colour: str = INK) -> None:
        """Write one line with its base line at ``y``; a dollar sign is one, not mathematics."""
        self.sheet.text(x / WIDTH, 1 - y / HEIGHT, text, fontproperties=font, color=colour, parse_math=False)

    def picture(self, shown: Picture, x: float, y: float, side: float) -> None:
        """Draw a picture with its upper left corner at (x, y)."""
        if not self.sheet.axes:  # one for all pictures of a page: axes are slow to make
            axes = self.sheet.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(HEIGHT, 0), autoscale_on=False)
            axes.set_axis_off()
        pixels, extent = np.asarray(shown.pixels), (x, x + side, y + side, y)
        self.sheet.axes[0].imshow(pixels, extent=extent, interpolation="none", aspect="auto")


def wrapped(text: str, font: FontProperties, width: float) -> list[str]:
    """Break text into lines that are at most so wide; a word that is wider is cut.

    >>> wrapped("one two", FontProperties(family="DejaVu Sans", size=10), 30)
    ['one', 'two']
    """
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}".lstrip()
        if extent(longer, font) <= width:
            lines[-1] = longer
            continue
        if lines[-1]:
            lines.append("")
        while extent(word, font) > width and len(word) > 1:
            cut = next(at for at in range(len(word) - 1, 0, -1) if at == 1 or extent(word[:at], font) <= width)
            lines[-1], word = word[:cut], word[cut:]
            lines.append("")
        lines[-1] = word
    return lines


def extent(text: str, font: FontProperties) -> float:
    """Return how wide text is, in points."""
    face = get_font(findfont(font))
    face.set_size(_LARGE, 72)  # where rounding to whole pixels does not matter
    face.set_text(text, 0.0)
    return float(face.get_width_height()[0]) / 64 * font.get_size_in_points() / _LARGE


def _sheet() -> Sheet:
    return Sheet(figsize=(WIDTH / 72, HEIGHT / 72), dpi=72)


def _figure(paper: _Paper, figure: Figure) -> None:
    first = figure.parts[0]
    paper.heading(figure.title, 40 + (_height(first, paper) if isinstance(first, Panel) else 120))
    paper.text(figure.lead, after=4)
    for part in figure.parts:
        if isinstance(part, Panel):
            _panel(paper, part)
        elif isinstance(part, Grid):
            _grid(paper, part)
        else:
            _table(paper, part)
    if figure.want:
        _want(paper, "Not shown here:", figure.want)


def _font(size: float, face: str = SANS, bold: bool = False, italic: bool = False) -> FontProperties:
    weight = "bold" if bold else "normal"
    return FontProperties(family=face, weight=weight, style="italic" if italic else "normal", size=size)


def _side(paper: _Paper, panel: Panel) -> float:
    across = max(ACROSS, len(panel.strips))
    return (paper.width - 6 - (across - 1) * GAP) / across


def _headings(paper: _Paper, panel: Panel) -> list[list[tuple[str, FontProperties, str]]]:
    """Return the lines above each column."""
    side, bold, plain = _side(paper, panel) - 2, _font(6.8, bold=True), _font(6.3)
    return [
        [
            *((line, bold, INK) for line in wrapped(strip.heading, bold, side)),
            *((line, plain, SOFT) for line in (wrapped(strip.note, plain, side) if strip.note else [])),
        ]
        for strip in panel.strips
    ]


def _height(panel: Panel, paper: _Paper) -> float:
    rows = len(panel.strips[0].pictures)
    lines = max(len(lines) for lines in _headings(paper, panel))
    return 20 + 8.5 * lines + rows * (_side(paper, panel) + GAP) + 10.5 * len(panel.measures) + 16


def _panel(paper: _Paper, panel: Panel) -> None:
    paper.y += 5
    paper.room(_height(panel, paper))
    paper.text(panel.title, bold=True, after=4)
    side, headings = _side(paper, panel), _headings(paper, panel)
    tallest = max(len(lines) for lines in headings)
    top = paper.y + 8.5 * tallest + 3
    for at, (strip, lines) in enumerate(zip(panel.strips, headings, strict=True)):
        x = MARGIN + at * (side + GAP) + (6 if at else 0)
        for number, (line, font, colour) in enumerate(lines):
            paper.write(line, x, paper.y + 8.5 * (tallest - len(lines) + number + 1), font, colour)
        for row, shown in enumerate(strip.pictures):
            paper.picture(shown, x, top + row * (side + GAP), side)
    paper.y = top + len(panel.strips[0].pictures) * (side + GAP)
    _measures(paper, panel, side)
    if panel.note:
        paper.text(panel.note, size=7, colour=SOFT, after=4)


def _measures(paper: _Paper, panel: Panel, side: float) -> None:
    """Write the rows of figures below a panel's pictures."""
    for place, measure in enumerate(panel.measures):
        paper.y += 10.5
        font, colour = _font(7, italic=measure.is_theirs), THEIRS if measure.is_theirs else INK
        paper.write(measure.name, MARGIN, paper.y, font, THEIRS if measure.is_theirs else SOFT)
        for at, strip in enumerate(panel.strips[1:], 1):
            paper.write(strip.figures[place], MARGIN + at * (side + GAP) + 6, paper.y, font, colour)
    paper.y += 4


def _grid(paper: _Paper, grid: Grid) -> None:
    side = (paper.width - (SAMPLES_ACROSS - 1) * GAP) / SAMPLES_ACROSS
    rows = -(-len(grid.pictures) // SAMPLES_ACROSS)
    paper.y += 5
    paper.room(34 + rows * (side + GAP))
    paper.text(grid.title, bold=True, after=4)
    for number, shown in enumerate(grid.pictures):
        row, at = divmod(number, SAMPLES_ACROSS)
        paper.picture(shown, MARGIN + at * (side + GAP), paper.y + row * (side + GAP), side)
    paper.y += rows * (side + GAP)
    paper.text(grid.note, size=7, colour=SOFT, after=4)


def _table(paper: _Paper, table: Tabular, text_size: float = 7.2) -> None:
    """Write a table: columns as wide as their share of the text, cells broken into lines."""
    widths = _widths(table, paper.width, text_size)
    paper.text(table.caption, size=7, colour=SOFT, after=3)
    lines = [(table.head, _font(text_size, bold=True), SOFT)]
    lines += [
        (row.cells, _font(text_size, italic=row.is_theirs), THEIRS if row.is_theirs else INK) for row in table.rows
    ]
    for cells, font, colour in lines:
        broken = [wrapped(cell, font, width - 6) for cell, width in zip(cells, widths, strict=True)]
        paper.room(max(map(len, broken)) * text_size * LEADING + 3)
        for at, column in enumerate(broken):
            for number, line in enumerate(column, 1):
                paper.write(line, MARGIN + sum(widths[:at]), paper.y + number * text_size * LEADING, font, colour)
        paper.y += max(map(len, broken)) * text_size * LEADING + 3
    paper.y += 4


def _widths(table: Tabular, whole: float, size: float) -> list[float]:
    """Share the page's width among columns: each at least its longest word, the rest by the length of its text."""
    font = _font(size, bold=True)
    columns: Sequence[tuple[str, ...]] = list(zip(table.head, *(row.cells for row in table.rows), strict=True))
    least = [max(extent(word, font) for cell in column for word in cell.split(" ")) + 8 for column in columns]
    wanted = [max(extent(cell, font) for cell in column) + 8 for column in columns]
    if sum(least) >= whole:
        return [whole * width / sum(least) for width in least]
    spare = whole - sum(least)
    more = [max(0.0, wish - width) for wish, width in zip(wanted, least, strict=True)]
    share = min(1.0, spare / sum(more)) if sum(more) else 0.0
    return [width + share * extra for width, extra in zip(least, more, strict=True)]


def _want(paper: _Paper, title: str, want: Want) -> None:
    paper.room(40)
    paper.y += 3
    paper.text(f"{title} {want.words}.", size=8, bold=False, colour=SOFT, after=2)
    for line in want.commands:
        paper.text(line, size=6.6, face=MONO, after=1.5)
    paper.y += 4
