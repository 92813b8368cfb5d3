"""The charts of a benchmark as one SVG file: ``deepsim bench --plot``."""

from __future__ import annotations

import importlib.resources
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deepsim.benchmarks.charts.charts import text
from deepsim.benchmarks.charts.markup import Html, element, join
from deepsim.benchmarks.charts.rates import Panel, caption_of, panels
from deepsim.benchmarks.charts.wording import significant
from deepsim.benchmarks.throughput import Throughput
from deepsim.runtime.errors import UsageError

MARGIN, BETWEEN, HEAD, CAPTION, FOOT = 24, 28, 84, 14, 46  # pixels around and between the charts
NARROWEST = 700  # so that the head and the foot have room

# Of deepsim bench; another record tells its own.
METHOD = "Whole calls, results compared before they were timed, from host memory to host memory; median of five rounds."


def check_plot(plot: Path | None, output: Path | None) -> None:
    """Raise UsageError, before any work, when a plot cannot be written under this name beside ``output``."""
    if plot is None:
        return
    if output is not None and plot.resolve() == output.resolve():
        raise UsageError(f"--plot {plot}: the file of -o, expected another. Rename one of them.")
    if plot.suffix.lower() != ".svg":
        name = plot.with_suffix(".svg").name if plot.name else "bench.svg"
        raise UsageError(f"--plot {plot}: no SVG file, expected a name that ends in .svg. Name it {name}.")


def plot_svg(record: Mapping[str, Any]) -> str:
    """Draw the record of ``deepsim bench`` as an SVG file: light, and with its own style. ValueError without rows."""
    measured = Throughput.from_record(record)
    drawn = panels(measured)
    width = max(NARROWEST, 2 * MARGIN + sum(panel.width + BETWEEN for panel in drawn.values()) - BETWEEN)
    height = HEAD + CAPTION + max(panel.height for panel in drawn.values()) + FOOT
    marks: list[Html] = []
    at = MARGIN
    for what, panel in drawn.items():
        marks.append(_placed(panel, *caption_of(measured, what), at))
        at += panel.width + BETWEEN
    picture = element(
        "svg",
        element("title", f"{_heading(measured)}. {' '.join(f'{panel.description}.' for panel in drawn.values())}"),
        element("style", _style()),
        element("rect", class_="paper", width=width, height=height),
        text(_heading(measured), MARGIN, 30, "start", "heading"),
        text(_conditions(measured), MARGIN, 50, "start", "small"),
        *marks,
        text(measured.method or METHOD, MARGIN, height - 14, "start", "small"),
        xmlns="http://www.w3.org/2000/svg",
        width=width,
        height=height,
        viewBox=f"0 0 {width} {height}",
        role="img",
    )
    return f"{_drawable(picture)}\n"


def _placed(panel: Panel, title: str, number: str, x: int) -> Html:
    caption = join(text(title, 0, 0, "start", "title"), text(number, panel.width, 0, "end", "small"))
    charted = element("g", panel.marks, transform=f"translate(0 {CAPTION})")
    return element("g", caption, charted, transform=f"translate({x} {HEAD})")


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


def _style() -> Html:
    return Html(importlib.resources.files("deepsim.benchmarks.charts").joinpath("plot.css").read_text("utf-8"))


def _drawable(picture: str) -> str:
    """Replace what XML cannot hold: control characters and halves of surrogate pairs, as file names may have."""
    return "".join(sign if sign.isprintable() or sign in "\n\u00a0" else "\ufffd" for sign in picture)
