"""What ``deepsim train`` says before and after a run."""

from __future__ import annotations

import json
import signal
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING

import click

from deepsim.train import objective
from deepsim.train.config import PRESETS, TrainConfig
from deepsim.train.module_references import is_module_reference
from deepsim.train.objective import used_terms
from deepsim.train.tasks import task_of

if TYPE_CHECKING:
    from deepsim.train.cli import Request
    from deepsim.train.held_out import Images
    from deepsim.train.loop import Outcome

_TOLD = {"task", "layer", "encoder", "encoder_weights", "batch", "steps", "minutes"}  # and the weights of the losses


def narrate(config: TrainConfig, asked: Request, images: Images, device: str) -> None:
    """Say what is about to be trained on what, and which settings differ from the paper's."""
    task = task_of(config.task)
    weights = Path(config.encoder_weights).name or f"random weights, seed {config.seed}"
    inverted = config.encoder if is_module_reference(config.encoder) else f"{config.encoder} {config.layer}"
    begins = "beginning with " if task.encoder_learns else ""
    click.echo(
        f"{task.verb} {inverted} ({begins}{weights}) on {images.training.description}, {device}, "
        f"batch {config.batch}, {length(config)}; losses: {losses_in_words(config)}. Run folder: {asked.folder}",
        err=True,
    )
    click.echo(f"Validation: {images.described}.", err=True)
    if others := different_settings(config):
        click.echo(f"Settings that differ from the paper's: {', '.join(others)}.", err=True)


def losses_in_words(config: TrainConfig) -> str:
    """List the terms of the objective with their weights."""
    return ", ".join(f"{term.label} {term.weight_in(config):g}" for term in used_terms(config))


def length(config: TrainConfig) -> str:
    """Say how long a run trains: its steps, its minutes, or both."""
    steps = f"{config.steps:,} steps" if config.steps else ""
    minutes = f"{config.minutes:g} minutes" if config.minutes else ""
    return f"{minutes}, at most {steps}" if steps and minutes else steps or minutes


def different_settings(config: TrainConfig) -> list[str]:
    """List the settings that differ from those of the preset "paper", besides what is told anyway."""
    paper = {**{entry.name: entry.default for entry in fields(config)}, **asdict(PRESETS["paper"])}
    told = _TOLD | {term.weight for term in objective.TERMS}
    values = {name: value for name, value in asdict(config).items() if name not in told and value != paper[name]}
    return [f"{name} {value}" for name, value in values.items()]


def tell(config: TrainConfig, outcome: Outcome, asked: Request) -> None:
    """Say how a run ended and what to do next; with --json as JSON on stdout too."""
    folder = asked.folder
    if asked.as_json:
        found = {"step": outcome.step, "checkpoint": str(outcome.checkpoint), "run": str(folder)}
        click.echo(json.dumps({**found, "signal": outcome.signal, "seconds": round(outcome.seconds, 1)}))
    if asked.quiet:
        return
    if outcome.signal is not None:
        name = signal.Signals(outcome.signal).name
        click.echo(f"Stopped by {name} after step {outcome.step}, saved {outcome.checkpoint}", err=True)
        click.echo(f"Go on:  deepsim train -o {folder} --resume auto", err=True)
        return
    time = f" in {outcome.seconds / 60:.3g} of {config.minutes:g} minutes" if config.minutes else ""
    click.echo(f"Trained {outcome.step:,} steps{time}, saved {outcome.checkpoint}", err=True)
    click.echo(f"Next:   deepsim-export {folder} --engine fp16 -o {folder.name}.deepsim", err=True)
