"""The page's building blocks: sections, figures with captions, tables, notes."""

from __future__ import annotations

from collections.abc import Sequence

from deepsim.benchmarks.charts.markup import Child, Html, element


def section(anchor: str, title: str, *children: Child) -> Html:
    """Build a section with its heading; ``anchor`` is what the contents link to."""
    heading = element("h2", title, id=f"{anchor}-title")
    return element("section", heading, *children, id=anchor, aria_labelledby=f"{anchor}-title")


def paragraph(*children: Child, style: str | None = None) -> Html:
    """Build a paragraph of text and inline markup."""
    return element("p", *children, class_=style)


def note(*children: Child) -> Html:
    """Build the one line that stands where a part of the page is missing."""
    return paragraph(*children, style="note")


def figure(content: Html, caption: Child, style: str | None = None) -> Html:
    """Build a figure with its caption below."""
    return element("figure", content, element("figcaption", caption), class_=style)


def table(caption: str, head: Sequence[Child], rows: Sequence[Sequence[Child]], marked: int | None = None) -> Html:
    """Build a table whose first column names its rows; row number ``marked`` stands out.

    An empty heading is one of pictures. It scrolls sideways, also with the keyboard, where the screen is narrower.
    """
    header = element("tr", *(element("th", cell, scope="col") if cell else element("td") for cell in head))
    body = [
        element("tr", element("th", row[0], scope="row"), *(element("td", cell) for cell in row[1:]), class_=style)
        for row, style in ((row, "marked" if index == marked else None) for index, row in enumerate(rows))
    ]
    content = element(
        "table", element("caption", caption), element("thead", header), element("tbody", *body), class_="figures"
    )
    return element("div", content, class_="scroll", tabindex=0, role="region", aria_label=caption)


def compact_table(
    caption: str, head: Sequence[Child], rows: Sequence[Sequence[Child]], marked: int | None = None
) -> Html:
    """Build a :func:`table` that is no wider than text."""
    return element("div", table(caption, head, rows, marked), class_="compact")


def facts(pairs: Sequence[tuple[str, Child]], style: str = "facts") -> Html:
    """Build a list of terms, each with what it is."""
    return element(
        "dl",
        *(element("div", element("dt", term), element("dd", meaning)) for term, meaning in pairs),
        class_=style,
    )


def details(summary: str, *children: Child) -> Html:
    """Build a part that opens on demand."""
    return element("details", element("summary", summary), *children)


def code(text: str) -> Html:
    """Set a name or command in the fixed-width face."""
    return element("code", text)


def strong(text: str) -> Html:
    """Set text in bold."""
    return element("strong", text)


def items(*children: Child) -> Html:
    """Build a bulleted list."""
    return element("ul", *(element("li", child) for child in children))
