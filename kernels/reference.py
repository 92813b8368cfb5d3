"""Readable numpy twins of every layer: slow, in the input's precision (use float64), written from the definitions.

They are what the other implementations (PyTorch, ONNX, native and CUDA kernels) are tested against. All tensors are
batches in NCHW order (feature vectors: (N, C)); nothing is modified in place.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deepsim.kernels.activations import LRELU_SLOPE, activation, refuse_activation
from deepsim.kernels.layers import LRN_ALPHA, LRN_BETA, LRN_K, LRN_SIZE, Layer, refuse_kind

Array = NDArray[np.floating]
Weights = dict[str, Array]


def leaky_relu(x: Array, slope: float = LRELU_SLOPE) -> Array:
    """Return max(x, 0) + slope min(x, 0), any shape (Dosovitskiy & Brox 2016, section 4).

    >>> leaky_relu(np.array([-1.0, 2.0]))
    array([-0.3,  2. ])
    """
    return np.maximum(x, 0) + slope * np.minimum(x, 0)


def fully_connected(x: Array, weight: Array, bias: Array) -> Array:
    """Return W x + b: x (N, ...) flattened to (N, in), weight (out, in), bias (out,); result (N, out)."""
    return x.reshape(len(x), -1) @ weight.T + bias


def convolve(x: Array, weight: Array, bias: Array, stride: int = 1, padding: int = 0, groups: int = 1) -> Array:
    """Cross-correlate x (N, C, H, W) with weight (out, C/groups, k, k), zero padding on all four sides."""
    kernel = weight.shape[-1]
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (kernel, kernel), axis=(2, 3))
    windows = windows[:, :, ::stride, ::stride]  # (N, C, H', W', k, k)
    outputs = [
        np.einsum("nchwij,ocij->nohw", part, kernel_part, optimize=True)
        for part, kernel_part in zip(np.split(windows, groups, 1), np.split(weight, groups), strict=True)
    ]
    return np.concatenate(outputs, axis=1) + bias[:, None, None]


def bed_of_nails(x: Array, stride: int) -> Array:
    """Insert stride - 1 zeros between neighbouring pixels: (N, C, H, W) -> (N, C, (H-1) stride + 1, ...).

    >>> bed_of_nails(np.array([[[[1, 2]]]]), 2)
    array([[[[1, 0, 2]]]])
    """
    n, c, h, w = x.shape
    spread = np.zeros((n, c, (h - 1) * stride + 1, (w - 1) * stride + 1), x.dtype)
    spread[:, :, ::stride, ::stride] = x
    return spread


def upconvolve(
    x: Array, weight: Array, bias: Array, stride: int = 2, padding: int = 1, groups: int = 1, output_padding: int = 0
) -> Array:
    """Apply the transposed convolution as the paper describes it: bed-of-nails upsampling, then a convolution.

    x (N, in, H, W), weight (in, out/groups, k, k) as in Caffe Deconvolution and ConvTranspose2d; result
    (N, out, (H-1) stride - 2 padding + k + output_padding, ...). Source: Dosovitskiy & Brox 2016, section 3.
    """
    parts = [part.transpose(1, 0, 2, 3) for part in np.split(weight, groups)]  # (out/groups, in/groups, k, k) each
    flipped = np.concatenate(parts)[:, :, ::-1, ::-1]  # (out, in/groups, k, k)
    spread = np.pad(bed_of_nails(x, stride), ((0, 0), (0, 0), (0, output_padding), (0, output_padding)))
    return convolve(spread, flipped, bias, padding=weight.shape[-1] - 1 - padding, groups=groups)


def upconv_lrelu(x: Array, weight: Array, bias: Array) -> Array:
    """Apply the up-convolution k4 s2 p1, bias and LeakyReLU(0.3): (N, in, H, W) -> (N, out, 2H, 2W).

    >>> upconv_lrelu(np.ones((1, 3, 8, 8)), np.ones((3, 2, 4, 4)), np.zeros(2)).shape
    (1, 2, 16, 16)
    """
    return leaky_relu(upconvolve(x, weight, bias))


def max_pool(x: Array, kernel: int, stride: int, ceil_mode: bool) -> Array:
    """Take window maxima of (N, C, H, W) without padding; ``ceil_mode`` keeps a last, partial window (Caffe)."""
    layer = Layer("pool", "pool", kernel=kernel, stride=stride, ceil_mode=ceil_mode)
    _, height, width = layer.output_shape(x.shape[1:])
    rows = [slice(i * stride, i * stride + kernel) for i in range(height)]
    columns = [slice(j * stride, j * stride + kernel) for j in range(width)]
    return np.stack([np.stack([x[:, :, r, c].max((2, 3)) for c in columns], -1) for r in rows], -2)


def local_response_norm(x: Array) -> Array:
    """Divide by (k + alpha/n sum of squares over n neighbouring channels)^beta (Krizhevsky et al. 2012, 3.3).

    x (N, C, H, W); n = 5, alpha = 1e-4 divided by n as Caffe and PyTorch have it, beta = 0.75, k = 1.
    """
    half = LRN_SIZE // 2
    squares = np.pad(x * x, ((0, 0), (half, half), (0, 0), (0, 0)))
    sums = sum(squares[:, i : i + x.shape[1]] for i in range(LRN_SIZE))
    return x / (LRN_K + LRN_ALPHA / LRN_SIZE * sums) ** LRN_BETA


def activate(x: Array, name: str) -> Array:
    """Apply an activation by its name in :data:`deepsim.kernels.activations.ACTIVATIONS`.

    Raises UnknownLayerError for a name or a form that is not known.
    """
    record = activation(name)
    if record.slope is not None:
        return x if record.slope == 1 else leaky_relu(x, record.slope)
    if record.scale is not None:
        return record.scale * np.tanh(x)
    raise refuse_activation(record, "the numpy reference")


def apply_layer(layer: Layer, x: Array, weights: Weights) -> Array:
    """Run one layer, its activation included; weights are ``<layer.name>.weight`` and ``<layer.name>.bias``.

    Raises UnknownLayerError for a kind or an activation that is not known.
    """
    return activate(_linear(layer, x, weights), layer.activation)


def _linear(layer: Layer, x: Array, weights: Weights) -> Array:
    if layer.kind == "reshape":
        return x.reshape(len(x), *layer.shape)
    if layer.kind == "pool":
        return max_pool(x, layer.kernel, layer.stride, layer.ceil_mode)
    if layer.kind == "lrn":
        return local_response_norm(x)
    if layer.kind not in ("fc", "conv", "deconv"):
        raise refuse_kind(layer, "the numpy reference")
    weight, bias = weights[f"{layer.name}.weight"], weights[f"{layer.name}.bias"]
    if layer.kind == "fc":
        return fully_connected(x, weight, bias)
    if layer.kind == "conv":
        return convolve(x, weight, bias, layer.stride, layer.padding, layer.groups)
    return upconvolve(x, weight, bias, layer.stride, layer.padding, layer.groups, layer.output_padding)


def apply_layers(layers: tuple[Layer, ...], x: Array, weights: Weights) -> Array:
    """Run a whole network: x (N, C, H, W) or (N, C) in the first layer's convention; returns the last output."""
    for layer in layers:
        x = apply_layer(layer, x, weights)
    return x
