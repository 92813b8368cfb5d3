"""The command ``deepsim-export`` = ``deepsim export``: weights in, a verified bundle out."""

from __future__ import annotations

import importlib.util
import time
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

from deepsim.export.engine_options import engine_options
from deepsim.export.telling import Bar, tell
from deepsim.runtime.cli.exits import Program
from deepsim.runtime.errors import UsageError, missing_extra
from deepsim.runtime.generators import Family
from deepsim.runtime.networks import ENCODERS

if TYPE_CHECKING:
    from deepsim.export.sources import Source

_NEEDED = ("torch", "safetensors", "onnx", "onnxruntime")


@click.command(
    name="deepsim-export",
    cls=Program,
    epilog="""\b
Examples:
  deepsim-export --engine fp16
  deepsim-export runs/demo --engine fp16 -o norm2.deepsim
  deepsim-export --random --layer fc6 --engine onnx -o random-fc6.deepsim""",
)
@click.argument("source", required=False, type=click.Path(path_type=Path))
@engine_options("fp16")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Bundle folder to write. [LAYER.deepsim]")
@click.option("--overwrite", is_flag=True, help="Replace a bundle of that name.")
@click.option("--random", "is_random", is_flag=True, help="Seeded random weights instead of a run.")
@click.option("--layer", help="With --random: the layer to invert, such as fc6 or norm2.")
@click.option("--encoder", default=None, help=f"With --random: {', '.join(ENCODERS)}. [caffenet]")
@click.option(
    "--generator",
    type=click.Choice(get_args(Family)),
    default=None,
    help="With --random: the generator's tables, as of deepsim train. [deepsim]",
)
@click.option("--seed", type=click.IntRange(min=0), default=None, help="With --random: seed of the weights. [0]")
@click.option("--without-encoder", is_flag=True, help="Leave the encoder out: the bundle decodes features only.")
@click.option("--json", "as_json", is_flag=True, help="Print files, sizes and figures as JSON on stdout.")
def main(
    source: Path | None,
    engine: str,
    target: str,
    gpus: str,
    max_batch: int,
    output: Path | None,
    overwrite: bool,
    is_random: bool,
    layer: str | None,
    encoder: str | None,
    generator: Family | None,
    seed: int | None,
    without_encoder: bool,
    as_json: bool,
) -> None:
    """Export a training run as a bundle: ONNX graphs and engines, verified against PyTorch.

    SOURCE is a run folder or one of its checkpoint folders; by default the run under runs/ with the newest
    checkpoint. Nothing is published unless every graph agrees with PyTorch within the printed limits.
    """
    require_packages("export")
    from deepsim.export.bundle import Options, export_bundle

    options = Options(engine, target, max_batch, without_encoder, gpus)  # type: ignore[arg-type]  # click has checked both
    began = time.monotonic()
    with Bar(engine) as bar:
        bar.stage("load")
        loaded = _load(source, is_random, layer, encoder, generator, seed, output, bar)
        path = output or Path(f"{loaded.layer}.deepsim")
        manifest = export_bundle(loaded, path, options, overwrite, bar)
    tell(manifest, path, time.monotonic() - began, as_json)


def require_packages(extra: str) -> None:
    """Raise DeviceError naming the extra that brings it when a package is missing that every export needs."""
    for module in _NEEDED:
        if importlib.util.find_spec(module) is None:
            raise missing_extra(module, extra)


def _load(
    path: Path | None,
    is_random: bool,
    layer: str | None,
    encoder: str | None,
    generator: Family | None,
    seed: int | None,
    output: Path | None,
    bar: Bar,
) -> Source:
    from deepsim.export.sources import check_output, load_run, newest_run, random_source

    if is_random:
        if path is not None:
            raise UsageError(f"{path}: a SOURCE and --random, expected one of them.")
        if layer is None:
            raise UsageError("--random: no --layer, expected the layer to invert. Pass --layer fc6, for example.")
        return random_source(layer, encoder or "caffenet", seed or 0, generator or "deepsim")
    given = {"--layer": layer, "--encoder": encoder, "--generator": generator, "--seed": seed}
    for option, value in given.items():
        if value is not None:
            raise UsageError(f"{option}: {value}, but a run has its own. Pass it with --random only.")
    if path is None:
        path = newest_run()
        bar.warn(f"Exporting the newest run, {path}")
    if output is not None:
        check_output(path, output)
    return load_run(path)
