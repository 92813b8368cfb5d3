"""A page of figures as data: what the HTML page and the PDF are both written from, so that they say the same."""

from __future__ import annotations

from dataclasses import dataclass

from deepsim.evaluate.figures.wants import Want
from deepsim.runtime.pixels import Pixels


@dataclass(frozen=True)
class Picture:
    """Pixels (H, W, 3), and what they show, for those who do not see them."""

    pixels: Pixels
    alt: str


@dataclass(frozen=True)
class Strip:
    """A column of pictures under its heading; ``figures`` stand below, one for each of the panel's measures."""

    heading: str
    note: str
    pictures: tuple[Picture, ...]
    figures: tuple[str, ...]


@dataclass(frozen=True)
class Measure:
    """What a row of figures below the pictures holds; ``is_theirs``: these are the paper's own."""

    name: str
    is_theirs: bool = False


@dataclass(frozen=True)
class Panel:
    """Columns of pictures side by side; the first are the photographs, and have the measures' names below them."""

    title: str
    measures: tuple[Measure, ...]
    strips: tuple[Strip, ...]
    note: str = ""


@dataclass(frozen=True)
class Grid:
    """Pictures of one kind in rows, as samples are shown."""

    title: str
    pictures: tuple[Picture, ...]
    note: str


@dataclass(frozen=True)
class Row:
    """A row of a table; ``is_theirs``: its figures are the paper's own."""

    cells: tuple[str, ...]
    is_theirs: bool = False


@dataclass(frozen=True)
class Tabular:
    """A table whose first column names its rows."""

    caption: str
    head: tuple[str, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Figure:
    """One figure of the paper, drawn; ``want`` names what it could show besides."""

    anchor: str
    title: str
    lead: str
    parts: tuple[Panel | Grid | Tabular, ...]
    want: Want | None = None


@dataclass(frozen=True)
class Missing:
    """A figure that is left out."""

    title: str
    want: Want


@dataclass(frozen=True)
class Document:
    """The whole page."""

    title: str
    lead: str
    conditions: tuple[str, ...]
    figures: tuple[Figure, ...]
    missing: tuple[Missing, ...]
    sources: Tabular
