"""The command ``deepsim-export`` = ``deepsim export``: weights in, a verified bundle out."""

from __future__ import annotations

import importlib.util
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from tqdm import tqdm

from deepsim.export.narrator import Narrator
from deepsim.runtime.cli.exits import Program
from deepsim.runtime.cli.options import command
from deepsim.runtime.errors import UsageError, missing_extra
from deepsim.runtime.networks import ENCODERS

if TYPE_CHECKING:
    from deepsim.export.sources import Source
    from deepsim.runtime.manifest import Manifest

_NEEDED = ("torch", "safetensors", "onnx", "onnxruntime")
_STAGES = {"onnx": 4, "fp32": 6, "fp16": 9}


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
@click.option(
    "--engine",
    type=click.Choice(["onnx", "fp32", "fp16"]),
    default="fp16",
    show_default=True,
    help="onnx: fp32 graphs only; fp32: also fp32 engines; fp16: also half-typed graphs and FP16 engines.",
)
@click.option(
    "--target",
    type=click.Choice(["auto", "tensorrt", "tensorrt-rtx"]),
    default="auto",
    show_default=True,
    help="Engine library. auto: TensorRT where it and a GPU are found, else TensorRT-RTX, which needs no GPU to build.",
)
@click.option(
    "--gpus",
    type=click.Choice(["ampere", "turing"]),
    default="ampere",
    show_default=True,
    help="TensorRT-RTX builds for Ampere and later (SM 80-121), or for Turing (T4, RTX 20: SM 75).",
)
@click.option("--max-batch", type=int, default=64, show_default=True, help="Largest batch of the engines.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Bundle folder to write. [LAYER.deepsim]")
@click.option("--overwrite", is_flag=True, help="Replace a bundle of that name.")
@click.option("--random", "is_random", is_flag=True, help="Seeded random weights instead of a run.")
@click.option("--layer", help="With --random: the layer to invert, such as fc6 or norm2.")
@click.option("--encoder", default=None, help=f"With --random: {', '.join(ENCODERS)}. [caffenet]")
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
    seed: int | None,
    without_encoder: bool,
    as_json: bool,
) -> None:
    """Export a training run as a bundle: ONNX graphs and engines, verified against PyTorch.

    SOURCE is a run folder or one of its checkpoint folders; by default the run under runs/ with the newest
    checkpoint. Nothing is published unless every graph agrees with PyTorch within the printed limits.
    """
    _require_packages()
    from deepsim.export.bundle import Options, export_bundle

    options = Options(engine, target, max_batch, without_encoder, gpus)  # type: ignore[arg-type]  # click has checked both
    began = time.monotonic()
    with _Bar(_STAGES[engine]) as bar:
        bar.stage("load")
        loaded = _load(source, is_random, layer, encoder, seed, output, bar)
        path = output or Path(f"{loaded.layer}.deepsim")
        manifest = export_bundle(loaded, path, options, overwrite, bar)
    if as_json:
        click.echo(json.dumps(_record(manifest, path, time.monotonic() - began), indent=2))
    else:
        _tell(manifest, path, time.monotonic() - began)


class _Bar(Narrator):
    """Shows the stages on stderr; a builder's own steps stand behind the stage's name."""

    def __init__(self, stages: int) -> None:
        self._bar = tqdm(total=stages, disable=None, bar_format="{l_bar}{bar:20}| {n}/{total} {elapsed}")
        self._name = ""

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def stage(self, name: str) -> None:
        """Show the stage that begins; the one before it is done."""
        self._bar.update(1 if self._name else 0)
        self._name = name
        self._bar.set_description(name)

    def step(self, phase: str, done: int, steps: int) -> None:
        """Show where the builder is."""
        self._bar.set_description(f"{self._name}: {phase} {done}/{steps}")

    def warn(self, message: str) -> None:
        """Print a line above the bar."""
        with self._bar.external_write_mode():
            click.echo(message, err=True)


def _require_packages() -> None:
    for module in _NEEDED:
        if importlib.util.find_spec(module) is None:
            raise missing_extra(module, "export")


def _load(
    path: Path | None,
    is_random: bool,
    layer: str | None,
    encoder: str | None,
    seed: int | None,
    output: Path | None,
    bar: _Bar,
) -> Source:
    from deepsim.export.sources import check_output, load_run, newest_run, random_source

    if is_random:
        if path is not None:
            raise UsageError(f"{path}: a SOURCE and --random, expected one of them.")
        if layer is None:
            raise UsageError("--random: no --layer, expected the layer to invert. Pass --layer fc6, for example.")
        return random_source(layer, encoder or "caffenet", seed or 0)
    given = {"--layer": layer, "--encoder": encoder, "--seed": seed}
    for option, value in given.items():
        if value is not None:
            raise UsageError(f"{option}: {value}, but a run has its own. Pass it with --random only.")
    if path is None:
        path = newest_run()
        bar.warn(f"Exporting the newest run, {path}")
    if output is not None:
        check_output(path, output)
    return load_run(path)


def _record(manifest: Manifest, path: Path, seconds: float) -> dict[str, Any]:
    return {
        "bundle": str(path),
        "layer": manifest.layer,
        "encoder": manifest.encoder_name,
        "files": {name: record.size for name, record in manifest.files.items()},
        "engines": list(manifest.engines),
        "verification": manifest.verification,
        "provenance": manifest.provenance,
        "seconds": round(seconds, 2),
    }


def _tell(manifest: Manifest, path: Path, seconds: float) -> None:
    """Print what was written and how well it agrees on stdout, the next command on stderr."""
    total = sum(record.size for record in manifest.files.values())
    of = f"{manifest.encoder_name or 'no encoder,'} {manifest.layer}"
    click.echo(f"{path}  {of}, {total / 1e6:.1f} MB, {seconds:.1f} s")
    for name, record in manifest.files.items():
        click.echo(f"  {name:44}{record.size / 1e6:9.2f} MB")
    for name, check in manifest.verification.items():
        if "figures" in check:
            figures = ", ".join(f"{key.replace('_', ' ')} {value:.3g}" for key, value in check["figures"].items())
            click.echo(f"  {name:24}{figures}")
    for engine in manifest.engines:
        click.echo(f"  {engine['path']}: {engine['built_for']}; {engine['inspected']}")
    click.echo(f"Next:  {following(manifest, path)}", err=True)


def following(manifest: Manifest, path: Path) -> str:
    """Return the command that does what the bundle at ``path`` can, as far as it goes."""
    if manifest.generator is None:
        return command("deepsim", "encode", path, "PHOTO", "-o", "features.npy")
    verb, given = ("reconstruct", "PHOTO") if manifest.encoder else ("decode", "FEATURES.npy")
    return command("deepsim", verb, path, given, "-o", "out")
