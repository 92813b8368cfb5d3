"""The command ``deepsim train`` = ``python train/run.py``."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import click

from deepsim.runtime.errors import UsageError, missing_extra
from deepsim.runtime.run_folder import CONFIG
from deepsim.train.config import OBJECTIVES, PRESETS, TrainConfig, begun_run, check_resumable, field_names, read_config
from deepsim.train.output import refuse_output_among, refuse_output_over

_Command = Callable[..., Any]


def settings_of(record: type[Any]) -> Callable[[_Command], _Command]:
    """Return a decorator that adds one option for each field of a configuration, from its type and metadata.

    What is not given is None, and keeps the preset's value. Raises TypeError for a field without a help text.
    """

    def add_options(command: _Command) -> _Command:
        hints = get_type_hints(record)
        for entry in reversed(fields(record)):
            if "help" not in entry.metadata:
                raise TypeError(f"{record.__name__}.{entry.name}: no help text, expected setting(default, help).")
            flag, hint = entry.name.replace("_", "-"), hints[entry.name]
            declaration, kind = f"--{flag}", str if get_origin(hint) is tuple else hint
            if hint is bool:
                declaration, kind = f"--{flag}/--no-{flag}", None
            elif get_origin(hint) is Literal:
                kind = click.Choice(get_args(hint))
            help_text = entry.metadata["help"]
            command = click.option(declaration, entry.name, type=kind, default=None, help=help_text)(command)
        return command

    return add_options


@click.command(
    epilog="""\b
Examples:
  deepsim train --preset demo --data photos/ -o runs/demo
  deepsim train --preset paper --layer pool5 --data imagenet/train --encoder-weights caffenet.safetensors
  deepsim train --task autoencoder --layer latent --latent 512 --data photos/ -o runs/code
  deepsim train --preset vae --data imagenet/train --encoder-weights caffenet.safetensors
  deepsim train --preset demo --data photos/ --encoder timm:resnet18@layer2
  deepsim train --preset demo --data photos/ --objective image+feat -o runs/image-feat
  deepsim train -o runs/demo --resume auto --steps 2000
  deepsim train --preset demo --data photos/ --minutes 5
  torchrun --nproc-per-node 8 train/run.py --preset paper --data imagenet/train --precision bf16"""
)
@click.option(
    "--preset", type=click.Choice(list(PRESETS)), default="paper", show_default=True, help="Settings to begin with."
)
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    help="YAML file of settings over the preset's.",
)
@click.option(
    "--objective",
    type=click.Choice(list(OBJECTIVES)),
    default=None,
    help="Losses with the paper's weights, as in its Figure 1, over the preset's.",
)
@click.option("--data", multiple=True, help="Folder of photographs (repeatable). Default: procedural dead leaves.")
@click.option(
    "--dead-leaves",
    type=click.IntRange(0),
    default=0,
    help="With --data: mix in this many procedural images; the photographs are repeated until they are as many.",
)
@click.option(
    "--validation",
    multiple=True,
    help="Folder of photographs for validation. Default: some of --data, held out from training.",
)
@click.option(
    "-o", "--output", "run_folder", type=click.Path(path_type=Path), help="Folder of the run [runs/PRESET-LAYER]."
)
@click.option("--resume", default=None, help="'auto' for the newest checkpoint of the run, or a checkpoint folder.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option(
    "--threads", type=click.IntRange(0, 1024), default=0, help="CPU threads; 0: PyTorch's choice, or a CPU quota."
)
@click.option(
    "--workers", type=click.IntRange(0, 1024), default=0, show_default=True, help="Processes that read photographs."
)
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON on stdout.")
@settings_of(TrainConfig)
def train(preset: str, config_file: Path | None, run_folder: Path | None, resume: str | None, **options: Any) -> None:
    """Train a generator that turns a layer's features back into images.

    Writes checkpoints, log.jsonl and image grids into the run's folder. Ctrl-C finishes the step, saves and stops.
    """
    for module in ("torch", "safetensors", "yaml"):
        if importlib.util.find_spec(module) is None:
            raise missing_extra(module, "train")
    given = {name: value for name in field_names() if (value := options.pop(name)) is not None}
    given = {**OBJECTIVES.get(options.pop("objective"), {}), **given}
    config, folder = _configuration(preset, config_file, run_folder, resume, given)
    _run(config, Request(folder, resume or "never", str(config_file or ""), **options))


@dataclass(frozen=True)
class Request:
    """What was asked for besides the settings: one field per option of that name."""

    folder: Path
    resume: str
    config: str
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
    if values.get("minutes") and "steps" not in values:
        values["steps"] = 0  # those of the preset would end the run before its time
    config = PRESETS[preset].updated(values)
    folder = run_folder or Path("runs") / f"{preset}-{config.layer}"
    saved = begun_run(resume, folder) / CONFIG if resume else None
    if saved is not None and saved.exists():
        begun = TrainConfig().updated(read_config(saved))
        config = begun.updated(values)
        check_resumable(begun, config)
    return config, folder


def _run(config: TrainConfig, asked: Request) -> None:
    import torch

    from deepsim.train import distributed
    from deepsim.train.devices import device_of, use_threads
    from deepsim.train.held_out import Asked, choose_images
    from deepsim.train.loop import Run, train
    from deepsim.train.narration import narrate, tell
    from deepsim.train.precision import resolved

    begun = None if asked.resume == "never" else begun_run(asked.resume, asked.folder)
    images = choose_images(Asked(asked.data, asked.dead_leaves, asked.validation), config.seed, begun)
    refuse_output_among(images.folders, images.files, asked.folder)
    given = (config.encoder_weights, config.comparator_weights, asked.config)
    refuse_output_over(given, images.folders, asked.folder)
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    use_threads(asked.threads)
    device = device_of(asked.device, torch.cuda.is_available())
    world = distributed.start(device.split(":")[0])
    if config.batch % world.size:
        raise UsageError(f"batch: {config.batch}, expected a multiple of the {world.size} processes.")
    if device == "cuda":
        device = f"cuda:{world.local_rank}"
        torch.cuda.set_device(world.local_rank)
    config = resolved(config, torch.device(device), world)
    quiet = asked.quiet or not world.is_main
    if not quiet:
        narrate(config, asked, images, device)
    run = Run(
        *(asked.folder, images.training, images.validation, torch.device(device), world, asked.resume, asked.workers),
        quiet=quiet,
        record=images.record,
    )
    try:
        outcome = train(config, run)
    finally:
        distributed.stop()
    if world.is_main:
        tell(config, outcome, asked)
    if outcome.signal is not None:
        sys.exit(128 + outcome.signal)
