"""Adam with the release's parameter groups and learning-rate schedule."""

from __future__ import annotations

import math

from torch import nn
from torch.optim import Adam, Optimizer

from deepsim.runtime.errors import UsageError
from deepsim.train.config import TrainConfig
from deepsim.train.discriminator import Discriminator
from deepsim.train.networks import LayerStack


def layer_optimizer(stack: LayerStack, config: TrainConfig, fused: bool) -> Adam:
    """Build Adam for a generator, or an encoder that learns, by the roles of its layers.

    The roles are those of :class:`deepsim.kernels.layers.Layer`.
    The L2 term acts on the weights of "feature" layers; ``frozen_biases`` keeps the biases of "upconv" layers at 0.
    Raises ValueError naming a weight that learns and belongs to no layer of the table: it would never be updated.
    """
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for layer in stack.layers:
        if not layer.has_weights:
            continue
        own = stack.weights_of(layer)
        (decayed if layer.role == "feature" else plain).append(own.weight)
        if layer.role == "upconv" and config.frozen_biases:
            own.bias.requires_grad_(False)
        else:
            plain.append(own.bias)
    taken = {id(parameter) for parameter in (*decayed, *plain)}
    for name, parameter in stack.named_parameters():
        if parameter.requires_grad and id(parameter) not in taken:
            raise ValueError(f"{name}: learns, but no layer of the table has it, expected one.")
    return _adam([(decayed, config.weight_decay), (plain, 0.0)], config, fused)


def discriminator_optimizer(discriminator: Discriminator, config: TrainConfig, fused: bool) -> Adam:
    """Build Adam for the discriminator: the L2 term acts on all its parameters (release)."""
    return _adam([(list(discriminator.parameters()), config.weight_decay)], config, fused)


def _adam(groups: list[tuple[list[nn.Parameter], float]], config: TrainConfig, fused: bool) -> Adam:
    """Build Adam; ``weight_decay`` is added to the gradient, not decoupled."""
    return Adam(
        [{"params": parameters, "weight_decay": decay} for parameters, decay in groups if parameters],
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
        fused=fused,
    )


def learning_rate(config: TrainConfig, updates: int, time_share: float = 0.0) -> float:
    """Return the learning rate for a network that has made ``updates`` updates of its own.

    ``time_share`` is the share 0-1 of ``config.minutes`` that has passed; a cosine ends with the steps or the minutes,
    whichever is nearer.
    """
    if config.schedule == "halve":
        return config.learning_rate * 0.5 ** sum(updates >= milestone for milestone in config.milestones)
    if config.schedule == "cosine":
        share = updates / config.steps if config.steps else 0.0
        return config.learning_rate * 0.5 * (1 + math.cos(math.pi * min(max(share, time_share), 1)))
    if config.schedule == "constant":
        return config.learning_rate
    raise UsageError(f"schedule: {config.schedule!r}, expected constant, halve or cosine.")


def set_learning_rate(optimizer: Optimizer, value: float) -> None:
    """Set the learning rate of every parameter group."""
    for group in optimizer.param_groups:
        group["lr"] = value
