"""Priors of pixels (Mahendran & Vedaldi), with their gradients, and what keeps pixels in range and smooth."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_TRUNCATE = 4.0  # standard deviations of a Gaussian blur's kernel, as scipy.ndimage's


def total_variation(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sum of squared forward differences (beta 2) of each row of (n, 3, H, W), and its gradient.

    The last row and column are repeated, so that their differences are 0 (deep-goggle).
    """
    down, right = x.diff(dim=2), x.diff(dim=3)
    gradient = torch.zeros_like(x)
    gradient[:, :, 1:] += down
    gradient[:, :, :-1] -= down
    gradient[:, :, :, 1:] += right
    gradient[:, :, :, :-1] -= right
    return down.square().sum((1, 2, 3)) + right.square().sum((1, 2, 3)), gradient.mul_(2)


def sixth_power(x: Tensor, of_colors: bool) -> tuple[Tensor, Tensor]:
    """Return the sum of |x|^6 of each row of (n, 3, H, W), and its gradient.

    |x| is taken of each value or, with ``of_colors``, of each pixel's colour vector.
    """
    squares = x.square().sum(1, keepdim=True) if of_colors else x.square()
    return squares.pow(3).sum((1, 2, 3)), 6 * squares.square() * x


def project_colors(x: Tensor, longest: float) -> Tensor:
    """Shorten the colour vectors of (n, 3, H, W) that are longer than ``longest``."""
    norm = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    factors: Tensor = longest / norm.clamp_min(longest)
    return x * factors


def blur(x: Tensor, sigma: float) -> Tensor:
    """Blur (n, 3, H, W) by a Gaussian along both axes, as scipy.ndimage.gaussian_filter does channel by channel."""
    radius = int(_TRUNCATE * sigma + 0.5)
    places = torch.arange(-radius, radius + 1, device=x.device, dtype=torch.float64)
    kernel = torch.exp(-0.5 * (places / sigma).square())
    kernel = (kernel / kernel.sum()).to(x.dtype)
    channels = x.shape[1]
    for axis in (2, 3):
        column = kernel.view(1, 1, -1, 1) if axis == 2 else kernel.view(1, 1, 1, -1)
        x = functional.conv2d(_mirrored(x, radius, axis), column.expand(channels, -1, -1, -1), groups=channels)
    return x


def _mirrored(x: Tensor, radius: int, axis: int) -> Tensor:
    """Extend an axis by its mirror image, edge values twice (scipy's mode "reflect")."""
    extent = x.shape[axis]
    places = torch.arange(-radius, extent + radius, device=x.device) % (2 * extent)
    return x.index_select(axis, torch.minimum(places, 2 * extent - 1 - places))
