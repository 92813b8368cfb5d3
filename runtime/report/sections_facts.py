"""What the figures rest on: throughput and its machine, the bundle's provenance, verification and files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deepsim.runtime.bench import ITERATIONS
from deepsim.runtime.report.charts import bar
from deepsim.runtime.report.content import Content, Throughput
from deepsim.runtime.report.layout import code, details, facts, note, paragraph, section, table
from deepsim.runtime.report.machine import describe
from deepsim.runtime.report.markup import Child, Html, element, join
from deepsim.runtime.report.pictures import QUALITIES
from deepsim.runtime.report.wording import count, signed, significant, size

WHAT = {"decode": "Decode", "encode": "Encode", "reencode": "Re-encode"}


def throughput(content: Content) -> Html:
    """Tabulate images per second and latency percentiles, and describe the machine."""
    if content.throughput is None or not content.throughput.rows:
        body: Html = note("Throughput was not measured: leave out --seconds 0, or pass a file with --bench.")
    else:
        machine = describe(content.throughput.environment, content.throughput.devices)
        body = join(paragraph(_summary(content.throughput)), _rates(content), facts(machine, "facts columns"))
    return section("throughput", "Throughput", body)


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


def _summary(measured: Throughput) -> str:
    best = measured.best()
    start = (
        f"{significant(best['images_per_second'])} images per second decoded in batches of {best['batch']}. "
        if best
        else ""
    )
    return (
        f"{start}Whole calls are timed, from host memory to host memory, after a warm-up; the rate is the median of "
        f"five rounds. A call to re-encode makes {ITERATIONS} iterations, and its images count once for each."
    )


def _rates(content: Content) -> Html:
    rows = content.throughput.rows if content.throughput else ()
    top = max(float(row["images_per_second"]) for row in rows) or 1.0
    several = len({row.get("backend") for row in rows}) > 1
    body: list[list[Child]] = [
        [
            _call(row, several),
            bar(float(row["images_per_second"]) / top, "own"),
            significant(float(row["images_per_second"])),
            *(_milliseconds(row.get(name)) for name in ("p50_ms", "p95_ms", "p99_ms")),
            f"{row['repeats']:,}" if isinstance(row.get("repeats"), int) else "\u2013",
        ]
        for row in rows
    ]
    head = ["Call", "", "Images/s", "p50 ms", "p95 ms", "p99 ms", "Repeats"]
    return table("Images per second, and latency of one call in milliseconds", head, body)


def _call(row: Mapping[str, Any], several: bool) -> str:
    """Name what a row times, with its backend where there are several."""
    backend = f"{row.get('backend')}: " if several else ""
    return f"{backend}{WHAT.get(str(row['what']), str(row['what']))}, batch {row['batch']}"


def _milliseconds(value: object) -> str:
    return significant(float(value)) if isinstance(value, (int, float)) else "\u2013"


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
