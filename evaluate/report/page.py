"""Put the sections together into one HTML page that needs no other file, no network and no script."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Callable
from typing import Any

from markupsafe import Markup

from deepsim.benchmarks.charts.wording import count
from deepsim.evaluate.pages import filled
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
from deepsim.evaluate.report.pictures import QUALITIES

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
    page = _filled(
        "page.html",
        name=content.manifest.name,
        layer=content.layer,
        head=sections_head.head(content),
        sections=sections,
        version=_version(),
        photographs=count(len(content.figures.photos), "photograph"),
        qualities=QUALITIES,
    )
    return page.encode("utf-8", "replace").decode("utf-8")  # halves of surrogate pairs, as JSON files can hold


def render_section(anchor: str, content: Content) -> Markup:
    """Return one section of the page as HTML."""
    return Markup(_filled(f"{anchor}.html", **SECTIONS[anchor][1](content)))


def _filled(template: str, **given: Any) -> str:
    """Fill a template; the white space between tags that only its lines bring is left out."""
    return re.sub(r">\s*\n\s*<", "><", filled("deepsim.evaluate.report", template, **given))


def _version() -> str | None:
    try:
        return importlib.metadata.version("deepsim")
    except importlib.metadata.PackageNotFoundError:  # a checkout that is not installed
        return None
