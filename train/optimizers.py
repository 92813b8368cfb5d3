"""Adam, or Muon, with the release's parameter groups; learning-rate schedules."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

from torch.optim import Adam, Optimizer

from deepsim.runtime.errors import UsageError
from deepsim.train.config import TrainConfig
from deepsim.train.discriminator import Discriminator
from deepsim.train.muon import Muon
from deepsim.train.networks import LayerStack

Group: TypeAlias = dict[str, Any]  # of parameters, as PyTorch's optimisers take them


def layer_optimizer(stack: LayerStack, config: TrainConfig, fused: bool) -> Adam:
    """Build the optimiser of a generator, or of an encoder that learns, by the roles of its layers.

    The roles are those of :class:`deepsim.kernels.layers.Layer`. Biases are always Adam's (see
    :mod:`deepsim.train.muon`). The L2 term acts on the weights of "feature" layers; ``frozen_biases`` keeps the biases
    of "upconv" layers at 0. Raises ValueError naming a weight that learns and belongs to no layer of the table: it
    would never be updated.
    """
    layers = [layer for layer in (*stack.layers, *stack.heads) if layer.has_weights]
    own = {layer.name: stack.weights_of(layer) for layer in layers}
    for layer in layers:
        own[layer.name].bias.requires_grad_(not (layer.role == "upconv" and config.frozen_biases))
    biases = [weights.bias for weights in own.values() if weights.bias.requires_grad]
    groups: list[Group] = [{"params": biases, "weight_decay": 0.0}]
    for decays, decay in ((True, config.weight_decay), (False, 0.0)):
        some = [layer for layer in layers if (layer.role == "feature") == decays]
        groups.append({"params": [own[layer.name].weight for layer in some], "weight_decay": decay})
        if config.optimizer == "muon":
            groups[-1]["layers"] = some
    taken = {id(parameter) for group in groups for parameter in group["params"]}
    for name, parameter in stack.named_parameters():
        if parameter.requires_grad and id(parameter) not in taken:
            raise ValueError(f"{name}: learns, but no layer of the table has it, expected one.")
    return _built(Muon if config.optimizer == "muon" else Adam, groups, config, fused)


def discriminator_optimizer(discriminator: Discriminator, config: TrainConfig, fused: bool) -> Adam:
    """Build Adam for the discriminator, also beside Muon: the L2 term acts on all its parameters (release)."""
    group = {"params": list(discriminator.parameters()), "weight_decay": config.weight_decay}
    return _built(Adam, [group], config, fused)


def _built(kind: type[Adam], groups: list[Group], config: TrainConfig, fused: bool) -> Adam:
    """Build an optimiser; a group's ``weight_decay`` is added to the gradient, not decoupled."""
    filled = [group for group in groups if group["params"]]
    return kind(filled, lr=config.learning_rate, betas=(config.beta1, config.beta2), fused=fused)


def learning_rate(config: TrainConfig, updates: int, time_share: float = 0.0) -> float:
    """Return the learning rate for a network that has made ``updates`` updates of its own.

    It rises linearly over the first ``config.warm_up`` updates, whatever its schedule.
    ``time_share`` is the share 0-1 of ``config.minutes`` that has passed; a cosine ends with the steps or the minutes,
    whichever is nearer.
    """
    risen = min(1.0, (updates + 1) / config.warm_up) if config.warm_up else 1.0
    return config.learning_rate * risen * _course(config, updates, time_share)


def _course(config: TrainConfig, updates: int, time_share: float) -> float:
    if config.schedule == "halve":
        return float(0.5 ** sum(updates >= milestone for milestone in config.milestones))
    if config.schedule == "cosine":
        share = updates / config.steps if config.steps else 0.0
        return 0.5 * (1 + math.cos(math.pi * min(max(share, time_share), 1)))
    if config.schedule == "constant":
        return 1.0
    raise UsageError(f"schedule: {config.schedule!r}, expected constant, halve or cosine.")


def set_learning_rate(optimizer: Optimizer, value: float) -> None:
    """Set the learning rate of every parameter group."""
    for group in optimizer.param_groups:
        group["lr"] = value
