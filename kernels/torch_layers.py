"""The layers in PyTorch: the twin of ``reference.py`` that trains, and the reference backend of the runtime."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from deepsim.kernels.layers import LRELU_SLOPE, LRN_ALPHA, LRN_BETA, LRN_K, LRN_SIZE, Layer


def activate(x: Tensor, activation: str) -> Tensor:
    """Apply a layer's activation to its fresh output (rectifiers work in place)."""
    if activation == "relu":
        return functional.relu(x, inplace=True)
    if activation == "lrelu":
        return functional.leaky_relu(x, LRELU_SLOPE, inplace=True)
    if activation == "tanh255":
        return 255 * x.tanh()
    return x


def apply_layer(layer: Layer, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """Run one layer on a batch (N, C, H, W) or (N, C); weight and bias are None for layers without weights."""
    if layer.kind == "reshape":
        return x.reshape(-1, *layer.shape)
    if layer.kind == "pool":
        return functional.max_pool2d(x, layer.kernel, layer.stride, ceil_mode=layer.ceil_mode)
    if layer.kind == "lrn":
        return functional.local_response_norm(x, LRN_SIZE, LRN_ALPHA, LRN_BETA, LRN_K)
    if weight is None:
        raise ValueError(f"layer {layer.name}: weight missing, expected shape {layer.weight_shape}.")
    if layer.kind == "fc":
        x = functional.linear(x.flatten(1), weight, bias)
    elif layer.kind == "conv":
        x = functional.conv2d(x, weight, bias, layer.stride, layer.padding, groups=layer.groups)
    else:
        x = functional.conv_transpose2d(x, weight, bias, layer.stride, layer.padding, groups=layer.groups)
    return activate(x, layer.activation)
