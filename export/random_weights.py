"""Seeded random weights for benchmarks and tests: activations of order one, images with some contrast.

He-normal draws, then every layer is rescaled so that its linear output has unit variance on calibration inputs; the
last layer gives images with a standard deviation of about 50 grey levels. The factors are rounded to three digits, so
that one seed gives the same weights on every machine (but for a factor that falls on a rounding border).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from deepsim.export.torch_networks import apply_layers
from deepsim.kernels.layers import Layer

IMAGE_STD = 50.0  # grey levels
Weights = dict[str, NDArray[np.float32]]


def random_weights(layers: tuple[Layer, ...], inputs: NDArray[np.float32], seed: int = 0) -> Weights:
    """Draw weights for a network and scale them on ``inputs`` (N, C, H, W) or (N, C); biases are N(0, 0.1).

    Returns float32 arrays by ``<layer>.weight`` and ``<layer>.bias``. A last layer with 3 channels is taken as an
    image and scaled to a standard deviation of 50 grey levels.
    """
    rng = np.random.default_rng(seed)
    weights: Weights = {}
    with torch.inference_mode():
        x = torch.from_numpy(inputs)
        for layer in layers:
            if layer.has_weights:
                weights.update(_draw(layer, rng))
                _rescale(layer, x, weights, _target(layer, layer is layers[-1]))
            x = apply_layers((layer,), x, {name: torch.from_numpy(value) for name, value in weights.items()})
    return weights


def _draw(layer: Layer, rng: np.random.Generator) -> Weights:
    weight = rng.standard_normal(layer.weight_shape, np.float32)
    bias = 0.1 * rng.standard_normal(layer.outputs, np.float32)
    return {f"{layer.name}.weight": weight, f"{layer.name}.bias": bias}


def _target(layer: Layer, last: bool) -> float:
    """Return the standard deviation that the layer's linear output shall have."""
    if not (last and layer.outputs == 3):
        return 1.0
    return math.atanh(IMAGE_STD / 255) if layer.activation == "tanh255" else IMAGE_STD


def _rescale(layer: Layer, x: torch.Tensor, weights: Weights, target: float) -> None:
    linear = Layer(**{**vars(layer), "activation": "none"})
    weight, bias = weights[f"{layer.name}.weight"], weights[f"{layer.name}.bias"]
    found = apply_layers((linear,), x, {f"{layer.name}.weight": torch.from_numpy(weight), f"{layer.name}.bias": torch.zeros(layer.outputs)})
    weight *= np.float32(f"{target / float(found.std()):.3g}")
    bias *= np.float32(target)
