"""Pairs of images whose similarities were computed by other programs."""

from __future__ import annotations

import numpy as np

from tests.bundles import photographs


def pair(side: int) -> tuple[np.ndarray, np.ndarray]:
    """Return two colour images with three and with one kind of damage: float64 (2, 3, side, side), 0-255."""
    rng = np.random.default_rng(side)
    whole = np.tile(photographs(2, seed=5), (1, 2, 2, 1))[:, :side, :side].transpose(0, 3, 1, 2).astype(np.float64)
    damaged = 0.8 * whole + 20 + rng.normal(0, (12, 40), (3, side, side, 2)).transpose(3, 0, 1, 2)
    damaged[0] = (damaged[0] + np.roll(damaged[0], 3, axis=2)) / 2
    return whole, np.clip(damaged, 0, 255)
