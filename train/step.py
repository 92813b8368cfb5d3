"""One training step, in the order of the release: G forward; D step; G's losses through the updated D; G step."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from deepsim.runtime.errors import NumericError
from deepsim.train import objective
from deepsim.train.augmentation import augmented
from deepsim.train.latent import Posterior
from deepsim.train.models import Models, Player
from deepsim.train.networks import resized, scored, to_image_space
from deepsim.train.objective import Reconstruction, discriminator_loss, fake_loss, real_loss, used_terms
from deepsim.train.optimizers import learning_rate, set_learning_rate

Losses = dict[str, float | None]
"""The losses of one step by their names in the log, in the run's normalisation; None where a weight is 0."""


def train_step(models: Models, photos: Tensor) -> Losses:
    """Make one update of every network that is not paused, on uint8 RGB photographs (N, side, side, 3).

    Returns the generator's terms, then ``discriminator_loss`` and the weighted sum ``generator_loss``.
    Raises NumericError before any weight changes when a loss or a gradient is not finite.
    """
    real = to_image_space(photos)
    if models.config.channels_last:
        real = real.contiguous(memory_format=torch.channels_last)
    encoded, real_features = models.targets(real)
    posterior = models.posterior(encoded)
    features = encoded if posterior is None else posterior.draw()
    with models.autocast():
        fake = scored(models.generator.call(features), models.geometry)
    condition = features.detach()  # an encoder that learns is judged by its images alone
    judged = _discriminator_step(models, real, resized(fake.detach(), real.shape[-1]), condition)
    losses = _generator_step(models, real, fake, condition, real_features, posterior)
    adversarial = losses.get("adversarial_loss")
    if judged is not None and adversarial is not None:
        models.pausing.update(judged["real"], judged["fake"], adversarial)
    return {
        **{term.name: losses.get(term.name) for term in objective.TERMS},
        "discriminator_loss": None if judged is None else judged["loss"],
        "generator_loss": losses["generator_loss"],
    }


def _discriminator_step(models: Models, real: Tensor, fake: Tensor, features: Tensor) -> dict[str, float] | None:
    """Train D on the real and the generated batch at once; return its losses (Eq. 3 and both parts)."""
    player = models.discriminator
    if player is None:
        return None
    normalisation = models.config.normalisation
    player.module.requires_grad_(True)
    with torch.set_grad_enabled(models.pausing.discriminator_trains), models.autocast():
        both = augmented(torch.cat((real, fake.to(real.dtype))), models.config.augmentation)
        logits = player.call(both, torch.cat((features, features)) if models.config.conditional else None)
        real_logits, fake_logits = logits.chunk(2)
        losses = {
            "loss": discriminator_loss(real_logits, fake_logits, normalisation),
            "real": real_loss(real_logits, normalisation),
            "fake": fake_loss(fake_logits, normalisation),
        }
    return _update(models, [player], losses["loss"], losses, models.pausing.discriminator_trains)


def _generator_step(
    models: Models,
    real: Tensor,
    fake: Tensor,
    features: Tensor,
    real_features: Tensor | None,
    posterior: Posterior | None,
) -> dict[str, float]:
    """Train G, and an encoder that learns, on the weighted sum (Eq. 1), the adversarial part through the updated D."""
    config, side = models.config, real.shape[-1]

    def compared() -> tuple[Tensor, Tensor]:
        if real_features is None:
            raise ValueError("comparator: no term of this run needs one, so there is none.")
        return models.compare(resized(fake, side)), real_features

    target = resized(real, fake.shape[-1])  # of a generator whose images are smaller
    made = Reconstruction(
        fake,
        target,
        config.normalisation,
        compared,
        lambda: models.judge(resized(fake, side), features),
        posterior,
    )
    with torch.set_grad_enabled(models.pausing.generator_trains), models.autocast():
        losses = {term.name: (term.weight_in(config), term.function(made)) for term in used_terms(config)}
        total = torch.stack([weight * loss for weight, loss in losses.values()]).sum()
    values = {name: loss for name, (_, loss) in losses.items()} | {"generator_loss": total}
    return _update(models, models.learners, total, values, models.pausing.generator_trains)


def _update(
    models: Models, players: list[Player], loss: Tensor, losses: dict[str, Tensor], trains: bool
) -> dict[str, float]:
    """Make one update of every player (unless paused), all of one loss and one gradient scale.

    Losses and gradients are checked to be finite before any weight changes.
    Losses are combined over all processes (gradients are averaged by DistributedDataParallel; the paper's sums need
    the number of processes on top), so that every process sees the same figures and pauses alike.
    """
    combine = models.world.size if models.config.normalisation == "paper" else 1
    scaler = players[0].scaler
    norm = torch.zeros((), device=models.device)
    if trains:
        for player in players:
            player.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(scaler.scale(loss * combine))
        for player in players:
            scaler.unscale_(player.optimizer)
        gradients = [p.grad for player in players for p in player.module.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
    found = combine * models.world.mean(torch.stack([value.detach() for value in losses.values()]))
    *values, gradient_norm = torch.cat((found, norm.view(1).to(found))).tolist()  # the one synchronisation per update
    named = dict(zip(losses, values, strict=True))
    # A gradient overflow under fp16 is the scaler's business: it skips the update and lowers its scale.
    _require_finite({**named, **({} if scaler.is_enabled() else {"gradient norm": gradient_norm})})
    if trains:
        for player in players:
            set_learning_rate(player.optimizer, learning_rate(models.config, player.updates, models.time_share))
            scaler.step(player.optimizer)
            player.updates += 1
            if player.average is not None:
                player.average.update(player.updates)
        scaler.update()
    return named


def _require_finite(values: dict[str, float]) -> None:
    for name, value in values.items():
        if not math.isfinite(value):
            raise NumericError(f"{name}: {value}, expected a finite number. Lower the learning rate or check the data.")
