"""The command ``deepsim bench``: every contender on one bundle, verified against the first, then timed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
from tqdm import tqdm

from deepsim.benchmarks import ROUNDS, Contender, compare, interleave, work
from deepsim.benchmarks.contenders import (
    INSTRUCTION_SETS,
    NAMES,
    OWN,
    open_contender,
    restrict,
    tolerances,
    unrestricted,
    unusable,
)
from deepsim.benchmarks.memory import measure_memory
from deepsim.benchmarks.timing import Inputs
from deepsim.runtime.backends.devices import parse_device
from deepsim.runtime.bundle import Bundle
from deepsim.runtime.cli.bulk import check_inputs_stay
from deepsim.runtime.cli.options import bundle_argument, check_absent, command, footer, overwrite_option
from deepsim.runtime.errors import DeviceError, NumericError, UsageError, missing_extra
from deepsim.runtime.files import reserved, write_atomic
from deepsim.runtime.machine import environment

# column of the table: key of the row, format
_COLUMNS = {
    "what": ("what", "{}"),
    "batch": ("batch", "{}"),
    "contender": ("backend", "{}"),
    "images/s": ("images_per_second", "{:.1f}"),
    "p50 ms": ("p50_ms", "{:.2f}"),
    "p95 ms": ("p95_ms", "{:.2f}"),
    "p99 ms": ("p99_ms", "{:.2f}"),
    "vs best peer": ("ratio", "{:.2f}x"),
    "FMA roof": ("multiply_add_share", "{:.0%}"),
    "memory roof": ("memory_share", "{:.0%}"),
}

_INTERLEAVED_COLUMNS = {
    "what": ("what", "{}"),
    "batch": ("batch", "{}"),
    "contender": ("backend", "{}"),
    "alone ms": ("alone_ms", "{:.2f}"),
    "between ms": ("between_ms", "{:.2f}"),
    "speed": ("ratio", "{:.2f}x"),
    "calls of": ("between", "{}"),
}


@click.command(
    epilog="\b\nExamples:\n  deepsim bench fc6.deepsim\n  deepsim bench fc6.deepsim --batches 1,16 --memory -o b.json"
)
@bundle_argument
@click.option(
    "--backend", "chosen", multiple=True, type=click.Choice(NAMES), help="Time this contender alone (repeatable)."
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, or a GPU such as 0 or cuda:0.")
@click.option("--batches", default="1,8,16,64", show_default=True, help="Batch sizes, with commas between.")
@click.option("--seconds", type=click.FloatRange(0.01, 3600), default=2.0, show_default=True, help="Time for each row.")
@click.option("--full", is_flag=True, help="Decode whole images, not the part that training scored.")
@click.option(
    *("--instruction-set", "instruction_set"),
    type=click.Choice(INSTRUCTION_SETS),
    default=INSTRUCTION_SETS[0],
    show_default=True,
    help="Best instructions that a contender may use; one that cannot be restricted is left out.",
)
@click.option("--interleaved", is_flag=True, help="Also time ours between calls of each other contender.")
@click.option("--memory", is_flag=True, help="Also measure peak memory and load time, each in a process of its own.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of the table.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="JSON file of the results and the machine.")
@click.option("--plot", type=click.Path(path_type=Path), help="SVG file of images/s over the batch size.")
@overwrite_option
def bench(
    bundle: Path,
    chosen: tuple[str, ...],
    device: str,
    batches: str,
    seconds: float,
    full: bool,
    instruction_set: str,
    interleaved: bool,
    memory: bool,
    as_json: bool,
    output: Path | None,
    plot: Path | None,
    overwrite: bool,
) -> None:
    """Measure encode, decode and one iteration of reencode, for our backends and the peers that are installed.

    A contender is timed only when its results agree with the first one's: a peer that does not agree is named and left
    out; where one of ours does not agree, the command ends. Times run from host memory to host memory. Images per
    second are the median of five alternating rounds.

    Roofs are measured in the same run. The share of the FMA roof counts direct convolution of whole images, so an
    algorithm with fewer multiplications can exceed 100 %. The share of the memory roof counts one reading of the fp32
    weights per call.

    With --interleaved each of ours is also timed right after calls of each other contender, whose threads may still
    spin on the CPUs. "speed" is relative to ours alone in the same rounds.
    """
    sizes = _sizes(batches)
    check_plot(plot, output)
    outputs = [path for path in (output, plot) if path is not None]
    check_inputs_stay(outputs, (), bundle)
    check_absent(outputs, overwrite)
    restrict(instruction_set)
    left_out = unrestricted(instruction_set)
    names = _usable(chosen, parse_device(device), left_out)
    with reserved(*outputs):
        result = _measure(Bundle.open(bundle), names, device, sizes, seconds, full, interleaved)
        if not chosen:
            result["left_out"] |= {name: f"{name}: {reason}" for name, reason in left_out.items()}
        if memory:
            result["memory"] = {
                name: measure_memory(bundle, name, max(sizes)) for name in tqdm(names, "memory", disable=None)
            }
        text = json.dumps(result, indent=2)
        try:
            click.echo(text if as_json else _report(result))  # minutes of measuring outlive a full disk
        finally:  # and a reader of stdout that left
            if output is not None:
                write_atomic(output, text + "\n")
            if plot is not None:
                from deepsim.benchmarks.charts.plot_file import plot_svg

                write_atomic(plot, plot_svg(result))
    if output is None:
        kept = "kept nowhere" if plot is None else f"kept in {plot} only"
        footer(f"{bundle}: {len(result['rows'])} rows, {kept}", command("deepsim", "bench", bundle, "-o", "bench.json"))
    else:
        following = command("deepsim", "info", bundle)
        if "reencode" in {row["what"] for row in result["rows"]}:
            following = command("deepsim", "report", bundle, "--bench", output, "--photos", "PHOTOS")
        footer(f"{output}: {len(result['rows'])} rows", following)


def check_plot(plot: Path | None, output: Path | None) -> None:
    """Raise UsageError, before any work, when a plot cannot be written under this name beside ``output``.

    Raises DeviceError without the package that draws it.
    """
    if plot is None:
        return
    if output is not None and plot.resolve() == output.resolve():
        raise UsageError(f"--plot {plot}: the file of -o, expected another.")
    if plot.suffix.lower() != ".svg":
        name = plot.with_suffix(".svg").name if plot.name else "bench.svg"
        raise UsageError(f"--plot {plot}: no SVG file, expected a name that ends in .svg. Name it {name}.")
    if find_spec("matplotlib") is None:
        raise missing_extra("matplotlib", "bench")


def _measure(
    bundle: Bundle, names: list[str], device: str, sizes: list[int], seconds: float, full: bool, interleaved: bool
) -> dict[str, Any]:
    with ExitStack() as stack:
        contenders = {name: open_contender(name, bundle, device, max(sizes)) for name in names}
        for contender in contenders.values():
            if hasattr(contender, "close"):
                stack.callback(contender.close)
        own, others = _apart(contenders) if interleaved else ({}, {})
        inputs = Inputs.of(bundle.manifest)
        total = len(inputs.whats) * len(sizes) * (ROUNDS * len(names) + len(own) * len(others))
        with tqdm(total=total, desc="bench", disable=None) as bar:

            def progress(label: str) -> None:
                bar.set_postfix_str(label)
                bar.update()

            left_out: dict[str, str] = {}

            def refuse(name: str, error: NumericError) -> None:
                if name in OWN:
                    raise error
                left_out[name] = str(error)

            before = work.measure_roofs()
            rows = compare(contenders, inputs, sizes, seconds, progress, tolerances(), full, refuse)
            after = work.measure_roofs()
            between = interleave(own, others, inputs, sizes, seconds, progress, tolerances(), full, refuse)
        where = {name: getattr(contender, "device", "cpu") for name, contender in contenders.items()}
    roofs = max(before, after) if before and after else None
    counted = work.work_of(bundle.manifest)
    work.rate(rows, OWN, counted, roofs)
    return {
        "bundle": bundle.path.name,
        "layer": bundle.manifest.layer,
        "whole_images": full,
        "instruction_set": work.instruction_set(),
        "devices": where,
        "roofs": roofs._asdict() if roofs else None,
        "work": {what: each._asdict() for what, each in counted.items()},
        "rows": rows,
        "interleaved": between,
        "left_out": left_out,
        "environment": environment(),
    }


def _apart(contenders: Mapping[str, Contender]) -> tuple[dict[str, Contender], dict[str, Contender]]:
    """Divide contenders into ours and others. Raises UsageError when one of the two is missing."""
    own = {name: contender for name, contender in contenders.items() if name in OWN}
    others = {name: contender for name, contender in contenders.items() if name not in OWN}
    if not own or not others:
        raise UsageError(
            f"--interleaved: only {', '.join(contenders)}, expected one of ours ({', '.join(OWN)}) and another."
        )
    return own, others


def _usable(chosen: tuple[str, ...], device: str, unwanted: Mapping[str, str]) -> list[str]:
    """Return the contenders to measure: the chosen ones, each of which must be usable, or all that are usable."""
    found = unusable(device) | dict(unwanted)
    for name in chosen:
        if found[name] is not None:
            raise DeviceError(f"backend {name} on device {device}: {found[name]}. Choose another, see deepsim doctor.")
    names = list(dict.fromkeys(chosen)) or [name for name, reason in found.items() if reason is None]
    if not names:
        raise DeviceError(f"bench: no backend is usable on device {device}. Run deepsim doctor for the reasons.")
    return names


def _sizes(text: str) -> list[int]:
    parts = text.split(",")
    if not all(part.strip().isascii() and part.strip().isdigit() and 1 <= int(part) <= 4096 for part in parts):
        raise UsageError(f"--batches {text}: expected sizes from 1 to 4096 with commas between, such as 1,8.")
    return sorted({int(part) for part in parts})


def _report(result: dict[str, Any]) -> str:
    lines = [_table(result["rows"], _COLUMNS)]
    if result["interleaved"]:
        lines += [
            "",
            "between calls of another, in one process",
            _table(result["interleaved"], _INTERLEAVED_COLUMNS),
            "",
        ]
    roofs = result["roofs"]
    if roofs:
        lines.append(f"roofs: {roofs['multiply_adds']:.0f}e9 multiply-adds/s, {roofs['bytes']:.0f}e9 bytes/s")
    lines += [f"left out: {reason}" for reason in result["left_out"].values()]
    for name, found in result.get("memory", {}).items():
        peak = f"{found['peak_bytes'] / 2**20:.0f} MiB at batch {found['batch']}"
        lines.append(f"{name}: first image after {found['load_seconds']:.2f} s, peak memory {peak}")
    return "\n".join(lines)


def _table(rows: list[dict[str, Any]], columns: Mapping[str, tuple[str, str]]) -> str:
    """Lay rows out as a table, with a blank line between what is compared."""
    cells = [tuple(columns), *(tuple(_cell(row[key], form) for key, form in columns.values()) for row in rows)]
    widths = [max(len(line[index]) for line in cells) for index in range(len(columns))]
    lines = []
    for index, line in enumerate(cells):
        if index > 0 and line[:2] != cells[index - 1][:2]:
            lines.append("")
        lines.append(
            "  ".join(_align(cell, width, at) for at, (cell, width) in enumerate(zip(line, widths, strict=True)))
        )
    return "\n".join(line.rstrip() for line in lines)


def _cell(value: Any, form: str) -> str:
    return "-" if value is None else form.format(value)


def _align(cell: str, width: int, column: int) -> str:
    return cell.ljust(width) if column in (0, 2) else cell.rjust(width)
