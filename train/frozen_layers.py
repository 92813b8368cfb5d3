"""The layers of frozen networks: output and, from the output's gradient, the input's; weights get none.

Autograd would keep more and write gradients to new memory. Here an activation's gradient overwrites the one that comes
in, and local response normalisation is a product with a band matrix instead of a pooling and a power.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from deepsim.kernels.activations import refuse_activation
from deepsim.kernels.layers import LRN_ALPHA, LRN_BETA, LRN_K, LRN_SIZE, Layer, refuse_kind

Kept = tuple[Tensor, ...]  # what a layer's backward needs besides weight and input
_FEW_CHANNELS = 4  # of an input whose gradient :func:`phases_of` is for


class Weights(NamedTuple):
    """A layer's weight and bias, and for a strided convolution of pictures its weight by :func:`phases_of`."""

    weight: Tensor | None = None
    bias: Tensor | None = None
    phases: Tensor | None = None


def phases_of(layer: Layer, weight: Tensor) -> Tensor | None:
    """Return the weight by which a stride-1 convolution computes the input's gradient of a strided one.

    Pixels whose place modulo the stride s is the same make a phase: an s-th of the kernel's taps reaches them on both
    axes. One convolution gives all s^2 phases of all channels, and a pixel shuffle puts them in place. For CaffeNet's
    conv1 this takes a third of the time. None for layers that have no stride or many channels.
    """
    if layer.kind != "conv" or layer.stride == 1 or layer.groups != 1 or layer.inputs > _FEW_CHANNELS:
        return None
    stride, taps = layer.stride, math.ceil(layer.kernel / layer.stride)
    more = stride * taps - layer.kernel
    split = functional.pad(weight, (0, more, 0, more)).view(layer.outputs, -1, taps, stride, taps, stride)
    turned = split.flip((2, 4)).permute(1, 3, 5, 0, 2, 4)  # (C, s, s, outputs, taps, taps)
    return turned.reshape(-1, layer.outputs, taps, taps).contiguous(memory_format=torch.channels_last)


def forward(layer: Layer, x: Tensor, own: Weights) -> tuple[Tensor, Kept]:
    """Run one layer without its activation on a batch (N, C, H, W) or (N, C); return what backward needs too.

    Raises UnknownLayerError for a kind that is not known.
    """
    weight, bias = own.weight, own.bias
    if layer.kind == "reshape":
        return x.reshape(-1, *layer.shape).contiguous(memory_format=torch.channels_last), ()
    if layer.kind == "pool":
        y, places = torch.ops.aten.max_pool2d_with_indices(
            x, [layer.kernel] * 2, [layer.stride] * 2, [0, 0], [1, 1], layer.ceil_mode
        )
        return y, (places,)
    if layer.kind == "lrn":
        return _normalise(x)
    if layer.kind == "fc":
        return functional.linear(x.flatten(1), _present(layer, weight), bias), ()
    if layer.kind == "conv":
        y = functional.conv2d(x, _present(layer, weight), bias, layer.stride, layer.padding, groups=layer.groups)
        return y, ()
    if layer.kind == "deconv":
        y = functional.conv_transpose2d(
            x, _present(layer, weight), bias, layer.stride, layer.padding, layer.output_padding, groups=layer.groups
        )
        return y, ()
    raise refuse_kind(layer, "the frozen network")


def backward(layer: Layer, gradient: Tensor, x: Tensor, own: Weights, kept: Kept) -> Tensor:
    """Return the gradient at a layer's input ``x`` from the one at its output before the activation.

    Raises UnknownLayerError for a kind that is not known.
    """
    if layer.kind == "reshape":
        return gradient.reshape(x.shape)
    if layer.kind == "pool":
        found: Tensor = torch.ops.aten.max_pool2d_with_indices_backward(
            gradient, x, [layer.kernel] * 2, [layer.stride] * 2, [0, 0], [1, 1], layer.ceil_mode, kept[0]
        )
        return found
    if layer.kind == "lrn":
        return _normalise_backward(gradient, x, kept)
    if layer.kind == "fc":
        flat = (gradient @ _present(layer, own.weight)).reshape(x.shape)
        return flat.contiguous(memory_format=torch.channels_last) if flat.ndim == 4 else flat
    if layer.kind in ("conv", "deconv"):
        if own.phases is not None:
            return _by_phases(layer, gradient, x, own.phases)
        return _convolve_backward(layer, gradient, x, _present(layer, own.weight))
    raise refuse_kind(layer, "the frozen network")


def _convolve_backward(layer: Layer, gradient: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    found: Tensor = torch.ops.aten.convolution_backward(
        gradient,
        x,
        weight,
        None,
        [layer.stride] * 2,
        [layer.padding] * 2,
        [1, 1],
        layer.kind == "deconv",
        [layer.output_padding] * 2,
        layer.groups,
        [True, False, False],  # the input's alone
    )[0]
    return found


def _by_phases(layer: Layer, gradient: Tensor, x: Tensor, phases: Tensor) -> Tensor:
    found = functional.pixel_shuffle(functional.conv2d(gradient, phases, padding=phases.shape[-1] - 1), layer.stride)
    first, height, width = layer.padding, *x.shape[2:]
    below, right = (
        max(0, first + extent - size) for extent, size in zip((height, width), found.shape[2:], strict=True)
    )
    if below or right:  # pixels that no tap reaches
        found = functional.pad(found, (0, right, 0, below))
    return found[:, :, first : first + height, first : first + width]


def activate(layer: Layer, z: Tensor, keep: bool) -> Tensor:
    """Apply a layer's activation to its fresh linear output, in place unless ``keep``. Raises UnknownLayerError."""
    record = layer.activates
    if record.slope == 1:
        return z
    if record.slope == 0:
        return functional.relu(z, inplace=not keep)
    if record.slope is not None:
        return functional.leaky_relu(z, record.slope, inplace=not keep)
    if record.scale is not None:
        return (z.tanh() if keep else z.tanh_()) * record.scale
    raise refuse_activation(record, "the frozen network")


def activate_backward(layer: Layer, gradient: Tensor, y: Tensor) -> Tensor:
    """Overwrite the gradient at an activation's output ``y`` by the one at its input. Raises UnknownLayerError."""
    record = layer.activates
    if record.slope == 1:
        return gradient
    if record.slope == 0:
        torch.ops.aten.threshold_backward.grad_input(gradient, y, 0, grad_input=gradient)
        return gradient
    if record.slope is not None:
        torch.ops.aten.leaky_relu_backward.grad_input(gradient, y, record.slope, True, grad_input=gradient)
        return gradient
    if record.scale is not None:
        return gradient.mul_(record.scale - y.square() / record.scale)  # d(s tanh z) = s (1 - tanh^2 z)
    raise refuse_activation(record, "the frozen network")


def _present(layer: Layer, weight: Tensor | None) -> Tensor:
    if weight is None:
        raise ValueError(f"layer {layer.name}: weight missing, expected shape {layer.weight_shape}.")
    return weight


def _normalise(x: Tensor) -> tuple[Tensor, Kept]:
    """Return x / s^beta with s = k + alpha/n (sum of squares over n channels), and s and s^-beta (N, H, W, C).

    Of 16-bit maps the sums are fp32: they lie near k = 1, where bf16 resolves 1/128.
    """
    rows = wide(x.permute(0, 2, 3, 1))  # (N, H, W, C), contiguous where x is in channels-last memory
    sums = LRN_K + (LRN_ALPHA / LRN_SIZE) * (rows.square() @ _band(x.shape[1], x.device, rows.dtype))
    power = sums.pow(-LRN_BETA)
    return (rows * power).to(x.dtype).permute(0, 3, 1, 2), (sums, power)


def _normalise_backward(gradient: Tensor, x: Tensor, kept: Kept) -> Tensor:
    sums, power = kept
    rows, incoming = wide(x.permute(0, 2, 3, 1)), wide(gradient.permute(0, 2, 3, 1))
    direct = incoming * power
    crossed = (direct * rows / sums) @ _band(x.shape[1], x.device, rows.dtype)
    direct.sub_(rows * crossed, alpha=2 * LRN_ALPHA * LRN_BETA / LRN_SIZE)
    return direct.to(gradient.dtype).permute(0, 3, 1, 2)


def wide(x: Tensor) -> Tensor:
    """Return 16-bit numbers as float32, and others as they are."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


@lru_cache(maxsize=16)
def _band(channels: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return the (C, C) matrix that sums LRN_SIZE neighbouring channels."""
    places = torch.arange(channels, device=device)
    return ((places[:, None] - places[None, :]).abs() <= LRN_SIZE // 2).to(dtype)
