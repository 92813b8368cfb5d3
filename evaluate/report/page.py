"""Put the sections together into one HTML page that needs no other file, no network and no script."""

from __future__ import annotations

import importlib.metadata
import importlib.resources
from string import Template

from deepsim.benchmarks.charts.markup import element, join
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

# anchor, title in the contents, section
SECTIONS = (
    ("comparison", "Reconstructions", sections_images.comparison),
    ("baselines", "Baselines", sections_errors.baselines),
    ("normalized", "Normalised errors", sections_errors.normalized),
    ("reencoding", "Re-encoding", sections_images.reencoding),
    ("interpolation", "Interpolation", sections_images.interpolation),
    ("training", "Training", sections_training.training),
    ("limits", "Limits", sections_limits.limits),
    ("throughput", "Throughput", sections_throughput.throughput),
    ("provenance", "Provenance", sections_facts.provenance),
)


def render(content: Content) -> str:
    """Return the whole page as HTML."""
    links = [(anchor, title) for anchor, title, _ in SECTIONS]
    body = join(
        sections_head.head(content, links),
        element("main", *(build(content) for _, _, build in SECTIONS)),
        sections_facts.footer(content, _version()),
    )
    title = element("title", f"{content.manifest.name}: photographs from {content.layer} features")
    page = Template(_resource("page.html")).substitute(title=title, style=_resource("page.css"), body=body)
    return page.encode("utf-8", "replace").decode("utf-8")  # halves of surrogate pairs, as JSON files can hold


def _version() -> str | None:
    try:
        return importlib.metadata.version("deepsim")
    except importlib.metadata.PackageNotFoundError:  # a checkout that is not installed
        return None


def _resource(name: str) -> str:
    return importlib.resources.files("deepsim.evaluate.report").joinpath(name).read_text("utf-8")
