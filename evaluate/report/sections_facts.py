"""What the figures rest on: the bundle's provenance, verification and files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deepsim.benchmarks.charts.markup import Child, Html, element
from deepsim.benchmarks.charts.wording import count, signed, size
from deepsim.evaluate.report.content import Content
from deepsim.evaluate.report.layout import code, details, facts, note, paragraph, section, table
from deepsim.evaluate.report.pictures import QUALITIES


def provenance(content: Content) -> Html:
    """List where the bundle comes from, how it was verified, and the hash of each of its files."""
    manifest = content.manifest
    files: list[list[Child]] = [
        [code(name), size(record.size), code(record.sha256)] for name, record in sorted(manifest.files.items())
    ]
    parts = [
        details(
            "How it was made", facts(_flat(manifest.provenance)) if manifest.provenance else note("None recorded.")
        ),
        details(
            "How it was verified",
            facts(_flat(manifest.verification)) if manifest.verification else note("None recorded."),
        ),
        details(
            f"Files and their SHA-256 ({len(files):,})",
            element("div", table("Files of the bundle", ["File", "Size", "SHA-256"], files), class_="hashes"),
        ),
    ]
    return section(
        "provenance", "Provenance", paragraph("What the bundle\u2019s manifest records about itself."), *parts
    )


def _flat(record: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Child]]:
    """Write a nested record as (dotted name, value) pairs."""
    pairs: list[tuple[str, Child]] = []
    for name, value in record.items():
        if isinstance(value, Mapping):
            pairs += _flat(value, f"{prefix}{name}.")
        else:
            pairs.append((f"{prefix}{name}", _shown(value)))
    return pairs


def _shown(value: object) -> str:
    if isinstance(value, list):
        return "; ".join(_shown(entry) for entry in value) or "none"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return signed(value, 0) if isinstance(value, int) else str(value) or "\u2013"


def footer(content: Content, version: str | None) -> Html:
    """Say what wrote the page and how its pictures are stored."""
    written = f"deepsim {version}" if version else "deepsim"
    photos = count(len(content.figures.photos), "photograph")
    return element(
        "footer",
        paragraph(
            f"Written by {written} from {photos}. Pictures are stored here as JPEG of quality {QUALITIES[0]}, noisy "
            f"ones down to {QUALITIES[-1]}; every figure was computed from the pixels before that. This page loads "
            "nothing and runs no scripts."
        ),
    )
