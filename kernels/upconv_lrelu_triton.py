"""The up-convolution with bias and LeakyReLU on NVIDIA GPUs, in Triton: what ``deepsim::upconv_lrelu`` runs there.

The four outputs of a 2x2 block read the same 2x2 window of the input, so that one matrix product computes all: a row
for each window (p, q), a column for each phase (a, b) and output channel, summed over the window's taps (r, s) and the
input channels. Window (p, q) reads input pixels (p - 1 + r, q - 1 + s), phase (a, b) of it is output (2p - a, 2q - b),
and tap (r, s) takes kernel element (3 - a - 2r, 3 - b - 2s). Bias and activation come before the only store, where
PyTorch passes over the output three times. Values have 16 bits, sums 32.

Tests run the kernels in Triton's interpreter and compile them for several GPUs; they have not run on one.
"""

# Kernels take pointers and strides without types, and constants in capitals.
# ruff: noqa: ANN001, ANN202, N803

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional

_ROWS = 64  # of pixels that a step of the backward pass takes
_MOST_PROGRAMS = 1024  # of the backward pass; each gives one row of sums


def upconv_lrelu(x: Tensor, weight: Tensor, bias: Tensor | None, negative_slope: float, y: Tensor) -> None:
    """Fill ``y`` (N, Co, 2H, 2W) from ``x`` (N, Ci, H, W), ``weight`` (Ci, Co, 4, 4), ``bias`` (Co,); any strides.

    All are float16 or bfloat16. Fastest are channels-last memory and channels that are multiples of 16.
    """
    (images, inputs, height, width), outputs = x.shape, weight.shape[1]
    if y.numel() == 0:
        return
    tiles = tiles_for(inputs, outputs)
    phases = stacked_phases(weight, tiles["DEPTH"], tiles["COLUMNS"])
    windows = images * (height + 1) * (width + 1)
    grid = (triton.cdiv(windows, tiles["ROWS"]) * (phases.shape[2] // tiles["COLUMNS"]),)
    with torch.cuda.device_of(x):
        _upconv_lrelu[grid](
            x, phases, phases if bias is None else bias, y, windows, height, width,
            *x.stride(), *y.stride(), negative_slope,
            INPUTS=inputs, OUTPUTS=outputs, HAS_BIAS=bias is not None, **tiles,
        )  # fmt: skip


def before_activation(grad: Tensor, output: Tensor, negative_slope: float) -> tuple[Tensor, Tensor]:
    """Return the gradient before the activation, and its sums over images and pixels (Co,), the bias's gradient.

    ``grad`` and ``output`` are (N, Co, H, W) in channels-last memory, as the result is; output > 0 tells the side.
    """
    images, channels, height, width = output.shape
    rows = images * height * width
    steps = triton.cdiv(rows, _ROWS)
    each = triton.cdiv(steps, min(steps, _MOST_PROGRAMS)) if steps else 0  # steps of a program
    programs = triton.cdiv(steps, each) if steps else 0
    masked = torch.empty_like(output)
    sums = torch.empty(programs, channels, dtype=torch.float32, device=output.device)
    if programs:
        block = min(64, _power_of_two(channels))
        grid = (programs, triton.cdiv(channels, block))
        with torch.cuda.device_of(output):
            _before_activation[grid](
                grad, output, masked, sums, rows, each, negative_slope, CHANNELS=channels, ROWS=_ROWS, COLUMNS=block
            )
    return masked, sums.sum(0).to(output.dtype)


def stacked_phases(weight: Tensor, depth: int, columns: int) -> Tensor:
    """Return the kernel (Ci, Co, 4, 4) as (4, Ci, 4 Co): taps (r, s), input channels, columns (a, b, co).

    Zeros fill it up to multiples of ``depth`` channels and ``columns`` columns.
    """
    inputs, outputs = weight.shape[:2]
    taps = weight.flip(2, 3).reshape(inputs, outputs, 2, 2, 2, 2)  # (Ci, Co, r, a, s, b)
    phases = taps.permute(2, 4, 0, 3, 5, 1).reshape(4, inputs, 4 * outputs)
    return functional.pad(phases, (0, -4 * outputs % columns, 0, -inputs % depth)).contiguous()


def tiles_for(inputs: int, outputs: int) -> dict[str, int]:
    """Return the tile of a program, how many warps compute it, and how many steps are loaded ahead."""
    whole = inputs % 16 == 0  # so that values are loaded 16 bytes at a time
    columns = max(16, min(128, _power_of_two(4 * outputs)))
    depth = max(16, min(64 if whole else 32, _power_of_two(inputs)))
    warps = 8 if columns == 128 and whole else 4
    return {"ROWS": 128 if whole else 64, "COLUMNS": columns, "DEPTH": depth, "num_warps": warps, "num_stages": 3}


def _power_of_two(least: int) -> int:
    return 1 << max(0, least - 1).bit_length()


@triton.jit
def _upconv_lrelu(
    x, weight, bias, y, windows, height, width,
    x_image, x_channel, x_row, x_column, y_image, y_channel, y_row, y_column, slope,
    INPUTS: tl.constexpr, OUTPUTS: tl.constexpr, HAS_BIAS: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    tiles: tl.constexpr = (4 * OUTPUTS + COLUMNS - 1) // COLUMNS
    chunks: tl.constexpr = (INPUTS + DEPTH - 1) // DEPTH
    program = tl.program_id(0)
    window = program // tiles * ROWS + tl.arange(0, ROWS)
    column = program % tiles * COLUMNS + tl.arange(0, COLUMNS)
    across, lines = window % (width + 1), window // (width + 1)
    down, image = lines % (height + 1), (lines // (height + 1)).to(tl.int64)
    exists, wanted = window < windows, column < 4 * OUTPUTS

    sums = tl.zeros((ROWS, COLUMNS), tl.float32)
    for step in range(4 * chunks):
        tap = step // chunks
        channel = step % chunks * DEPTH + tl.arange(0, DEPTH)
        row, place = down - 1 + tap // 2, across - 1 + tap % 2
        inside = exists & (row >= 0) & (row < height) & (place >= 0) & (place < width)
        pixel = x + image * x_image + row * x_row + place * x_column
        left = tl.load(
            pixel[:, None] + channel[None, :] * x_channel, inside[:, None] & (channel < INPUTS)[None, :], 0.0
        )
        line = weight + (step * DEPTH + tl.arange(0, DEPTH)) * (tiles * COLUMNS)
        right = tl.load(line[:, None] + column[None, :])
        sums = tl.dot(left, right, sums)

    phase, output = column // OUTPUTS, column % OUTPUTS
    if HAS_BIAS:
        sums += tl.load(bias + output, wanted, 0.0).to(tl.float32)[None, :]
    values = tl.where(sums > 0, sums, sums * slope).to(y.dtype.element_ty)
    y_down = 2 * down[:, None] - (phase // 2)[None, :]
    y_across = 2 * across[:, None] - (phase % 2)[None, :]
    kept = (y_down >= 0) & (y_down < 2 * height) & (y_across >= 0) & (y_across < 2 * width)
    to = y + image[:, None] * y_image + y_down * y_row + y_across * y_column + output[None, :] * y_channel
    tl.store(to, values, kept & exists[:, None] & wanted[None, :])


@triton.jit
def _before_activation(
    grad, output, masked, sums, rows, each, slope,
    CHANNELS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    channel = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    real = channel < CHANNELS
    total = tl.zeros((COLUMNS,), tl.float32)
    for step in range(each):
        row = ((program * each + step) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
        at = row[:, None] * CHANNELS + channel[None, :]
        there = (row < rows)[:, None] & real[None, :]
        incoming = tl.load(grad + at, there, 0.0)
        value = tl.load(output + at, there, 0.0)
        found = tl.where(value > 0, incoming.to(tl.float32), incoming.to(tl.float32) * slope)
        total += tl.sum(found, 0)
        tl.store(masked + at, found.to(masked.dtype.element_ty), there)
    tl.store(sums + program * CHANNELS + channel, total, real)
