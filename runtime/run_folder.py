"""What is where in the folder of a training run, for training, export and evaluation.

::

    config.json            settings, as they were when training last began
    data.json              the images of training and validation: names, SHA-256, in words
    clock.json             seconds of training up to each checkpoint
    log.jsonl              one JSON object for each logged step
    encoder.safetensors    weights of the encoder (where it learns, in each checkpoint instead);
                           comparator.safetensors where the comparator has its own
    calibration.json       how the weight of the feature loss was found, with --calibrate-feat
    mean_image.png         mean of the training crops
    checkpoints/           a folder step-00000200/ for each saved step; the files latest and best name one of them
    previews/photographs.npy   the photographs that training reconstructs on the way, uint8 RGB (N, side, side, 3)
    images/                step-00000200.png: these photographs above their reconstructions, to look at
    tensorboard/           the log once more, as event files
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from deepsim.runtime.errors import CheckpointError
from deepsim.runtime.files import write_atomic
from deepsim.runtime.images import read_image
from deepsim.runtime.pixels import Pixels

CONFIG, DATA, CLOCK, LOG = "config.json", "data.json", "clock.json", "log.jsonl"
ENCODER, COMPARATOR = "encoder.safetensors", "comparator.safetensors"
CALIBRATION = "calibration.json"
MEAN_IMAGE = "mean_image.png"
PHOTOGRAPHS = "previews/photographs.npy"
EVENTS = "tensorboard"  # a folder
LOCK = ".lock"  # while the run is trained
# In the folder checkpoints/.
LATEST, BEST = "latest", "best"
# In the folder of a checkpoint.
STATE, GENERATOR, OPTIMIZER = "state.json", "generator.safetensors", "optimizer.safetensors"
AVERAGE = "average"  # a folder: the running averages of weights, where the run keeps any

_CHECKPOINTS, _GRIDS = "checkpoints", "images"


def checkpoints(run: Path) -> Path:
    """Return the folder of a run's checkpoints."""
    return run / _CHECKPOINTS


def checkpoint_folder(run: Path, step: int) -> Path:
    """Return where a run keeps the checkpoint of a step."""
    return run / _CHECKPOINTS / f"step-{step:08d}"


def exported_weights(checkpoint: Path) -> Path:
    """Return the folder whose weights a bundle of the checkpoint gets: the averages, where there are any."""
    average = checkpoint / AVERAGE
    return average if average.is_dir() else checkpoint


def run_of(checkpoint: Path) -> Path:
    """Return the run that a checkpoint's folder belongs to."""
    return checkpoint.parent.parent


def grid(run: Path, step: int) -> Path:
    """Return where a run keeps the picture of a step: photographs above their reconstructions."""
    return run / _GRIDS / f"step-{step:08d}.png"


def newest_grid(run: Path) -> tuple[int | None, Path] | None:
    """Return the step of a run's newest picture (None where its name tells none) and its path; None without one."""
    paths = sorted((run / _GRIDS).glob("step-*.png"))
    if not paths:
        return None
    digits = paths[-1].stem.removeprefix("step-")
    return (int(digits) if digits.isascii() and digits.isdigit() else None), paths[-1]


def write_photographs(run: Path, photographs: Pixels) -> None:
    """Keep the photographs (N, side, side, 3) that a run reconstructs on the way. Raises DeviceError on a full disk."""
    content = io.BytesIO()
    np.save(content, photographs, allow_pickle=False)
    write_atomic(run / PHOTOGRAPHS, content.getvalue())


def read_photographs(run: Path, side: int) -> Pixels:
    """Return the photographs that a run reconstructed on the way, uint8 RGB (N, side, side, 3); N is 0 without any.

    A run that kept none as an array has them in the upper row of its pictures. Raises CheckpointError, naming the file,
    when it is damaged or of another side.
    """
    path = run / PHOTOGRAPHS
    if not path.exists():
        newest = newest_grid(run)
        return np.zeros((0, side, side, 3), np.uint8) if newest is None else _upper_row(newest[1], side)
    try:
        with path.open("rb") as file:
            photographs = np.lib.format.read_array(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise CheckpointError(f"{path}: not readable ({error}), expected an array of photographs.") from error
    if photographs.dtype != np.uint8 or photographs.ndim != 4 or photographs.shape[1:] != (side, side, 3):
        found = f"{photographs.dtype} {photographs.shape}"
        raise CheckpointError(f"{path}: {found}, expected photographs, uint8 (N, {side}, {side}, 3).")
    return photographs


def _upper_row(path: Path, side: int) -> Pixels:
    """Cut a picture's upper row into its tiles."""
    row = read_image(path)[:side]
    if min(row.shape[:2]) < side:
        raise CheckpointError(f"{path}: {row.shape[1]}x{row.shape[0]}, expected tiles of {side}. Remove the file.")
    count = row.shape[1] // side
    return np.stack(np.split(row[:, : count * side], count, axis=1))
