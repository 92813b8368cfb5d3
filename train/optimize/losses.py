"""How features are compared with their targets: for each row a value, and its gradient added in place.

Every loss is a sum over a layer's values, each row (target and start) on its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

LossName = Literal["l2", "l1", "inner", "gram", "class", "dists"]
Found = tuple[Tensor, Tensor]  # values (n,) and gradient at the features (n, ...), both with the weights


@dataclass(frozen=True)
class Mix:
    """What "dists" adds up: ``dists`` times DISTS and ``relative`` times the squared error over the target's square.

    ``structure`` and ``texture`` are DISTS' weights beta and alpha, of a layer whose channels count alike.
    """

    dists: float = 4.0
    relative: float = 1.0
    texture: float = 0.5
    structure: float = 0.5


def add_loss(
    name: LossName,
    features: Tensor,
    target: Tensor,
    weight: Tensor,
    incoming: Tensor | None,
    mask: Tensor | None,
    mix: Mix,
) -> Found:
    """Return the weighted losses (n,) of features (n, ...), and ``incoming`` (may be overwritten) plus their gradient.

    ``weight`` is (n,); ``mask``, of one feature's shape, is 1 for the units that count and 0 for the others. Raises
    KeyError for an unknown loss.
    """
    if mask is not None:
        features, target = features * mask, target * mask
    values, gradient, factor = LOSSES[name](features, target, mix)
    factors = (weight * factor).view(-1, *[1] * (features.ndim - 1))
    if mask is not None:
        gradient = gradient * mask
    added = gradient.mul_(factors) if incoming is None else incoming.addcmul_(gradient, factors)
    return values * weight, added


Loss = Callable[[Tensor, Tensor, Mix], tuple[Tensor, Tensor, float]]  # values, gradient / factor, factor


def _axes(x: Tensor) -> tuple[int, ...]:
    return tuple(range(1, x.ndim))


def l2(features: Tensor, target: Tensor, mix: Mix) -> tuple[Tensor, Tensor, float]:
    """Sum the squared differences (icnn "l2", bdpy MSELoss(reduction="sum"))."""
    difference = features - target
    return torch.linalg.vector_norm(difference, dim=_axes(difference)).square(), difference, 2.0


def l1(features: Tensor, target: Tensor, mix: Mix) -> tuple[Tensor, Tensor, float]:
    """Sum the absolute differences (icnn "l1")."""
    difference = features - target
    return difference.abs().sum(_axes(difference)), difference.sign_(), 1.0


def inner(features: Tensor, target: Tensor, mix: Mix) -> tuple[Tensor, Tensor, float]:
    """Return minus the inner product (icnn "inner"); with a one-hot target it maximises that unit (synthesizing)."""
    return -(features * target).sum(_axes(features)), target.clone(), -1.0


def gram(features: Tensor, target: Tensor, mix: Mix) -> tuple[Tensor, Tensor, float]:
    """Sum the squared differences of the Gram matrices F F^T of channels, over all places (icnn "gram")."""
    own, wanted = features.flatten(2), target.flatten(2)  # (n, C, H W)
    difference = own @ own.transpose(1, 2) - wanted @ wanted.transpose(1, 2)
    return difference.square().sum((1, 2)), (difference @ own).view_as(features), 4.0


def class_(features: Tensor, target: Tensor, mix: Mix) -> tuple[Tensor, Tensor, float]:
    """Return the cross-entropy between a target distribution, such as one class, and the softmax of logits (ppgn)."""
    logarithms = features.log_softmax(1)
    gradient = logarithms.exp() * target.sum(1, keepdim=True) - target
    return -(target * logarithms).sum(1), gradient, 1.0


def dists(features: Tensor, target: Tensor, mix: Mix) -> tuple[Tensor, Tensor, float]:
    """Add ``mix.dists`` DISTS (Ding et al. 2020) and ``mix.relative`` |f - t|^2 / |t|^2 (spurious_reconstruction)."""
    with torch.enable_grad():
        leaf = features.detach().requires_grad_()
        relative = (leaf - target).square().sum(_axes(leaf)) / target.square().sum(_axes(target))
        values = mix.dists * _dists(leaf, target, mix) + mix.relative * relative
        (gradient,) = torch.autograd.grad(values.sum(), leaf)
    return values.detach(), gradient, 1.0


def _dists(features: Tensor, target: Tensor, mix: Mix) -> Tensor:
    """Return 1 - mean over channels of texture S1 + structure S2, over places; a vector's units have one place."""
    c1 = c2 = 1e-6  # of the authors' code
    x, y = (t.flatten(2) if t.ndim > 2 else t[:, :, None] for t in (features, target))
    mean_x, mean_y = x.mean(2), y.mean(2)
    texture = (2 * mean_x * mean_y + c1) / (mean_x.square() + mean_y.square() + c1)
    deviation_x, deviation_y = x - mean_x[..., None], y - mean_y[..., None]
    variances = deviation_x.square().mean(2) + deviation_y.square().mean(2)
    structure = (2 * (deviation_x * deviation_y).mean(2) + c2) / (variances + c2)
    return 1 - (mix.texture * texture + mix.structure * structure).mean(1)


LOSSES: dict[LossName, Loss] = {"l2": l2, "l1": l1, "inner": inner, "gram": gram, "class": class_, "dists": dists}
ON_MAPS: tuple[LossName, ...] = ("gram",)
"""Losses that compare channels over places, and take no vectors."""
ON_VECTORS: tuple[LossName, ...] = ("class",)
"""Losses of one vector of logits."""
