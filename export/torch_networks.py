"""The exported networks in PyTorch, from pixels and to pixels: what every export is measured against."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from deepsim.kernels.layers import Layer
from deepsim.kernels.torch_layers import activate, apply_layer
from deepsim.runtime.generators import GeneratorSpec
from deepsim.runtime.networks import EncoderSpec
from deepsim.runtime.pixels import Pixels

if TYPE_CHECKING:
    from deepsim.train.module_encoders import ModuleEncoder

Array = NDArray[Any]
Observer = Callable[[Layer, torch.Tensor], None]


def tensors(weights: Mapping[str, Array]) -> dict[str, torch.Tensor]:
    """Wrap numpy weights as torch tensors that share their memory."""
    return {name: torch.from_numpy(value) for name, value in weights.items()}


def apply_layers(
    layers: tuple[Layer, ...],
    x: torch.Tensor,
    weights: Mapping[str, torch.Tensor],
    half: bool = False,
    fp32_layers: frozenset[str] = frozenset(),
    observe: Observer | None = None,
) -> torch.Tensor:
    """Run a network on x (N, C, H, W) or (N, C), in float32 or in half with the export's float32 islands.

    With ``half`` each layer's weights, input and output are half, but for LRN, ``fp32_layers`` and an activation
    255 tanh(x), as in the exported fp16 graph. ``observe`` is called with every layer and its output, activation
    included. Returns float32.
    """
    for layer in layers:
        dtype = torch.half if half and layer.kind != "lrn" and layer.name not in fp32_layers else torch.float32
        if layer.kind in ("pool", "reshape"):
            dtype = x.dtype
        weight, bias = (weights.get(f"{layer.name}.{kind}") for kind in ("weight", "bias"))
        x = _apply(layer, x.to(dtype), _as(weight, dtype), _as(bias, dtype))
        if observe is not None:
            observe(layer, x)
    return x.float()


def _as(tensor: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor | None:
    return None if tensor is None else tensor.to(dtype)


def _apply(layer: Layer, x: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None) -> torch.Tensor:
    if layer.activates.scale is None:
        return apply_layer(layer, x, weight, bias)
    linear = replace(layer, activation="none")
    return activate(apply_layer(linear, x, weight, bias).float(), layer.activation)


def encode(
    spec: EncoderSpec, layer: str, weights: Mapping[str, torch.Tensor], images: Pixels, **options: Any
) -> NDArray[np.float32]:
    """Encode uint8 RGB (N, side, side, 3) into float32 (N, C, H, W) or (N, C); see :func:`apply_layers`."""
    with torch.inference_mode():
        x = torch.from_numpy(spec.pixels.to_network(images))
        features: NDArray[np.float32] = apply_layers(spec.up_to(layer), x, weights, **options).numpy()
        return features


@torch.no_grad()
def encode_with_module(encoder: ModuleEncoder, images: Pixels) -> NDArray[np.float32]:
    """Encode uint8 RGB (N, side, side, 3) with any PyTorch module: float32 (N, C, h, w) or (N, C)."""
    x = torch.from_numpy(encoder.preprocessing.pixels.to_network(images))
    features: NDArray[np.float32]
    features = encoder.converted_features(x, [encoder.layer])[encoder.layer].float().contiguous().numpy()
    return features


def decode(
    spec: GeneratorSpec, weights: Mapping[str, torch.Tensor], features: NDArray[np.float32], **options: Any
) -> NDArray[np.float32]:
    """Decode float32 features into the generator's output (N, 3, S, S): mean-subtracted, not rounded or clipped."""
    with torch.inference_mode():
        network: NDArray[np.float32] = apply_layers(spec.layers, torch.from_numpy(features), weights, **options).numpy()
        return network
