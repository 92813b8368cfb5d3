"""The weight of each layer for each target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from deepsim.runtime.errors import DataError
from deepsim.train.optimize.settings import LayerWeights


def weigh(
    how: LayerWeights,
    targets: Mapping[str, Tensor],
    names: Sequence[str],
    factors: Mapping[str, float],
    masks: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """Return the weights (n,) of each layer for targets (n, ...) called ``names``.

    "one": 1. "equal": 1 over the number of layers. "norm": 1 / |target|^2, of the units that count. "shares": the same,
    scaled for each target to sum to 1 over the layers. ``factors`` multiply the weights of layers. Raises DataError
    where a target is all zeros and has no such weight.
    """
    count = len(next(iter(targets.values())))
    like = next(iter(targets.values()))
    if how in ("one", "equal"):
        value = 1.0 if how == "one" else 1 / len(targets)
        return {tap: like.new_full((count,), value * factors.get(tap, 1.0)) for tap in targets}
    squares = {tap: _square(values, masks.get(tap)) for tap, values in targets.items()}
    for tap, found in squares.items():
        if bool((found == 0).any()):
            name = names[int((found == 0).nonzero()[0])]
            raise DataError(f"target {name}: {tap} is all zeros, so 1 / its norm is no weight. Leave {tap} out.")
    inverse = {tap: 1 / found for tap, found in squares.items()}
    total = torch.stack(list(inverse.values())).sum(0) if how == "shares" else 1.0
    return {tap: (found / total * factors.get(tap, 1.0)).to(like.dtype) for tap, found in inverse.items()}


def _square(values: Tensor, mask: Tensor | None) -> Tensor:
    counted = values if mask is None else values * mask
    return counted.double().square().sum(tuple(range(1, values.ndim)))
