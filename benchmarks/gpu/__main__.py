"""The backend cuda on the GPU of this machine: checked, then timed against its peers, beside the measured roofs.

    python -m deepsim.benchmarks.gpu            # everything
    python -m deepsim.benchmarks.gpu --quick    # a first look
    python -m deepsim.benchmarks.gpu --check    # errors, gaps, repeats and compute-sanitizer alone

Checked before anything is timed: first calls in a process of their own; the error of every layer and of both networks
against float64, beside that of PyTorch's own fp16 (at most twice as large is asked); results that must agree; repeats
with equal bits. A generator that fails is not timed. Timed, all in memory of the GPU: encode, decode and a loop of
re-encoding against PyTorch in fp16 channels-last (eager; as a CUDA graph; compiled, as a CUDA graph) and ONNX Runtime.
On Hopper, where wgmma is the default, the kernels that use mma.sync follow, checked and timed likewise; on it and on
later GPUs the default ones too, each only when the one before is over ("serial"): what starting early gains. Then
single layers, against PyTorch's and, with --cutlass, CUTLASS's strided dgrad; at last compute-sanitizer's tools, where
it is found. Writes JSON, tables and plots to a checkout's benchmarks/results/, whenever there is more, and ends with
what is asked beside what was measured.

Exit codes: 0 done, 4 no GPU or no kernels for it, 5 a check failed. A speed that was missed changes none.
"""

from __future__ import annotations

import datetime
import math
import os
import tempfile
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from deepsim.benchmarks.gpu import cutlass, results, summary
from deepsim.benchmarks.gpu.device import Gpu
from deepsim.benchmarks.gpu.measurement import measure
from deepsim.benchmarks.gpu.plan import Plan
from deepsim.export.sources import random_source
from deepsim.runtime.cli.exits import run
from deepsim.runtime.errors import DeviceError, NumericError, UsageError
from deepsim.runtime.generators import released_layers
from deepsim.runtime.networks import CAFFENET
from deepsim.runtime.os_errors import disk_errors

OF_CHECKOUT = Path(__file__).resolve().parents[1] / "results"
RESULTS = OF_CHECKOUT if OF_CHECKOUT.is_dir() else Path("results")
LARGEST = 1024  # images that the backend cuda computes together
REPEATS = 250  # of a call that have to give the same bits
QUICK: dict[str, Any] = {"generators": "fc6", "batches": "1,256", "seconds": 0.1, "repeats": 25, "deadline": 420.0}


@click.command(help=(__doc__ or "").split("\n\n", 1)[0])
@click.option("--generators", default="fc6,pool5", show_default=True, help="Layers, with commas between.")
@click.option("--batches", default="1,8,64,256,1024", show_default=True, help="Batch sizes, with commas between.")
@click.option("--seconds", type=click.FloatRange(0.001), default=0.5, show_default=True, help="Per contender and row.")
@click.option("--quick", is_flag=True, help="Seven minutes: fc6 at batch 256 and 1, fewer checks.")
@click.option("--check", "check_only", is_flag=True, help="Time nothing.")
@click.option("--single-layers/--no-single-layers", default=True, help="Time every layer by itself too.")
@click.option("--compile/--no-compile", "compiled", default=True, help="torch.compile takes part.")
@click.option("--compile-layers", "compiled_layers", is_flag=True, help="For single layers too, which takes long.")
@click.option("--tiles", is_flag=True, help="Time every layer with every tile too.")
@click.option("--deadline", type=click.FloatRange(0), help="Seconds after which nothing more is begun.")
@click.option(
    "--cutlass",
    "headers",
    envvar="CUTLASS_PATH",
    type=click.Path(path_type=Path),
    help="A checkout of CUTLASS, whose strided dgrad then takes part; also CUTLASS_PATH.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=RESULTS,
    show_default=True,
    help="Folder of results.",
)
@click.pass_context
def main(
    context: click.Context,
    generators: str,
    batches: str,
    seconds: float,
    quick: bool,
    check_only: bool,
    single_layers: bool,
    compiled: bool,
    compiled_layers: bool,
    tiles: bool,
    deadline: float | None,
    headers: Path | None,
    output: Path,
) -> None:
    """Check, measure, write."""
    begun = time.monotonic()
    if quick:
        generators, batches, seconds, deadline = (
            QUICK[name] if context.get_parameter_source(name) is ParameterSource.DEFAULT else context.params[name]
            for name in ("generators", "batches", "seconds", "deadline")
        )
    layers, sizes = layers_of(generators), sizes_of(batches)
    gpu = Gpu()
    if not check_only:
        check_folder(output)
    left_out = [] if headers else ["cutlass: no headers named with --cutlass or CUTLASS_PATH"]
    left_out += [] if find_spec("matplotlib") else [results.NO_PLOTS]
    with tempfile.TemporaryDirectory() as folder:
        peer = None
        if headers is not None and single_layers and not check_only:
            cutlass.check_headers(headers, gpu.architecture)
            say("compiling CUTLASS's strided dgrad")
            try:
                peer = cutlass.compile_peer(headers, gpu.architecture, Path(folder))
            except DeviceError as error:
                left_out.append(str(error))
        # What throughput is asked of, then the largest.
        in_order = tuple(sorted(sizes, key=lambda size: (size != summary.BATCH, -size)))
        plan = Plan(
            in_order,
            seconds,
            QUICK["repeats"] if quick else REPEATS,
            timed=not check_only,
            single_layers=single_layers,
            compiled=() if not compiled else in_order[:1] if quick else in_order,
            compiled_layers=compiled and compiled_layers,
            cutlass=peer,
            brief=quick,
            tiles=tiles,
            deadline=math.inf if deadline is None else begun + deadline,
        )
        day, name, written = datetime.date.today(), "", []
        record: dict[str, Any] = {"generators": {}}

        def keep(grown: dict[str, Any]) -> None:
            nonlocal name, written
            record.update(grown, left_out=[*grown["left_out"], *left_out])
            if not check_only:
                name = name or results.free_name(output, results.stem(record, day))
                written = results.save(record, output, name, day)

        measure(gpu, {layer: random_source(layer) for layer in layers}, plan, say, keep)
    finish(record, written)


def check_folder(output: Path) -> None:
    """Make the folder of the results. Raises DeviceError, before any work, where nothing can be written there."""
    with disk_errors(output):
        output.mkdir(parents=True, exist_ok=True)
    if not os.access(output, os.W_OK):
        raise DeviceError(f"{output}: no permission to write, expected a folder for the results. Name one with -o.")


def finish(record: dict[str, Any], written: Sequence[Path]) -> None:
    """Print what is asked and the files that were written; raise NumericError where a check failed."""
    click.echo(results.text_of(summary.figures(record["generators"])))
    for path in written:
        click.echo(path)
    failed = [f"{name}, {reason}" for name, found in record["generators"].items() for reason in found["failures"]]
    if failed:
        more = f" (and {len(failed) - 1} more, above)" if len(failed) > 1 else ""
        raise NumericError(f"checks: {failed[0]}{more}. Repair the kernels.")


def say(line: str) -> None:
    """Tell on stderr what is done next."""
    click.echo(line, err=True)


def sizes_of(text: str) -> tuple[int, ...]:
    """Read batch sizes. Raises UsageError."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and 1 <= int(part) <= LARGEST for part in parts):
        raise UsageError(f"--batches {text}: expected sizes from 1 to {LARGEST}, such as 1,256.")
    return tuple(sorted({int(part) for part in parts}))


def layers_of(text: str) -> tuple[str, ...]:
    """Read names of layers that CaffeNet has a generator for. Raises UsageError."""
    valid = released_layers(CAFFENET)
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    unknown = [name for name in names if name not in valid]
    if unknown:
        raise UsageError(f"--generators {text}: no {unknown[0]!r}, expected of {', '.join(valid)}. Choose of these.")
    return names


if __name__ == "__main__":
    run(main, "python -m deepsim.benchmarks.gpu")
