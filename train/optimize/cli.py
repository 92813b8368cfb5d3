"""The command ``deepsim optimize``: a group of two, by gradients and by scores, each imported when it is called."""

from __future__ import annotations

import click

from deepsim.runtime.cli import LazyGroup

COMMANDS: dict[str, tuple[str, str]] = {
    "features": ("deepsim.train.optimize.features_cli:features", "Pictures that have the wanted features."),
    "scores": ("deepsim.train.optimize.black_box.scores_cli:scores", "Codes whose images get the highest scores."),
}


@click.group(
    cls=LazyGroup,
    lazy=COMMANDS,
    epilog="Example: deepsim optimize features fc6.deepsim targets.h5 --encoder vgg19.deepsim -o images",
)
def optimize() -> None:
    """Find codes or pixels whose features are the wanted ones, or whose images get the highest scores."""
