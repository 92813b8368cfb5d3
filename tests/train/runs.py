"""A training run small enough to repeat many times, and how to start it."""

import hashlib

import numpy as np
import torch

from deepsim.runtime.images import save_png
from deepsim.train.config import PRESETS
from deepsim.train.data import FolderDataset
from deepsim.train.loop import Run

TINY = PRESETS["tiny"].updated(
    {"width": 1 / 64, "steps": 12, "checkpoint_every": 3, "validate_every": 6, "image_every": 6, "deterministic": True}
)


def write_photographs(folder, count=5):
    """Write smooth random photographs, each of its own size."""
    rng = np.random.default_rng(0)
    for index in range(count):
        coarse = rng.integers(0, 256, (5 + index, 6, 3), np.uint8)
        save_png(np.kron(coarse, np.ones((40, 40, 1), np.uint8)), folder / f"photo-{index}.png")
    return folder


def tiny_run(folder, photos, resume="never"):
    dataset = FolderDataset([photos])
    return Run(folder, dataset, dataset, torch.device("cpu"), resume=resume, quiet=True)


def digests(checkpoint):
    """Map each safetensors file of a checkpoint to its SHA-256."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in checkpoint.glob("*.safetensors")}
