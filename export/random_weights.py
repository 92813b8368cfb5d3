"""Seeded random generators for benchmarks and tests: activations of order one, images with some contrast.

Gaussian draws, then every layer is rescaled so that its linear output has unit variance on calibration features; the
last layer gives images with a standard deviation of about 50 grey levels.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from deepsim.export.torch_networks import apply_layers, tensors
from deepsim.kernels.activations import refuse_activation
from deepsim.kernels.layers import Layer
from deepsim.runtime.generators import GeneratorSpec

IMAGE_STD = 50.0  # grey levels
_BIAS = 0.1  # standard deviation, relative to the layer's output
Weights = dict[str, NDArray[np.float32]]


def random_generator_weights(spec: GeneratorSpec, features: NDArray[np.float32], seed: int = 0) -> Weights:
    """Draw a generator's weights and scale them on ``features`` (N, *spec.input_shape).

    Returns float32 arrays by ``<layer>.weight`` and ``<layer>.bias``. Factors are rounded to three digits, so that a
    seed gives the same weights on every machine (but for a factor that falls on a rounding border). Raises
    UnknownLayerError for a kind or an activation that is not known.
    """
    rng = np.random.default_rng(seed)
    weights: Weights = {}
    with torch.inference_mode():
        x = torch.from_numpy(features)
        for layer in spec.layers:
            own = _draw(layer, rng, _target(layer, layer is spec.layers[-1]), x) if layer.has_weights else {}
            x = apply_layers((layer,), x, tensors(own))
            weights.update(own)
    return weights


def _target(layer: Layer, last: bool) -> float:
    """Return the standard deviation that the layer's linear output shall have."""
    if not last:
        return 1.0
    record = layer.activates
    if record.scale is not None:
        return math.atanh(IMAGE_STD / record.scale)
    if record.slope is None:
        raise refuse_activation(record, "the drawing of random weights")
    return IMAGE_STD


def _draw(layer: Layer, rng: np.random.Generator, target: float, x: torch.Tensor) -> Weights:
    weight = rng.standard_normal(layer.weight_shape, np.float32)
    bias = np.float32(_BIAS * target) * rng.standard_normal(layer.outputs, np.float32)
    own = {f"{layer.name}.weight": weight, f"{layer.name}.bias": np.zeros_like(bias)}
    found = float(apply_layers((replace(layer, activation="none"),), x, tensors(own)).std())
    weight *= np.float32(f"{target / max(found, 1e-12):.3g}")
    return {**own, f"{layer.name}.bias": bias}
