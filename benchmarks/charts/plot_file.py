"""The charts of a benchmark as one SVG file: ``deepsim bench --plot``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deepsim.benchmarks.charts.rates import caption_of, panels
from deepsim.benchmarks.charts.svg import Drawing, plain
from deepsim.benchmarks.charts.wording import significant
from deepsim.benchmarks.throughput import Throughput

MARGIN, BETWEEN, HEAD, CAPTION, FOOT = 24, 28, 84, 14, 46  # pixels around and between the charts
NARROWEST = 700  # so that the head and the foot have room

# Of deepsim bench; another record tells its own.
METHOD = "Whole calls, results compared before they were timed, from host memory to host memory; median of five rounds."


@plain()
def plot_svg(record: Mapping[str, Any]) -> str:
    """Draw the record of ``deepsim bench`` as an SVG file: light, and with its own style. ValueError without rows."""
    measured = Throughput.from_record(record)
    drawn = panels(measured)
    width = max(NARROWEST, 2 * MARGIN + sum(panel.width + BETWEEN for panel in drawn.values()) - BETWEEN)
    height = HEAD + CAPTION + max(panel.height for panel in drawn.values()) + FOOT
    drawing = Drawing(width, height)
    drawing.text(_heading(measured), MARGIN, 30, colour="ink", size=17, bold=True)
    drawing.text(_conditions(measured), MARGIN, 50, size=12)
    at = MARGIN
    for what, panel in drawn.items():
        title, number = caption_of(measured, what)
        drawing.text(title, at, HEAD, colour="ink", size=14, bold=True)
        drawing.text(number, at + panel.width, HEAD, "right", size=12)
        panel.draw(drawing, at, HEAD + CAPTION)
        at += panel.width + BETWEEN
    drawing.text(measured.method or METHOD, MARGIN, height - 14, size=12)
    return drawing.file(f"{_heading(measured)}. {' '.join(f'{panel.description}.' for panel in drawn.values())}")


def _heading(measured: Throughput) -> str:
    what = measured.bundle or (f"layer {measured.layer}" if measured.layer else "deepsim")
    return f"{what if len(what) <= 60 else f'{what[:59]}…'}: images per second"


def _conditions(measured: Throughput) -> str:
    """Name the machine, what it was kept to, and what was decoded, as far as the record tells."""
    told = measured.environment
    cores = told.get("cpus")
    parts = [
        f"layer {measured.layer}" if measured.layer else None,
        measured.gpu or told.get("cpu"),
        f"{cores} {'core' if cores == 1 else 'cores'}" if cores and not measured.gpu else None,
        measured.instruction_set,
        "whole images" if measured.whole_images else None,
        f"FMA roof {significant(measured.roofs['multiply_adds'])}e9/s" if "multiply_adds" in measured.roofs else None,
        f"memory roof {significant(measured.roofs['bytes'])} GB/s" if "bytes" in measured.roofs else None,
    ]
    return " \u00b7 ".join(str(part) for part in parts if part)
