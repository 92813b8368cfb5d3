"""What the figures rest on: the bundle's provenance, verification and files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deepsim.benchmarks.charts.wording import signed, size
from deepsim.evaluate.report.content import Content
from deepsim.evaluate.report.layout import Table, code


def provenance(content: Content) -> dict[str, Any]:
    """List where the bundle comes from, how it was verified, and the hash of each of its files."""
    manifest = content.manifest
    files = [[code(name), size(record.size), code(record.sha256)] for name, record in sorted(manifest.files.items())]
    return {
        "made": _flat(manifest.provenance),
        "verified": _flat(manifest.verification),
        "files": Table("Files of the bundle", ["File", "Size", "SHA-256"], files),
    }


def _flat(record: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Write a nested record as (dotted name, value) pairs; the entries of a list of records have numbers."""
    pairs: list[tuple[str, str]] = []
    for name, value in record.items():
        if isinstance(value, list) and value and all(isinstance(entry, Mapping) for entry in value):
            value = {str(index): entry for index, entry in enumerate(value)}
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
