"""The command ``deepsim train`` = ``python train/run.py``."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import click

from deepsim.runtime.errors import DeviceError, UsageError, missing_extra
from deepsim.train.config import PRESETS, TrainConfig, begun_run, check_resumable, field_names, read_config

_HELP = {
    "layer": "Layer to invert: norm1, norm2, conv3, conv4, pool5, fc6, fc7, fc8 (alexnet: pool1, pool2, conv3 ...).",
    "encoder": "Network whose features are inverted: caffenet or alexnet (torchvision's).",
    "encoder_weights": "Local weights file of the encoder (.safetensors, .pt, .pth). Default: random, from the seed.",
    "comparator": "Layer at which the feature loss compares images.",
    "comparator_weights": "Weights file of a comparator that is not the encoder.",
    "comparator_seed": "Seed of a random comparator that is not the encoder; -1: the encoder itself.",
    "width": "Width of the generator: 1 is the paper's; 0.5, 0.25 ... are narrower.",
    "conditional": "Let the discriminator see the inverted feature (as the release does).",
    "lambda_feat": "Weight of the feature loss (Eq. 2).",
    "lambda_adv": "Weight of the adversarial loss (Eq. 4); 0 trains without a discriminator.",
    "lambda_img": "Weight of the image loss (Eq. 5).",
    "normalisation": "What losses sum to: the paper's sums or the release's sum/(2N) and means.",
    "stop_discriminator": "Pause D below this loss ratio.",
    "resume_discriminator": "Resume D above this loss ratio.",
    "stop_generator": "Pause G above this loss ratio.",
    "batch": "Photographs per step, over all processes.",
    "steps": "Steps to train.",
    "learning_rate": "Adam's learning rate.",
    "beta1": "Adam's beta1.",
    "beta2": "Adam's beta2.",
    "schedule": "Course of the learning rate.",
    "milestones": "Updates at which 'halve' halves, separated by commas.",
    "weight_decay": "L2 term in the gradient of D and of the Rconv weights.",
    "frozen_biases": "Keep the up-convolutional biases at 0 (release).",
    "mirror": "Flip half of the training crops.",
    "zoom": "Share of training crops taken at a random scale (0: the paper's rule).",
    "precision": "Arithmetic of the networks (autocast).",
    "channels_last": "Keep activations in channels-last memory order.",
    "compile": "Compile the networks with torch.compile.",
    "deterministic": "Use deterministic algorithms only, for bit-identical repeats.",
    "seed": "Seed of weights, data order and dropout.",
    "log_every": "Steps between log lines.",
    "image_every": "Steps between image grids.",
    "checkpoint_every": "Steps between checkpoints.",
    "validate_every": "Steps between validations.",
}


def _settings(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add one option per field of TrainConfig; what is not given keeps the preset's value."""
    hints = get_type_hints(TrainConfig)
    for name in reversed(field_names()):
        flag, hint = name.replace("_", "-"), hints[name]
        declaration, kind = f"--{flag}", str if get_origin(hint) is tuple else hint
        if hint is bool:
            declaration, kind = f"--{flag}/--no-{flag}", None
        elif get_origin(hint) is Literal:
            kind = click.Choice(get_args(hint))
        command = click.option(declaration, name, type=kind, default=None, help=_HELP[name])(command)
    return command


@click.command(
    epilog="""\b
Examples:
  deepsim train --preset demo --data photos/ -o runs/demo
  deepsim train --preset paper --layer pool5 --data imagenet/train --encoder-weights caffenet.safetensors
  deepsim train -o runs/demo --resume auto --steps 2000
  torchrun --nproc-per-node 8 train/run.py --preset paper --data imagenet/train --precision bf16"""
)
@click.option(
    "--preset", type=click.Choice(list(PRESETS)), default="paper", show_default=True, help="Settings to begin with."
)
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="YAML settings over the preset.")
@click.option("--data", multiple=True, help="Folder of photographs (repeatable). Default: procedural dead leaves.")
@click.option(
    "--dead-leaves",
    type=click.IntRange(0),
    default=0,
    help="With --data: mix in so many procedural images, half of all.",
)
@click.option("--validation", multiple=True, help="Folder of photographs for pictures and errors on the way.")
@click.option(
    "-o", "--output", "run_folder", type=click.Path(path_type=Path), help="Folder of the run [runs/PRESET-LAYER]."
)
@click.option("--resume", default=None, help="'auto' goes on from the newest checkpoint, or name a checkpoint folder.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--threads", type=int, default=0, help="CPU threads; 0 leaves PyTorch's choice.")
@click.option("--workers", type=int, default=0, show_default=True, help="Processes that read photographs.")
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON on stdout.")
@_settings
def train(preset: str, config_file: Path | None, run_folder: Path | None, resume: str | None, **options: Any) -> None:
    """Train a generator that turns a layer's features back into images.

    Writes checkpoints, log.jsonl and image grids into the run's folder. Ctrl-C finishes the step, saves and stops.
    """
    for module in ("torch", "safetensors", "yaml"):
        if importlib.util.find_spec(module) is None:
            raise missing_extra(module, "train")
    given = {name: value for name in field_names() if (value := options.pop(name)) is not None}
    config, folder = _configuration(preset, config_file, run_folder, resume, given)
    _run(config, _Request(folder, resume or "never", **options))


@dataclass(frozen=True)
class _Request:
    """What was asked for besides the settings: one field per option of that name."""

    folder: Path
    resume: str
    data: tuple[str, ...]
    dead_leaves: int
    validation: tuple[str, ...]
    device: str
    threads: int
    workers: int
    quiet: bool
    as_json: bool


def _configuration(
    preset: str, config_file: Path | None, run_folder: Path | None, resume: str | None, given: dict[str, Any]
) -> tuple[TrainConfig, Path]:
    """Combine preset (or the resumed run's own settings), file and options, each over the one before.

    Returns the settings and the run's folder.
    """
    values = {**(read_config(config_file) if config_file else {}), **given}
    if isinstance(values.get("milestones"), str):
        values["milestones"] = [part for part in values["milestones"].split(",") if part]
    config = PRESETS[preset].updated(values)
    folder = run_folder or Path("runs") / f"{preset}-{config.layer}"
    saved = begun_run(resume, folder) / "config.json" if resume else None
    if saved is not None and saved.exists():
        begun = TrainConfig().updated(read_config(saved))
        config = begun.updated(values)
        check_resumable(begun, config)
    return config, folder


def _run(config: TrainConfig, asked: _Request) -> None:
    import torch

    from deepsim.train import distributed
    from deepsim.train.data import FolderSource, training_source
    from deepsim.train.loop import Run, train

    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if asked.threads:
        torch.set_num_threads(asked.threads)
    device = _device(asked.device, torch.cuda.is_available())
    world = distributed.start(device.split(":")[0])
    if config.batch % world.size:
        raise UsageError(f"batch: {config.batch}, expected a multiple of the {world.size} processes. Choose one.")
    if device == "cuda":
        device = f"cuda:{world.local_rank}"
        torch.cuda.set_device(world.local_rank)
    source = training_source(asked.data, asked.dead_leaves, config.seed)
    validation = FolderSource(asked.validation) if asked.validation else source
    quiet = asked.quiet or not world.is_main
    if not quiet:
        _narrate(config, asked.folder, source.description, device)
    place = torch.device(device)
    try:
        outcome = train(config, Run(asked.folder, source, validation, place, world, asked.resume, asked.workers, quiet))
    finally:
        distributed.stop()
    if world.is_main:
        _tell(outcome.step, outcome.checkpoint, outcome.signal, asked)
    if outcome.signal is not None:
        sys.exit(128 + outcome.signal)


def _device(name: str, has_cuda: bool) -> str:
    if name == "auto":
        return "cuda" if has_cuda else "cpu"
    if name.startswith("cuda") and not has_cuda:
        raise DeviceError(f"device {name!r}: PyTorch sees no CUDA GPU. Pass --device cpu, or check the driver.")
    if name != "cpu" and not name.startswith("cuda"):
        raise UsageError(f"device {name!r}: expected auto, cpu, cuda or cuda:N. Choose one of these.")
    return name


def _narrate(config: TrainConfig, folder: Path, images: str, device: str) -> None:
    weights = Path(config.encoder_weights).name or f"random weights, seed {config.seed}"
    lambdas = {"image": config.lambda_img, "feature": config.lambda_feat, "adversarial": config.lambda_adv}
    terms = [f"{name} {value:g}" for name, value in lambdas.items() if value]
    click.echo(
        f"Inverting {config.encoder} {config.layer} ({weights}) on {images}, {device}, batch {config.batch}, "
        f"{config.steps:,} steps; losses: {', '.join(terms)}. Run folder: {folder}",
        err=True,
    )


def _tell(step: int, checkpoint: Path, stopped: int | None, asked: _Request) -> None:
    folder = asked.folder
    if asked.as_json:
        click.echo(json.dumps({"step": step, "checkpoint": str(checkpoint), "run": str(folder), "signal": stopped}))
    if asked.quiet:
        return
    if stopped is not None:
        click.echo(f"Stopped by {signal.Signals(stopped).name} after step {step}, saved {checkpoint}", err=True)
        click.echo(f"Go on:  deepsim train -o {folder} --resume auto (and the same --data)", err=True)
    else:
        click.echo(f"Trained {step:,} steps, saved {checkpoint}", err=True)
        click.echo(f"Next:   deepsim-export {folder} --engine fp16 -o {folder.name}.deepsim", err=True)
