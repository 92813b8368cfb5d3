"""Write a page of figures as one HTML file that needs no other file, no network and no script."""

from __future__ import annotations

from deepsim.evaluate.figures.document import Document, Figure, Grid, Panel
from deepsim.evaluate.pages import as_utf8, compact, version
from deepsim.evaluate.pictures import QUALITIES, picture

_TEMPLATE = "paper.html"


def render(document: Document) -> str:
    """Return the whole page as HTML."""
    return as_utf8(
        compact(
            "deepsim.evaluate.figures",
            _TEMPLATE,
            page=document,
            parts_of=_parts,
            img=lambda shown: picture(shown.pixels, shown.alt),
            version=version(),
            qualities=QUALITIES,
        )
    )


def _parts(figure: Figure) -> list[tuple[str, object]]:
    """Name what each part of a figure is, for the template."""
    return [
        ("panel" if isinstance(part, Panel) else "grid" if isinstance(part, Grid) else "table", part)
        for part in figure.parts
    ]
