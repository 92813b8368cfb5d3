"""Which precision a run computes its networks in, where it asks for "auto": bf16 where that is faster here."""

from __future__ import annotations

import time
from dataclasses import replace

import torch
from torch.nn import functional

from deepsim.train.config import TrainConfig
from deepsim.train.distributed import World

_GAIN = 0.8  # of fp32's time: where bf16 saves less, its rounding is not worth it
_REPEATS = 3


def resolved(config: TrainConfig, device: torch.device, world: World) -> TrainConfig:
    """Return the settings with a precision that says what is computed: "auto" becomes bf16 or fp32.

    On a GPU bf16 is taken where the GPU has it. On a CPU a convolution is timed in both, since of processors with
    instructions for bf16 some are many times faster with it, and those without are slower. All processes agree.
    """
    if config.precision != "auto":
        return config
    if device.type == "cuda":
        faster = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        faster = _seconds(torch.bfloat16) < _GAIN * _seconds(torch.float32)
    agreed = bool(world.mean(torch.tensor(float(faster), device=device)) > 0.5)
    return replace(config, precision="bf16" if agreed else "fp32")


def _seconds(dtype: torch.dtype) -> float:
    """Time a 3x3 convolution and its gradients as generators have them, the best of a few."""
    x = torch.randn(4, 64, 56, 56).to(dtype, memory_format=torch.channels_last).requires_grad_()
    weight = torch.randn(64, 64, 3, 3).to(dtype, memory_format=torch.channels_last).requires_grad_()
    times = []
    for _ in range(1 + _REPEATS):
        began = time.perf_counter()
        torch.autograd.backward(functional.conv2d(x, weight, padding=1).sum())
        times.append(time.perf_counter() - began)
    return min(times[1:])
