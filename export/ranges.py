"""Which layers leave the range of half: a scan over calibration inputs before an fp16 export."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from deepsim.export.torch_networks import apply_layers
from deepsim.kernels.activations import refuse_activation
from deepsim.kernels.layers import Layer

WARN_ABOVE = 2e4  # a third of half's largest number, 65,504
ISLAND_ABOVE = 6e4


@dataclass(frozen=True)
class RangeScan:
    """The largest magnitude of every layer's linear output over the calibration inputs, and what follows from it.

    ``islands``: layers that stay float32 because their input, output or a weight exceeds 6e4; ``warnings``: above 2e4.
    """

    maxima: dict[str, float]
    islands: frozenset[str]
    warnings: tuple[str, ...]


def scan_ranges(layers: tuple[Layer, ...], x: torch.Tensor, weights: Mapping[str, torch.Tensor]) -> RangeScan:
    """Run a network in float32 on x (N, C, H, W) or (N, C) and record the range of every layer.

    An LRN and an activation 255 tanh(x) are computed in float32 anyway; their results count where a layer reads them.
    Raises UnknownLayerError for a kind or an activation that is not known.
    """
    maxima: dict[str, float] = {}
    islands, before = set(), float(x.abs().max())

    def observe(layer: Layer, output: torch.Tensor) -> None:
        nonlocal before
        maxima[layer.name] = peak = _linear_peak(layer, output)
        if layer.has_weights:
            largest = max(float(weights[f"{layer.name}.{kind}"].abs().max()) for kind in ("weight", "bias"))
            if max(before, peak, largest) > ISLAND_ABOVE:
                islands.add(layer.name)
        before = float(output.abs().max())

    with torch.inference_mode():
        apply_layers(layers, x, weights, observe=observe)
    return RangeScan(maxima, frozenset(islands), tuple(name for name, peak in maxima.items() if peak > WARN_ABOVE))


def _linear_peak(layer: Layer, output: torch.Tensor) -> float:
    """Return the largest magnitude of a layer's linear output, seen through its activation as far as that keeps it.

    A ReLU keeps the positive side, and what it cuts may overflow; a tanh is itself computed in float32.
    """
    record, peak = layer.activates, float(output.abs().max())
    if record.slope is None and record.scale is None:
        raise refuse_activation(record, "the scan of ranges")
    # the linear output's negative side is 1 / slope times larger
    return max(peak, -float(output.min()) / record.slope) if record.slope else peak
