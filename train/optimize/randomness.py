"""Random numbers of a target, a start and an iteration: the same alone, in any batch, and after a resume."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from deepsim.kernels.layers import Shape
from deepsim.train.optimize.settings import Start

_BEGIN, _DISTURBANCE, _NOISE, _JITTER = range(4)  # what numbers are drawn for
WIDEST = 0.95  # the quantile that start "uniform" scales


@dataclass(frozen=True)
class Stream:
    """The random numbers of one start of one target: by its name, so that a target alone begins as in any batch."""

    seed: int
    name: str
    start: int

    def start_at(self, how: Start, scale: float, shape: Shape) -> Tensor:
        """Draw what the variable begins with, float32 of ``shape``.

        "normal" has the standard deviation ``scale``, "norm" the norm ``scale``, "uniform" that 95 % quantile of |x|.
        """
        rng = self._rng(_BEGIN, 0)
        if how == "zero":
            return torch.zeros(shape)
        if how == "uniform":
            drawn = rng.uniform(-1, 1, shape)
            return _float32(drawn * (scale / np.quantile(np.abs(drawn), WIDEST)))
        drawn = rng.standard_normal(shape)
        return _float32(drawn * (scale / np.linalg.norm(drawn) if how == "norm" else scale))

    def disturbance(self, iteration: int, shape: Shape) -> Tensor:
        """Draw standard normal noise for a variable before it is looked at."""
        return _float32(self._rng(_DISTURBANCE, iteration).standard_normal(shape))

    def noise(self, iteration: int, shape: Shape) -> Tensor:
        """Draw standard normal noise for a step."""
        return _float32(self._rng(_NOISE, iteration).standard_normal(shape))

    def shift(self, iteration: int, most: int) -> tuple[int, int]:
        """Draw how many pixels a picture is shifted, from -most to most on both axes."""
        down, right = self._rng(_JITTER, iteration).integers(-most, most + 1, 2)
        return int(down), int(right)

    def _rng(self, purpose: int, iteration: int) -> np.random.Generator:
        key = hashlib.sha256(f"{self.seed}/{self.start}/{self.name}".encode(errors="surrogateescape")).digest()[:16]
        counter = np.array([0, 0, purpose, iteration], np.uint64)
        return np.random.Generator(np.random.Philox(counter=counter, key=np.frombuffer(key, np.uint64)))


def _float32(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Tensor:
    return torch.from_numpy(values.astype(np.float32))
