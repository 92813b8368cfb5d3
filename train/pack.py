"""Copy of a run what an export needs, and no more: ``python -m deepsim.train.pack RUN FOLDER``.

The copy is a run folder with one checkpoint: settings, the encoder's weights and the weights that a bundle gets (the
running averages, where there are any). It has no photographs, no names of files, no states of optimisers and no paths
of the machine: it is small enough for a repository and safe to pass on. It cannot be trained further.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import click

from deepsim.runtime.cli.exits import run
from deepsim.runtime.errors import CheckpointError, UsageError
from deepsim.runtime.files import publish_folder, reserved
from deepsim.runtime.run_folder import CONFIG, ENCODER, GENERATOR, LATEST, STATE, checkpoints, exported_weights
from deepsim.train.checkpoints import newest_checkpoints
from deepsim.train.config import TrainConfig, read_config
from deepsim.train.tasks import task_of

_KEPT = ("step", "updates", "best_error", "torch")  # of a checkpoint's state


def pack(source: Path, target: Path, overwrite: bool = False) -> None:
    """Write the exportable part of a run's newest checkpoint to the folder ``target``, which appears whole.

    Raises CheckpointError where the run has no checkpoint or lacks a file, UsageError where the target exists.
    """
    found = newest_checkpoints(source)
    if not found:
        raise CheckpointError(f"{source}: no checkpoint, expected a run folder.")
    checkpoint, config = found[0], TrainConfig().updated(read_config(source / CONFIG))
    weights = exported_weights(checkpoint)
    learns = task_of(config.task).encoder_learns
    with publish_folder(target, overwrite) as staging:
        folder = checkpoints(staging) / checkpoint.name
        folder.mkdir(parents=True)
        _copy(weights / GENERATOR, folder / GENERATOR)
        _copy((weights if learns else source) / ENCODER, (folder if learns else staging) / ENCODER)
        state = json.loads((checkpoint / STATE).read_text())
        (folder / STATE).write_text(json.dumps({name: state.get(name) for name in _KEPT}, indent=2) + "\n")
        (folder.parent / LATEST).write_text(checkpoint.name + "\n")
        (staging / CONFIG).write_text(_without_paths(config).to_json())


def _copy(source: Path, target: Path) -> None:
    if not source.is_file():
        raise CheckpointError(f"{source}: missing, expected weights. Name a complete run.")
    shutil.copyfile(source, target)


def _without_paths(config: TrainConfig) -> TrainConfig:
    """Return settings whose weights files have names only."""
    named = {name: Path(getattr(config, name)).name for name in ("encoder_weights", "comparator_weights")}
    return config.updated(named)


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--overwrite", is_flag=True, help="Replace TARGET.")
def main(source: Path, target: Path, overwrite: bool) -> None:
    """Copy the exportable part of the run SOURCE to the folder TARGET."""
    if source.resolve() in (target.resolve(), *target.resolve().parents):
        raise UsageError(f"{target}: lies in the run that is copied. Choose another place.")
    with reserved(target):
        pack(source, target, overwrite)
    click.echo(f"{target}: {sum(path.stat().st_size for path in target.rglob('*') if path.is_file()) / 1e6:.1f} MB")


if __name__ == "__main__":
    run(main, "python -m deepsim.train.pack")
