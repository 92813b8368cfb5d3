"""What sections hand to their templates beside words: tables, charts and pieces of markup."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

Cell = str | Markup


@dataclass(frozen=True)
class Table:
    """A table whose first column names its rows; an empty heading is one of pictures. Row ``marked`` stands out."""

    caption: str
    head: Sequence[Cell]
    rows: Sequence[Sequence[Cell]]
    marked: int | None = None


@dataclass(frozen=True)
class Chart:
    """A chart with its title and the figure beside it."""

    svg: Markup
    title: str
    number: str


def code(text: str) -> Markup:
    """Set a name or command in the fixed-width face."""
    return Markup("<code>{}</code>").format(text)


def span(text: str, style: str) -> Markup:
    """Set text as a class of the style sheet says."""
    return Markup('<span class="{}">{}</span>').format(style, text)


def bar(fraction: float, style: str) -> Markup:
    """Draw a bar that fills a fraction of the width it is given; the number beside it says the same."""
    width = round(100 * min(1.0, max(0.0, fraction)), 2)
    return Markup(
        '<svg class="bar" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="track" width="100" height="8"></rect><rect class="{}" width="{}" height="8"></rect></svg>'
    ).format(style, width)
