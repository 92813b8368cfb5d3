"""Where and how precisely an optimisation is computed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Precision = Literal["fp32", "fp64"]
_TYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "fp64": torch.float64}


@dataclass(frozen=True)
class Place:
    """A device of PyTorch ("cpu", "cuda:0") and a precision; "fp64" is for comparisons, several times slower."""

    device: str = "cpu"
    precision: Precision = "fp32"

    @property
    def dtype(self) -> torch.dtype:
        """Return PyTorch's type of the numbers."""
        return _TYPES[self.precision]

    @contextmanager
    def exactly(self) -> Iterator[None]:
        """Compute without TF32 and by deterministic convolutions: on a GPU both are switches of the whole process."""
        if self.device == "cpu":
            yield
            return
        with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
            yield

    def put(self, values: Tensor) -> Tensor:
        """Return values here; maps (N, C, H, W) in channels-last memory, which CPUs and GPUs compute fastest."""
        moved = values.detach().to(self.device, self.dtype)
        return moved.contiguous(memory_format=torch.channels_last) if moved.ndim == 4 else moved
