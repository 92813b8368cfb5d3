"""Put the sections together into one HTML page that needs no other file, no network and no script."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from markupsafe import Markup

from deepsim.benchmarks.charts.wording import count
from deepsim.evaluate.pages import as_utf8, compact, version
from deepsim.evaluate.pictures import QUALITIES
from deepsim.evaluate.report import (
    sections_errors,
    sections_facts,
    sections_head,
    sections_images,
    sections_limits,
    sections_throughput,
    sections_training,
)
from deepsim.evaluate.report.content import Content

_PACKAGE = "deepsim.evaluate.report"

# anchor -> title in the contents, and what its template is filled with
SECTIONS: dict[str, tuple[str, Callable[[Content], dict[str, Any]]]] = {
    "comparison": ("Reconstructions", sections_images.comparison),
    "baselines": ("Baselines", sections_errors.baselines),
    "normalized": ("Normalised errors", sections_errors.normalized),
    "reencoding": ("Re-encoding", sections_images.reencoding),
    "interpolation": ("Interpolation", sections_images.interpolation),
    "training": ("Training", sections_training.training),
    "limits": ("Limits", sections_limits.limits),
    "throughput": ("Throughput", sections_throughput.throughput),
    "provenance": ("Provenance", sections_facts.provenance),
}


def render(content: Content) -> str:
    """Return the whole page as HTML."""
    sections = [
        {"anchor": anchor, "title": title, "html": render_section(anchor, content)}
        for anchor, (title, _) in SECTIONS.items()
    ]
    page = compact(
        _PACKAGE,
        "page.html",
        name=content.manifest.name,
        layer=content.layer,
        head=sections_head.head(content),
        sections=sections,
        version=version(),
        photographs=count(len(content.figures.photos), "photograph"),
        qualities=QUALITIES,
    )
    return as_utf8(page)


def render_section(anchor: str, content: Content) -> Markup:
    """Return one section of the page as HTML."""
    return Markup(compact(_PACKAGE, f"{anchor}.html", **SECTIONS[anchor][1](content)))
