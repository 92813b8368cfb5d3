"""What a run leaves behind: a record in JSON, tables in Markdown, and a plot for each generator."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Mapping, Sequence
from itertools import chain, count
from pathlib import Path
from typing import Any

from deepsim.benchmarks.gpu.plan import SERIAL
from deepsim.benchmarks.gpu.summary import Figure, figures
from deepsim.benchmarks.gpu.timing import LOOP, OWN
from deepsim.runtime.files import write_atomic

METHOD = (
    f"From memory of the GPU to memory of the GPU, results compared before they were timed; re-encode makes {LOOP} "
    "iterations; median of seven rounds."
)
NO_PLOTS = "plots: matplotlib is not installed (pip install 'deepsim[bench]')"
INCLUDED = (
    "Microseconds of kernels alone, as PyTorch's profiler has them from the GPU. Ours run as in a whole call, groups "
    "of images one after the other, but none starts before the one before is over; `input` and `output` convert pixels "
    "and features. PyTorch's forms run the one layer again and again as a CUDA graph; `cutlass` is back-to-back "
    "launches between two events. Shares are of the least time at the roofs (multiply-adds, or weights, input and "
    "output moved once)."
)
EXPLAINED = (
    "Images per second and microseconds are of calls queued one after the other; the latency is that of a call on an "
    f"idle GPU, by the host's clock. `{OWN}-{SERIAL}`: no kernel starts before the one before is over. "
    f"A re-encoded image counts once for each of {LOOP} iterations. The share is of the least time, layer by layer, at "
    "the roofs."
)
OF_TILES = (
    "Microseconds of kernels by default and with each tile named; a layer that a tile has no kernel for runs as the "
    "others of its instructions would have it. No kernel starts before the one before is over."
)
Record = Mapping[str, Any]


def stem(record: Record, day: datetime.date) -> str:
    """Return the name of the files without endings: date, GPU, and kernels that are not the default."""
    kernels = "" if record["kernels"] == record["default_kernels"] else record["kernels"]
    words = f"{day.isoformat()} gpu {record['gpu']} {kernels}".lower()
    return re.sub("[^a-z0-9]+", "-", words).strip("-")


def free_name(folder: Path, wanted: str) -> str:
    """Return a name that no record in the folder has: the wanted one, or that with a number behind."""
    names = chain([wanted], (f"{wanted}-{number}" for number in count(2)))
    return next(name for name in names if not (folder / f"{name}.json").exists())


def save(record: Record, folder: Path, name: str, day: datetime.date) -> list[Path]:
    """Write JSON, tables and plots of this name into ``folder``, over what is there; return their paths."""
    contents = {f"{name}.json": json.dumps(record, indent=2) + "\n"}
    plots: dict[str, str] = {}
    if NO_PLOTS not in record["left_out"]:
        from deepsim.benchmarks.charts.plot_file import plot_svg

        plots = {layer: f"{name}-{layer}.svg" for layer, found in record["generators"].items() if found["rows"]}
        contents |= {plot: plot_svg(drawn(record, layer)) for layer, plot in plots.items()}
    contents[f"{name}.md"] = markdown(record, day, plots)
    for file, text in contents.items():
        write_atomic(folder / file, text)
    return [folder / file for file in contents]


def drawn(record: Record, layer: str) -> dict[str, Any]:
    """Return what the plot of a generator is drawn from, in the form of a record of ``deepsim bench``."""
    shared = {name: record[name] for name in ("gpu", "roofs", "environment")}
    return {**shared, "layer": layer, "rows": record["generators"][layer]["rows"], "method": METHOD}


def markdown(record: Record, day: datetime.date, plots: Mapping[str, str]) -> str:
    """Lay a record out as a page."""
    roofs = record["roofs"]
    lines = [f"# {day.isoformat()}: the backend cuda on {record['gpu']}", "", *_conditions(record), ""]
    lines += table(("figure", "measured", "asked", ""), [figure.words() for figure in figures(record["generators"])])
    if roofs:
        lines += [f"Roofs, measured in the same run: {roofs['multiply_adds'] / 1e3:.0f}e12 fp16 multiply-adds/s", ""]
        lines[-2] += f" (products of large matrices), {roofs['bytes']:.0f}e9 bytes/s (copy)."
    for layer, found in record["generators"].items():
        lines += [f"## {layer}", ""]
        lines += [f"![Images per second over batch size]({plots[layer]})", ""] if layer in plots else []
        lines += _calls(found["rows"]) + _steps(found) + _tiles(found) + _errors(found["checks"])
        for kernels, checks in found["other_checks"].items():
            lines += [f"The same with kernels {kernels}.", "", *_errors(checks)]
        said = [
            *(f"* FAILED: {each}" for each in found["failures"]),
            *(f"* left out: {each}" for each in found["left_out"]),
        ]
        lines += [*said, ""] if said else []
    lines += [f"* left out: {reason}" for reason in record["left_out"]]
    return "\n".join(lines).rstrip() + "\n"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table and a blank one; nothing without rows."""
    if not rows:
        return []
    return [f"| {' | '.join(each)} |" for each in (head, ["---"] * len(head), *rows)] + [""]


def text_of(asked: Sequence[Figure]) -> str:
    """Lay figures out for a terminal."""
    cells = [("figure", "measured", "asked", ""), *(figure.words() for figure in asked)]
    widths = [max(len(row[at]) for row in cells) for at in range(3)]
    return "\n".join(
        f"{name.ljust(widths[0])}  {measured.rjust(widths[1])}  {wanted.ljust(widths[2])}  {verdict}".rstrip()
        for name, measured, wanted, verdict in cells
    )


def _conditions(record: Record) -> list[str]:
    told = record["environment"]
    versions = ", ".join(f"{name} {version}" for name, version in told["versions"].items() if version)
    machine = f"{told['cpu']}, CUDA driver {told['cuda_driver']}; Python {told['python']}, {versions}"
    kernels = f"{record['kernels']} ({record['kernels_described']})"
    return [f"{machine}; commit {record['commit']}; kernels: {kernels}. {record['clocks'] or ''}".rstrip()]


def _calls(rows: Sequence[Record]) -> list[str]:
    head = ("call", "batch", "contender", "images/s", "us", "latency, us", "of the roof", "over the best peer")
    cells = [
        (
            *(row["what"], str(row["batch"]), row["backend"], f"{row['images_per_second']:.0f}"),
            *(f"{row['microseconds']:.1f}", f"{row['latency_us']:.1f}", f"{row['roof_share']:.0%}"),
            f"{row['ratio']:.2f}" if row["ratio"] and row["backend"].startswith(OWN) else "",
        )
        for row in rows
    ]
    return [EXPLAINED, "", *table(head, cells)] if rows else []


def _steps(found: Record) -> list[str]:
    """Return one line for each layer and batch: ours, its share of the roof, and every peer with its ratio to ours."""
    rows = found["single_layers"]
    peers = list(dict.fromkeys(row["backend"] for row in rows if row["backend"] != OWN))
    cells = []
    for own in (row for row in rows if row["backend"] == OWN):
        key = _key(own)
        times = {row["backend"]: row["microseconds"] for row in rows if _key(row) == key}
        share = "" if own["roof_share"] is None else f"{own['roof_share']:.0%}"
        against = [f"{times[peer]:.1f} ({times[peer] / times[OWN]:.2f}x)" if peer in times else "" for peer in peers]
        cells.append((own["network"], own["step"], str(own["batch"]), f"{own['microseconds']:.1f}", share, *against))
    lines = table(("network", "layer", "batch", "ours, us", "of the roof", *peers), cells)
    return [INCLUDED, "", *lines] if cells else []


def _tiles(found: Record) -> list[str]:
    """Return one line for each layer and batch: its microseconds with each tile."""
    rows = found["tiles"]
    names = list(dict.fromkeys(row["backend"] for row in rows))
    keys = list(dict.fromkeys(_key(row) for row in rows))
    times = {(_key(row), row["backend"]): f"{row['microseconds']:.1f}" for row in rows}
    cells = [(*map(str, key), *(times.get((key, name), "") for name in names)) for key in keys]
    return [OF_TILES, "", *table(("network", "layer", "batch", *names), cells)] if rows else []


def _errors(checks: Record) -> list[str]:
    if not checks:  # whose first calls went wrong
        return []
    rows = [
        (name, *(f"{found[what]:.2g}" for what in ("features", "image", "image_levels")))
        for name, found in checks["network"].items()
    ]
    lines = ["Errors against float64: relative, and mean grey levels of the final images.", ""]
    lines += table(("arithmetic", "features", "image", "grey levels"), rows)
    steps: dict[tuple[str, str], list[Record]] = {}
    for row in checks.get("steps", ()):
        steps.setdefault((row["network"], row["step"]), []).append(row)
    cells = [
        (*key, f"{max(row['error'] for row in each):.2g}", f"{max(row['torch_error'] for row in each):.2g}")
        for key, each in steps.items()
    ]
    return lines + table(("network", "layer", "largest error of any batch", "PyTorch's fp16"), cells)


def _key(row: Record) -> tuple[str, str, int]:
    return row["network"], row["step"], row["batch"]
