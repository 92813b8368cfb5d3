"""The command ``deepsim optimize features``."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deepsim.runtime.cli.options import GivenPath, check_absent, check_apart, command, examples, footer, output_option
from deepsim.runtime.errors import UsageError, missing_extra
from deepsim.runtime.features.trees import Selection
from deepsim.runtime.file_names import png_paths
from deepsim.runtime.files import sha256
from deepsim.runtime.images import find_images
from deepsim.train.cli import settings_of
from deepsim.train.optimize.presets import ON_PIXELS, PRESETS, preset
from deepsim.train.optimize.settings import Settings

if TYPE_CHECKING:
    from deepsim.train.optimize.api import Networks
    from deepsim.train.optimize.job import Job
    from deepsim.train.optimize.run import Summary
    from deepsim.train.optimize.targets import Targets


@dataclass(frozen=True)
class Request:
    """What was asked for besides the settings: one field per option of that name."""

    generator: str
    targets: Path | None
    output: Path
    encoder: str
    encoder_weights: Path | None
    encoder_pixels: str | None
    layers: str | None
    names: str
    subject: str | None
    roi: str | None
    fold: str | None
    axes: str | None
    photos: tuple[Path, ...]
    units: str | None
    masks: Path | None
    channels: tuple[str, ...]
    layer_factor: tuple[str, ...]
    preset: str
    starts: int
    batch: int
    seed: int
    device: str
    threads: int
    full: bool
    snapshot_every: int
    log_every: int
    save_seconds: float
    resume: bool
    overwrite: bool
    quiet: bool
    as_json: bool


@click.command(
    epilog=examples(
        "deepsim optimize features fc6.deepsim decoded.mat --encoder vgg19.deepsim --names bdpy -o images",
        "deepsim optimize features fc7.deepsim tree/ --roi VC --encoder vgg19.deepsim --names bdpy -o images",
        "deepsim optimize features fc6.deepsim --photos photos/ --layers conv1,fc6 --encoder net.deepsim -o images",
        "deepsim optimize features pixels --photos cat.jpg --layers conv3 --preset mv2016 --encoder net.deepsim -o x",
    )
)
@click.argument("generator", type=str)
@click.argument("targets", required=False, type=GivenPath(path_type=Path))
@output_option("Folder for the pictures, named after the targets, codes.npy, losses.json and the log.")
@click.option(
    "--encoder",
    required=True,
    help="A bundle folder, a table by name with --encoder-weights, or a module's "
    "reference such as torchvision:vgg19 (its submodules are the layers).",
)
@click.option("--encoder-weights", type=GivenPath(path_type=Path), help="Weights file of a table or a module.")
@click.option(
    "--encoder-pixels",
    type=click.Choice(["caffe", "imagenet"]),
    help="What a table by name takes: BGR less "
    "104, 117, 123 (bdpy's VGG-19), or RGB normalised as torchvision's. Default: the table's own.",
)
@click.option(
    "--layers",
    help="Layers with commas between, as the targets name them; NAME:linear is before the ReLU. "
    "Default: all that the targets have.",
)
@click.option(
    "--names",
    type=click.Choice(["deepsim", "bdpy"]),
    default="deepsim",
    show_default=True,
    help="Whose names of layers: deepsim's conv1 and fc6 are after the ReLU; bdpy's are before, relu6 is after.",
)
@click.option("--subject", help="Subject, in a tree of decoded features.")
@click.option("--roi", help="Region of interest, in a tree of decoded features.")
@click.option("--fold", help="Fold, in a tree of decoded features.")
@click.option("--axes", help="Order of the arrays' axes, as of deepsim decode.")
@click.option(
    "--photos",
    multiple=True,
    type=GivenPath(path_type=Path),
    help="Photographs or folders of them, whose features are the targets (repeatable).",
)
@click.option("--units", help="Units of one layer to maximise, with commas between: loss inner or class.")
@click.option(
    "--masks", type=GivenPath(path_type=Path), help="File with an array of 0 and 1 for each layer: units that count."
)
@click.option("--channels", multiple=True, help="LAYER=0,5,7: channels that count (repeatable).")
@click.option("--layer-factor", multiple=True, help="LAYER=2: factor on a layer's weight (repeatable).")
@click.option(
    "--preset", type=click.Choice(list(PRESETS)), default="icnn-gd", show_default=True, help="Published rule."
)
@click.option(
    "--starts",
    type=click.IntRange(1, 1 << 16),
    default=1,
    show_default=True,
    help="Starts of each target; the best is kept.",
)
@click.option(
    "--batch",
    type=click.IntRange(0, 1 << 16),
    default=0,
    help="Rows (targets times starts) at once; 0: as many as memory allows, at most 32.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of starts and noise.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option(
    "--threads", type=click.IntRange(0, 1024), default=0, help="CPU threads; 0: PyTorch's choice, or a CPU quota."
)
@click.option("--full", is_flag=True, help="Write the generator's whole picture, not the part that the encoder saw.")
@click.option(
    "--snapshot-every",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Iterations between pictures on the way; 0: none.",
)
@click.option(
    "--log-every",
    type=click.IntRange(1),
    default=10,
    show_default=True,
    help="Iterations between lines of losses.jsonl.",
)
@click.option(
    "--save-seconds", type=click.FloatRange(0), default=60.0, show_default=True, help="Seconds between saved states."
)
@click.option("--resume", is_flag=True, help="Go on where an earlier run stopped, bit by bit the same.")
@click.option("--overwrite", is_flag=True, help="Replace output files that exist already.")
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON on stdout.")
@settings_of(Settings)
def features(**options: Any) -> None:
    """Find codes whose pictures have the wanted features: GENERATOR is a bundle, or "pixels".

    TARGETS is a file or a tree of features, one array per layer. All targets share the networks' passes. Ctrl-C saves
    the state and stops.
    """
    for module in ("torch", "safetensors"):
        if importlib.util.find_spec(module) is None:
            raise missing_extra(module, "optimize")
    given = {entry.name: options.pop(entry.name) for entry in fields(Settings)}
    settings = preset(options["preset"], {name: value for name, value in given.items() if value is not None})
    _run(settings, Request(**options))


def _run(settings: Settings, asked: Request) -> None:
    from deepsim.train.devices import use_threads
    from deepsim.train.optimize.recorder import Rhythm, Stopped
    from deepsim.train.optimize.run import Output, run

    _check(asked)
    use_threads(asked.threads)
    job, record = _job(settings, asked)
    output = Output(asked.output, png_paths(asked.output, job.targets.names), asked.full)
    if not asked.resume:
        check_absent(output.files, asked.overwrite, other="pass --resume to go on")
    check_apart(
        output.files, [path for path in (asked.targets, asked.masks, asked.encoder_weights) if path is not None]
    )
    if not asked.quiet:
        _narrate(job, asked)
    rhythm = Rhythm(asked.save_seconds, asked.log_every, asked.snapshot_every)
    try:
        summary = run(job, output, record, asked.resume, asked.overwrite, rhythm, asked.quiet)
    except Stopped as stopped:
        click.echo(f"{asked.output}: stopped, its state is saved. Pass --resume to go on.", err=True)
        sys.exit(128 + stopped.signal)
    _tell(summary, asked)


def _check(asked: Request) -> None:
    """Refuse what does not go together. Raises UsageError."""
    sources = {"TARGETS": asked.targets, "--photos": asked.photos or None, "--units": asked.units}
    given = [name for name, value in sources.items() if value is not None]
    if len(given) != 1:
        raise UsageError(f"targets: {' and '.join(given) or 'none'}, expected one of {', '.join(sources)}.")
    if asked.targets is None and asked.layers is None:
        raise UsageError(f"{given[0]}: no layers, expected them with --layers.")
    if asked.preset in ON_PIXELS and asked.generator != "pixels":
        raise UsageError(f"preset {asked.preset}: optimises pixels, expected pixels in place of {asked.generator}.")


def _job(settings: Settings, asked: Request) -> tuple[Job, dict[str, Any]]:
    """Open networks and targets; return the job and the record of what it is made of."""
    from deepsim.train.optimize.api import Networks, make_job
    from deepsim.train.optimize.targets import layers_in, tap_of

    names = asked.layers.split(",") if asked.layers else layers_in(asked.targets or Path())
    naming: Any = asked.names
    layers = {name: tap_of(name, naming) for name in names if name}
    taps = tuple(layers.values())
    if not taps:
        raise UsageError(f"{asked.targets}: no layers in it, expected an array or a folder of each.")
    networks = Networks.open(
        *(asked.generator, asked.encoder, taps, asked.encoder_weights, asked.device, asked.encoder_pixels, asked.seed)
    )
    targets = _targets(asked, layers, networks)
    factors = {tap_of(name, naming): _number(value, name) for name, value in map(_pair, asked.layer_factor)}
    masks = _masks(asked, networks, taps, naming)
    job = make_job(networks, targets, settings, masks, factors, asked.starts, asked.batch, asked.seed)
    return job, {
        "preset": asked.preset,
        "settings": job.evaluator.settings.to_json(),
        "generator": networks.pictures.identity,
        "encoder": f"{networks.encoder.name} {networks.encoder.identity}",
        "layers": list(taps),
        "layer_factors": factors,
        "masks": sha256(b"".join(repr(tap).encode() + values.tobytes() for tap, values in masks.items())),
        "bounds": sha256(repr([None if b is None else b.tolist() for b in job.bounds]).encode()),
        "targets": targets.identity,
        "names": sha256(repr(targets.names).encode()),
        "starts": asked.starts,
        "batch": job.batch,
        "seed": asked.seed,
    }


def _targets(asked: Request, layers: dict[str, str], networks: Networks) -> Targets:
    from deepsim.train.optimize import targets

    taps = tuple(layers.values())
    if asked.photos:
        return targets.from_photographs(find_images(asked.photos), taps, networks.encoder, networks.place)
    if asked.units is not None:
        if len(taps) != 1:
            raise UsageError(f"--units: {len(taps)} layers, expected one.")
        units = [int(_number(text, "--units")) for text in asked.units.split(",")]
        return targets.from_units(units, taps[0], networks.encoder)
    assert asked.targets is not None, "_check has seen to it"
    where = Selection(subject=asked.subject, roi=asked.roi, fold=asked.fold)
    return targets.from_files(asked.targets, layers, networks.encoder, where, asked.axes)


def _masks(asked: Request, networks: Networks, taps: Sequence[str], naming: Any) -> dict[str, Any]:
    """Read the masks of units and channels, by tap; both for one layer count together."""
    import numpy as np

    from deepsim.runtime.features import read_features
    from deepsim.train.optimize.targets import layers_in, tap_of

    found: dict[str, Any] = {}
    for name in layers_in(asked.masks) if asked.masks else ():
        tap = tap_of(name, naming)
        if tap in taps:
            found[tap] = np.asarray(read_features(asked.masks or "", name).values, np.float32).reshape(
                networks.encoder.shape_of(tap)
            )
    for name, text in map(_pair, asked.channels):
        tap = tap_of(name, naming)
        shape = networks.encoder.shape_of(tap)
        chosen = [int(_number(part, name)) for part in text.split(",")]
        if min(chosen) < 0 or max(chosen) >= shape[0]:
            raise UsageError(f"--channels {name}={text}: {tap} has {shape[0]} channels, expected 0 to {shape[0] - 1}.")
        mask = np.zeros(shape, np.float32)
        mask[chosen] = 1
        found[tap] = found.get(tap, 1) * mask
    return found


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not value:
        raise UsageError(f"{text}: expected LAYER=VALUE.")
    return name, value


def _number(text: str, what: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise UsageError(f"{what}: {text!r}, expected a number.") from error


def _narrate(job: Job, asked: Request) -> None:
    evaluator = job.evaluator
    settings = evaluator.settings
    what = "pixels" if evaluator.pictures.layer is None else f"codes of {evaluator.pictures.layer}"
    starts = f", {job.starts} starts of each" if job.starts > 1 else ""
    click.echo(
        f"{len(job.targets.names)} targets{starts}: {what} towards {len(evaluator.taps)} layers of "
        f"{evaluator.encoder.name}, rule {asked.preset}, {settings.iterations} iterations, on {job.place.device}",
        err=True,
    )


def _tell(summary: Summary, asked: Request) -> None:
    import numpy as np

    finite = summary.losses[np.isfinite(summary.losses)]
    if asked.as_json:
        losses = [float(loss) if np.isfinite(loss) else None for loss in summary.losses]
        outcome = {"output": str(asked.output), "targets": list(summary.names), "losses": losses}
        click.echo(json.dumps({**outcome, "ended": [int(when) or None for when in summary.ended]}))
    early = int((summary.ended > 0).sum())
    words = f"{len(finite)} pictures, mean loss {finite.mean():.4g}" + (
        f", {early} ended early (see above)" if early else ""
    )
    following = command("deepsim", "encode", asked.encoder, asked.output, "-o", "again.npy")
    if asked.generator != "pixels":
        following = command("deepsim", "decode", asked.generator, asked.output / "codes.npy", "-o", "decoded", "--full")
    footer(f"{asked.output}: {words}, codes.npy, losses.json", following)
