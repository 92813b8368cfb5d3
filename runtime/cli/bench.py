"""The command ``deepsim bench``: every available backend on one bundle, verified against each other, then timed."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
from tqdm import tqdm

from deepsim.runtime.backends import BACKENDS, reasons
from deepsim.runtime.backends.devices import parse_device
from deepsim.runtime.bench import ROUNDS, WHATS, compare, environment, verify
from deepsim.runtime.cli.options import bundle_argument, check_absent, footer, overwrite_option
from deepsim.runtime.errors import DeviceError, UsageError
from deepsim.runtime.files import write_atomic
from deepsim.runtime.inverter import Inverter

_COLUMNS = ("backend", "what", "batch", "images_per_second", "p50_ms", "p95_ms", "p99_ms", "repeats")


@click.command(
    epilog="\b\nExamples:\n  deepsim bench norm2.deepsim\n  deepsim bench norm2.deepsim --batches 1,16 -o bench.json"
)
@bundle_argument
@click.option("--backend", "chosen", multiple=True, type=click.Choice(BACKENDS), help="Only this one; may be repeated.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, or a GPU such as 0 or cuda:0.")
@click.option("--batches", default="1,8", show_default=True, help="Batch sizes, with commas between.")
@click.option("--seconds", type=click.FloatRange(0.01, 3600), default=2.0, show_default=True, help="Time for each row.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of the table.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="JSON file to write too, with versions and CPU.")
@overwrite_option
def bench(
    bundle: Path,
    chosen: tuple[str, ...],
    device: str,
    batches: str,
    seconds: float,
    as_json: bool,
    output: Path | None,
    overwrite: bool,
) -> None:
    """Measure encode, decode and reencode (four iterations) of every backend available here.

    Backends are compared with each other first and timed only when they agree. Times run from host memory to host
    memory; images per second are the median of five alternating rounds, a re-encoded image counting per iteration.
    """
    sizes = _sizes(batches)
    if output is not None:
        check_absent([output], overwrite)
    result = _measure(bundle, _usable(chosen, parse_device(device)), device, sizes, seconds)
    text = json.dumps(result, indent=2)
    if output is not None:
        write_atomic(output, text + "\n")
    click.echo(text if as_json else _table(result["rows"]))
    if output is None:
        footer(f"{bundle}: {len(result['rows'])} rows, kept nowhere", f"deepsim bench {bundle} -o bench.json")
    else:
        footer(f"{output}: {len(result['rows'])} rows", f"deepsim report {bundle} --bench {output} --photos PHOTOS")


def _measure(bundle: Path, names: list[str], device: str, sizes: list[int], seconds: float) -> dict[str, Any]:
    with ExitStack() as stack:
        inverters = {name: stack.enter_context(Inverter(bundle, name, device, max(sizes))) for name in names}
        agreement = verify(inverters)
        total = ROUNDS * len(WHATS) * len(sizes) * len(names)
        with tqdm(total=total, desc="bench", disable=None) as bar:

            def progress(label: str) -> None:
                bar.set_postfix_str(label)
                bar.update()

            rows = compare(inverters, sizes, seconds, progress)
        where = {name: inverter.device for name, inverter in inverters.items()}
        layer = next(iter(inverters.values())).layer
    return {
        "bundle": bundle.name,
        "layer": layer,
        "devices": where,
        "agreement": agreement,
        "rows": rows,
        "environment": environment(),
    }


def _usable(chosen: tuple[str, ...], device: str) -> list[str]:
    """Return the backends to measure: the chosen ones, each of which must be usable, or all that are usable."""
    found = reasons(device)
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
        raise UsageError(
            f"--batches {text}: expected sizes from 1 to 4096 with commas between, such as 1,8. Correct it."
        )
    return sorted({int(part) for part in parts})


def _table(rows: list[dict[str, Any]]) -> str:
    cells = [_COLUMNS, *(tuple(_cell(row[column]) for column in _COLUMNS) for row in rows)]
    widths = [max(len(line[index]) for line in cells) for index in range(len(_COLUMNS))]
    return "\n".join("  ".join(_align(cell, width) for cell, width in zip(line, widths, strict=True)) for line in cells)


def _cell(value: Any) -> str:
    return f"{value:.1f}" if isinstance(value, float) else str(value)


def _align(cell: str, width: int) -> str:
    return cell.rjust(width) if cell[:1].isdigit() else cell.ljust(width)
