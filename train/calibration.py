"""The weight of the feature loss for a comparator that the paper names no weight for. The rule is ours.

Dosovitskiy & Brox 2016 give 0.01 for CONV5 (pool5) of CaffeNet, and nothing for their other comparators. Here the term
of another comparator gets the weight with which it pulls at an image as strongly as that one does: over the first
batches of the run, photographs y and images G(x) of the generator before its first step, the mean norm of the gradient
of the feature loss at G(x) is the same.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from deepsim.runtime.errors import CheckpointError, NumericError
from deepsim.runtime.files import write_atomic
from deepsim.runtime.networks import CAFFENET
from deepsim.runtime.run_folder import CALIBRATION
from deepsim.train.config import TrainConfig
from deepsim.train.encoders import load_encoder, random_encoder
from deepsim.train.models import Models
from deepsim.train.networks import Encoder, resized, to_image_space
from deepsim.train.objective import Normalisation, squared_error, uses

BATCHES = 4
PAPER_COMPARATOR = "pool5"  # the paper's CONV5


@dataclass(frozen=True)
class Calibration:
    """What a calibration found: the weight that was asked for CaffeNet's pool5, and ``lambda_feat``, its equal here.

    ``gradient`` and ``reference_gradient`` are the mean norms of the unweighted term's gradient at the images, of this
    comparator and of ``reference``, in the run's normalisation.
    """

    asked: float
    lambda_feat: float
    gradient: float
    reference_gradient: float
    reference: str
    batches: int = BATCHES


def calibrated(models: Models, batches: Iterable[Tensor], folder: Path, saved: Path | None) -> TrainConfig:
    """Return a run's settings with the weight that its comparator gets; what was found is in calibration.json.

    ``batches`` yields the run's first uint8 RGB batches, the same in every process. A run that is resumed (``saved``)
    keeps its weight, and one that does not ask for this, or has no feature loss, gets its settings back. Raises
    NumericError when the term has no gradient, CheckpointError for a damaged calibration.json.
    """
    config = models.config
    if not config.calibrate_feat or not uses(config, "comparator"):
        return config
    before = None if saved is None else saved / CALIBRATION
    found = _read(before) if before is not None and before.exists() else calibrate(models, batches)
    if models.world.is_main and not (folder / CALIBRATION).exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / CALIBRATION, json.dumps(asdict(found), indent=2) + "\n")
    if config.lambda_feat != found.asked:
        return config  # resumed: its weight is the one that was found, or one that was asked for since
    return replace(config, lambda_feat=found.lambda_feat)


def _read(path: Path) -> Calibration:
    try:
        return Calibration(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: not readable ({error}), expected what a calibration found.") from error


def calibrate(models: Models, batches: Iterable[Tensor]) -> Calibration:
    """Find the weight by which the run's comparator pulls at images as the paper's does (see the module).

    Raises NumericError when the term has no gradient.
    """
    config, pairs = models.config, []
    for photos in islice(batches, BATCHES):
        real = to_image_space(photos.to(models.device))
        fake = models.generate(models.encode(real))
        pairs.append((real, resized(fake.float(), real.shape[-1])))
    reference, described = _reference(config)
    reference.to(models.device)
    side = reference.framing.side
    gradient = _gradient(pairs, models.compare, config.normalisation)
    wanted = _gradient(pairs, lambda images: reference(resized(images, side)), config.normalisation)
    gradient, wanted = models.world.mean(torch.tensor([gradient, wanted], device=models.device)).tolist()
    if not (math.isfinite(wanted / max(gradient, 1e-30)) and gradient > 0):
        raise NumericError(f"comparator: its feature loss has a gradient of norm {gradient}, expected one above 0.")
    return Calibration(config.lambda_feat, config.lambda_feat * wanted / gradient, gradient, wanted, described)


def _gradient(
    pairs: list[tuple[Tensor, Tensor]], compare: Callable[[Tensor], Tensor], normalisation: Normalisation
) -> float:
    """Return the mean norm of the feature loss's gradient at generated images; ``pairs`` are (real, generated)."""
    norms = []
    for real, fake in pairs:
        with torch.no_grad():
            wanted = compare(real)
        image = fake.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(squared_error(compare(image), wanted, normalisation), image)
        norms.append(float(gradient.norm()))
    return sum(norms) / len(norms)


def _reference(config: TrainConfig) -> tuple[Encoder, str]:
    """Return CaffeNet up to pool5, with the encoder's file where that is CaffeNet, and what it is in words."""
    if config.encoder == CAFFENET.name and config.encoder_weights:
        path = Path(config.encoder_weights)
        return load_encoder(CAFFENET, PAPER_COMPARATOR, path), f"caffenet pool5 with the weights of {path.name}"
    described = f"caffenet pool5 with random weights, seed {config.seed}"
    return random_encoder(CAFFENET, PAPER_COMPARATOR, config.seed), described
