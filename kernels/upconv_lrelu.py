"""The up-convolution k4 s2 p1 with bias and LeakyReLU as one PyTorch operator, ``deepsim::upconv_lrelu``.

Importing this module registers the operator, its gradient (an operator too, ``deepsim::upconv_lrelu_backward``), their
shapes for torch.compile, and autocast. The twin is :func:`deepsim.kernels.reference.upconv_lrelu`.

The output is activated in place, and the gradient needs only the input, the weight and the output, whose sign tells on
which side of the LeakyReLU a value was. On a CPU PyTorch's transposed convolution is the fastest form unless there are
few output channels; for these the four phases are stacked into one 2x2 convolution. 16-bit values on an NVIDIA GPU of
compute capability 8.0 or later, with Triton, which PyTorch for CUDA brings: one kernel does all of it, and another the
gradient before the activation with that of the bias (upconv_lrelu_triton.py); on other GPUs PyTorch's transposed
convolution is used. ``benchmarks/upconv_lrelu.py`` times all forms. Training uses PyTorch's two operators: on a CPU one
layer of a generator gains, too little to show in a step, and the operator has not been run on a GPU.
"""

from __future__ import annotations

import importlib
import math
import warnings
from collections.abc import Sequence
from functools import cache
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from deepsim.kernels.activations import LRELU_SLOPE

FEW_CHANNELS = 4  # output channels up to which stacked phases are faster on a CPU; measured
TRITON_DTYPES = (torch.float16, torch.bfloat16)
TRITON_OLDEST = (8, 0)  # compute capability
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def upconv_lrelu(x: Tensor, weight: Tensor, bias: Tensor | None, negative_slope: float = LRELU_SLOPE) -> Tensor:
    """Apply the up-convolution k4 s2 p1, bias and LeakyReLU: (N, Ci, H, W) -> (N, Co, 2H, 2W).

    ``weight`` is (Ci, Co, 4, 4), ``bias`` (Co,) or None, ``negative_slope`` 0 or more; 1 is no activation. All have one
    dtype, float16, bfloat16, float32 or float64, and one device; under autocast they are cast to its dtype. The result
    is in channels-last memory where ``x`` or ``weight`` is, else contiguous. There is no second derivative.

    Raises ValueError for a shape, slope or device that does not fit, and TypeError for a dtype. Source: Dosovitskiy &
    Brox 2016, section 3.

    >>> upconv_lrelu(torch.ones(1, 3, 8, 8), torch.ones(3, 2, 4, 4), torch.zeros(2)).shape
    torch.Size([1, 2, 16, 16])
    """
    result: Tensor = _forward(x, weight, bias, negative_slope)
    return result


@torch.library.custom_op(
    "deepsim::upconv_lrelu",
    mutates_args=(),
    schema="(Tensor x, Tensor weight, Tensor? bias, float negative_slope) -> Tensor",
)
def _forward(x: Tensor, weight: Tensor, bias: Tensor | None, negative_slope: float) -> Tensor:
    _check(x, weight, bias, negative_slope)
    if in_triton(x):
        return fused(x, weight, bias, negative_slope)
    compute = stacked if x.device.type == "cpu" and weight.shape[1] <= FEW_CHANNELS else transposed
    return compute(x, weight, bias, negative_slope)


def in_triton(x: Tensor) -> bool:
    """Tell whether our Triton kernels are there for a tensor's device and dtype."""
    if x.device.type != "cuda" or x.dtype not in TRITON_DTYPES or torch.version.cuda is None:
        return False
    return _has_triton() and torch.cuda.get_device_capability(x.device) >= TRITON_OLDEST


@cache
def _has_triton() -> bool:
    """Tell whether Triton is there and starts, for which it needs a C compiler and a folder that it can write to."""
    try:
        _ = importlib.import_module("triton").runtime.driver.active.utils
    except ImportError:
        return False
    except Exception as error:
        line = " ".join(str(error).split())
        warnings.warn(f"upconv_lrelu: Triton does not start ({line}), PyTorch's convolution is used.", stacklevel=2)
        return False
    return True


def fused(x: Tensor, weight: Tensor, bias: Tensor | None, negative_slope: float) -> Tensor:
    """Compute the same as :func:`upconv_lrelu` by one Triton kernel, where :func:`in_triton`."""
    from deepsim.kernels import upconv_lrelu_triton

    n, _, height, width = x.shape
    y = _empty((n, weight.shape[1], 2 * height, 2 * width), x, torch.channels_last)
    upconv_lrelu_triton.upconv_lrelu(x, weight, bias, negative_slope, y)
    return y.contiguous(memory_format=_memory_format(x, weight))


def transposed(x: Tensor, weight: Tensor, bias: Tensor | None, negative_slope: float) -> Tensor:
    """Compute the same as :func:`upconv_lrelu` by PyTorch's transposed convolution."""
    y = functional.conv_transpose2d(x, weight, bias, stride=2, padding=1)
    return _activate(y.contiguous(memory_format=_memory_format(x, weight)), negative_slope)


def stacked(x: Tensor, weight: Tensor, bias: Tensor | None, negative_slope: float) -> Tensor:
    """Compute the same as :func:`upconv_lrelu` by one 2x2 convolution with 4 Co output channels.

    The four outputs of a 2x2 block read the same 2x2 window. Phase (a, b) of window (p, q) is output
    (2p - a, 2q - b); its tap (r, s) is kernel element (3 - a - 2r, 3 - b - 2s).
    """
    (n, inputs, height, width), outputs = x.shape, weight.shape[1]
    taps = weight.flip(2, 3).reshape(inputs, outputs, 2, 2, 2, 2)  # (Ci, Co, r, a, s, b)
    phases = taps.permute(3, 5, 1, 0, 2, 4).reshape(4 * outputs, inputs, 2, 2)  # (a b Co, Ci, r, s)
    sums = functional.conv2d(x, phases, None if bias is None else bias.repeat(4), padding=1)
    windows = sums.view(n, 2, 2, outputs, height + 1, width + 1)  # (N, a, b, Co, windows down, across)
    y = _empty((n, outputs, 2 * height, 2 * width), x, _memory_format(x, weight))
    for a, b in product((0, 1), (0, 1)):
        y[:, :, a::2, b::2] = windows[:, a, b, :, a : height + a, b : width + b]
    return _activate(y, negative_slope)


@_forward.register_fake
def _forward_shape(x: Tensor, weight: Tensor, bias: Tensor | None, negative_slope: float) -> Tensor:
    _check(x, weight, bias, negative_slope)
    n, _, height, width = x.shape
    return _empty((n, weight.shape[1], 2 * height, 2 * width), x, _memory_format(x, weight))


@torch.library.custom_op(
    "deepsim::upconv_lrelu_backward",
    mutates_args=(),
    schema="(Tensor grad, Tensor output, Tensor x, Tensor weight, float negative_slope, bool[] wanted) -> Tensor[]",
)
def _backward(
    grad: Tensor, output: Tensor, x: Tensor, weight: Tensor, negative_slope: float, wanted: Sequence[bool]
) -> list[Tensor]:
    """Return those of the gradients of x, weight and bias that are wanted."""
    of_bias = None
    if negative_slope != 1 and in_triton(grad) and output.is_contiguous(memory_format=torch.channels_last):
        grad, of_bias = _fused_before_activation(grad, output, negative_slope)
    elif negative_slope != 1:
        grad = torch.ops.aten.leaky_relu_backward(grad, output, negative_slope, True)
    two, one, none = [2, 2], [1, 1], [0, 0]  # stride; padding and dilation; output padding
    outputs = [weight.shape[1]]
    missing = [*wanted[:2], wanted[2] and of_bias is None]
    of_x, of_weight, summed = torch.ops.aten.convolution_backward(
        grad, x, weight, outputs, two, one, one, True, none, 1, missing
    )
    found = (of_x, of_weight, summed if of_bias is None else of_bias)
    kept = zip(found, _gradient_formats(x, weight), wanted, strict=True)
    return [each.contiguous(memory_format=memory_format) for each, memory_format, asked in kept if asked]


def _fused_before_activation(grad: Tensor, output: Tensor, negative_slope: float) -> tuple[Tensor, Tensor]:
    from deepsim.kernels import upconv_lrelu_triton

    grad = grad.contiguous(memory_format=torch.channels_last)
    return upconv_lrelu_triton.before_activation(grad, output, negative_slope)


@_backward.register_fake
def _backward_shapes(
    grad: Tensor, output: Tensor, x: Tensor, weight: Tensor, negative_slope: float, wanted: Sequence[bool]
) -> list[Tensor]:
    shapes = (x.shape, weight.shape, weight.shape[1:2])
    kept = zip(shapes, _gradient_formats(x, weight), wanted, strict=True)
    return [_empty(shape, x, memory_format) for shape, memory_format, asked in kept if asked]


def _gradient_formats(x: Tensor, weight: Tensor) -> tuple[torch.memory_format, ...]:
    return _memory_format(x, weight), _memory_format(weight), torch.contiguous_format


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, _, ctx.negative_slope = inputs
    ctx.save_for_backward(x, weight, output)


def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, weight, output = ctx.saved_tensors
    wanted = list(ctx.needs_input_grad[:3])
    found = iter(_backward(grad, output, x, weight, ctx.negative_slope, wanted))
    return (*(next(found) if asked else None for asked in wanted), None)


def _no_second_derivative(ctx: Any, grads: list[Tensor]) -> None:
    raise NotImplementedError(
        "upconv_lrelu: second derivative asked for, expected the first. Use conv_transpose2d and leaky_relu."
    )


_forward.register_autograd(_gradients, setup_context=_save)
_backward.register_autograd(_no_second_derivative)


def _autocast(device: str, x: Tensor, weight: Tensor, bias: Tensor | None, negative_slope: float) -> Tensor:
    """Cast as autocast casts for convolutions (everything but float64), then run without it."""
    dtype = torch.get_autocast_dtype(device)

    def cast(tensor: Tensor) -> Tensor:
        return tensor.to(dtype) if tensor.is_floating_point() and tensor.dtype != torch.float64 else tensor

    with torch.autocast(device, enabled=False):
        return upconv_lrelu(cast(x), cast(weight), None if bias is None else cast(bias), negative_slope)


@torch.library.impl("deepsim::upconv_lrelu", "AutocastCPU")
def _autocast_cpu(x: Tensor, weight: Tensor, bias: Tensor | None, negative_slope: float) -> Tensor:
    return _autocast("cpu", x, weight, bias, negative_slope)


@torch.library.impl("deepsim::upconv_lrelu", "AutocastCUDA")
def _autocast_cuda(x: Tensor, weight: Tensor, bias: Tensor | None, negative_slope: float) -> Tensor:
    return _autocast("cuda", x, weight, bias, negative_slope)


def _activate(fresh: Tensor, negative_slope: float) -> Tensor:
    return fresh if negative_slope == 1 else functional.leaky_relu_(fresh, negative_slope)


def _memory_format(*tensors: Tensor) -> torch.memory_format:
    channels_last = torch.channels_last
    last = any(each.is_contiguous(memory_format=channels_last) and not each.is_contiguous() for each in tensors)
    return channels_last if last else torch.contiguous_format


def _empty(shape: Sequence[int], like: Tensor, memory_format: torch.memory_format) -> Tensor:
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=memory_format)


def _check(x: Tensor, weight: Tensor, bias: Tensor | None, negative_slope: float) -> None:
    if weight.dim() != 4 or tuple(weight.shape[2:]) != (4, 4):
        raise ValueError(f"upconv_lrelu: weight of shape {tuple(weight.shape)}, expected (Ci, Co, 4, 4).")
    if x.dim() != 4 or x.shape[1] != weight.shape[0] or x.shape[2] < 1 or x.shape[3] < 1:
        wanted = f"(N, {weight.shape[0]}, H, W) for this weight"
        raise ValueError(f"upconv_lrelu: x of shape {tuple(x.shape)}, expected {wanted}. Correct one of them.")
    if bias is not None and tuple(bias.shape) != (weight.shape[1],):
        raise ValueError(f"upconv_lrelu: bias of shape {tuple(bias.shape)}, expected ({weight.shape[1]},) or None.")
    if not 0 <= negative_slope < math.inf:
        raise ValueError(f"upconv_lrelu: negative_slope {negative_slope}, expected 0 or more.")
    tensors = [each for each in (x, weight, bias) if each is not None]
    if x.dtype not in _DTYPES or any(each.dtype != x.dtype for each in tensors):
        found, known = (", ".join(map(str, each)) for each in ([each.dtype for each in tensors], _DTYPES))
        raise TypeError(f"upconv_lrelu: dtypes {found}, expected one of {known} for all.")
    if any(each.device != x.device for each in tensors):
        found = ", ".join(str(each.device) for each in tensors)
        raise ValueError(f"upconv_lrelu: tensors on {found}, expected one device. Move them to the same.")
