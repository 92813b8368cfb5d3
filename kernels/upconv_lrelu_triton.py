"""The up-convolution with bias and LeakyReLU on NVIDIA GPUs, in Triton: what ``deepsim::upconv_lrelu`` runs there.

The four outputs of a 2x2 block read the same 2x2 window of the input, so that one matrix product computes all: a row
for each window (p, q), a column for each phase (a, b) and output channel, summed over the window's taps (r, s) and the
input channels. Tap (r, s) of window (p, q) is input pixel (p - r, q - s), its kernel element (2r + a, 2s + b), and the
sum is output (2p - 1 + a, 2q - 1 + b). Bias and activation come before the only store, where PyTorch passes over the
output three times. Values have 16 bits, sums 32; memory is channels-last.

Tests run the kernels in Triton's interpreter and compile them for several GPUs; they have not run on one.
"""

# Kernels take pointers and sizes without types, and constants in capitals.
# ruff: noqa: ANN001, ANN202, N803

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

_ROWS = 64  # of pixels that a step of the backward pass takes
_MOST_PROGRAMS = 1024  # of the backward pass; each gives one row of sums
_MOST_WINDOWS = 2**31 - 1024
LAST = torch.channels_last


class Tiles(NamedTuple):
    """What a program computes, windows x columns, and channels of a step; its warps, and steps that are under way."""

    rows: int
    columns: int
    depth: int
    warps: int
    stages: int


class Machine(NamedTuple):
    """What tiles are chosen by: the compute capability's first number, and how many multiprocessors there are."""

    generation: int
    multiprocessors: int


def upconv_lrelu(x: Tensor, weight: Tensor, bias: Tensor | None, negative_slope: float, y: Tensor) -> None:
    """Fill ``y`` (N, Co, 2H, 2W) from ``x`` (N, Ci, H, W), ``weight`` (Ci, Co, 4, 4), ``bias`` (Co,).

    All are float16 or bfloat16; ``y`` is in channels-last memory, ``x`` is copied there where it is not. Channels that
    are multiples of 8 are fastest. Raises ValueError for 2^31 windows and more.
    """
    (images, inputs, height, width), outputs = x.shape, weight.shape[1]
    windows = images * (height + 1) * (width + 1)
    if windows > _MOST_WINDOWS:
        raise ValueError(f"upconv_lrelu: {windows} windows, expected fewer than {_MOST_WINDOWS}. Split the batch.")
    if y.numel() == 0:
        return
    tiles = tiles_for(inputs, outputs, windows, _machine(x.device))
    one_phase = outputs % tiles.columns == 0
    rows = images * height * width if one_phase else windows
    phases = stacked_phases(weight, tiles)
    grid = (triton.cdiv(rows, tiles.rows) * (phases.shape[2] // tiles.columns),)
    with torch.cuda.device_of(x):
        _upconv_lrelu[grid](
            x.contiguous(memory_format=LAST), phases, phases if bias is None else bias.contiguous(), y,
            rows, height, width, negative_slope,
            INPUTS=inputs, OUTPUTS=outputs, HAS_BIAS=bias is not None, ONE_PHASE=one_phase,
            ROWS=tiles.rows, COLUMNS=tiles.columns, DEPTH=tiles.depth, num_warps=tiles.warps, num_stages=tiles.stages,
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


def stacked_phases(weight: Tensor, tiles: Tiles) -> Tensor:
    """Return the kernel (Ci, Co, 4, 4) as (4, Ci, 4 Co): taps (r, s), input channels, columns (a, b, co).

    Zeros fill it up to whole steps of channels and whole tiles of columns.
    """
    inputs, outputs = weight.shape[:2]
    shape = (4, triton.cdiv(inputs, tiles.depth) * tiles.depth, triton.cdiv(4 * outputs, tiles.columns) * tiles.columns)
    filled = shape == (4, inputs, 4 * outputs)
    phases = weight.new_empty(shape) if filled else weight.new_zeros(shape)
    elements = weight.unflatten(3, (2, 2)).unflatten(2, (2, 2))  # (Ci, Co, r, a, s, b)
    to = phases[:, :inputs, : 4 * outputs].unflatten(2, (2, 2, outputs)).unflatten(0, (2, 2))  # (r, s, Ci, a, b, Co)
    to.copy_(elements.permute(2, 4, 0, 3, 5, 1))
    return phases


def tiles_for(inputs: int, outputs: int, windows: int, machine: Machine) -> Tiles:
    """Choose tiles: columns of which few are wasted, as large as leaves every multiprocessor some.

    Of whole vectors of channels, 16 bytes are loaded at a time; of others single values, which take many registers.
    """
    whole, columns = inputs % 8 == 0, 4 * outputs
    sizes = (128, 64, 32, 16) if whole else (32, 16)
    width = min(sizes, key=lambda size: (triton.cdiv(columns, size) * size, -size))
    rows = 128 if whole else 64
    if triton.cdiv(windows, rows) * triton.cdiv(columns, width) < machine.multiprocessors:
        rows, width = 64, min(width, 64)
    depth = max(16, min(64 if whole else 32, _power_of_two(inputs)))
    return Tiles(rows, width, depth, 8 if rows * width >= 128 * 128 else 4, 3 if machine.generation >= 9 else 4)


@cache
def _machine(device: torch.device) -> Machine:
    if device.type != "cuda":
        return Machine(8, 1)  # the interpreter's
    found = torch.cuda.get_device_properties(device)
    return Machine(found.major, found.multi_processor_count)


def _power_of_two(least: int) -> int:
    return 1 << max(0, least - 1).bit_length()


@triton.jit(do_not_specialize=["rows", "height", "width"])
def _upconv_lrelu(
    x, phases, bias, y, rows, height, width, slope,
    INPUTS: tl.constexpr, OUTPUTS: tl.constexpr, HAS_BIAS: tl.constexpr, ONE_PHASE: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    tiles: tl.constexpr = (4 * OUTPUTS + COLUMNS - 1) // COLUMNS
    chunks: tl.constexpr = (INPUTS + DEPTH - 1) // DEPTH
    program = tl.program_id(0)
    number = program // tiles * ROWS + tl.arange(0, ROWS)
    column = program % tiles * COLUMNS + tl.arange(0, COLUMNS)
    exists = number < rows
    if ONE_PHASE:  # then just the windows that give a pixel of this phase
        phase = program % tiles * COLUMNS // OUTPUTS
        across, lines = number % width + 1 - phase % 2, number // width
        down, image = lines % height + 1 - phase // 2, lines // height
    else:
        across, lines = number % (width + 1), number // (width + 1)
        down, image = lines % (height + 1), lines // (height + 1)
    top = image.to(tl.int64) * height  # the image's first line, of those of all

    sums = tl.zeros((ROWS, COLUMNS), tl.float32)
    for step in range(4 * chunks):
        tap = step // chunks
        channel = step % chunks * DEPTH + tl.arange(0, DEPTH)
        row, place = down - tap // 2, across - tap % 2
        inside = exists & (row >= 0) & (row < height) & (place >= 0) & (place < width)
        pixel = x + ((top + row) * width + place) * INPUTS
        left = tl.load(pixel[:, None] + channel[None, :], inside[:, None] & (channel < INPUTS)[None, :], 0.0)
        line = phases + (step * DEPTH + tl.arange(0, DEPTH)) * (tiles * COLUMNS)
        right = tl.load(line[:, None] + column[None, :])
        sums = tl.dot(left, right, sums)

    phase, output = column // OUTPUTS, column % OUTPUTS
    wanted = column < 4 * OUTPUTS
    if HAS_BIAS:
        sums += tl.load(bias + output, wanted, 0.0).to(tl.float32)[None, :]
    values = tl.where(sums > 0, sums, sums * slope).to(y.dtype.element_ty)
    y_down, y_across = 2 * down - 1, 2 * across - 1  # of phase (0, 0)
    first = y + ((2 * top + y_down) * (2 * width) + y_across) * OUTPUTS
    beside = (phase // 2).to(tl.int64) * (2 * width) * OUTPUTS + phase % 2 * OUTPUTS + output
    y_down, y_across = y_down[:, None] + (phase // 2)[None, :], y_across[:, None] + (phase % 2)[None, :]
    kept = (y_down >= 0) & (y_down < 2 * height) & (y_across >= 0) & (y_across < 2 * width)
    tl.store(first[:, None] + beside[None, :], values, kept & exists[:, None] & wanted[None, :])


@triton.jit(do_not_specialize=["rows", "each"])
def _before_activation(
    grad, output, masked, sums, rows, each, slope,
    CHANNELS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0).to(tl.int64)
    channel = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    real = channel < CHANNELS
    total = tl.zeros((COLUMNS,), tl.float32)
    for step in range(each):
        row = (program * each + step) * ROWS + tl.arange(0, ROWS)
        at = row[:, None] * CHANNELS + channel[None, :]
        there = (row < rows)[:, None] & real[None, :]
        incoming = tl.load(grad + at, there, 0.0)
        value = tl.load(output + at, there, 0.0)
        found = tl.where(value > 0, incoming.to(tl.float32), incoming.to(tl.float32) * slope)
        total += tl.sum(found, 0)
        tl.store(masked + at, found.to(masked.dtype.element_ty), there)
    tl.store(sums + program * CHANNELS + channel, total, real)
