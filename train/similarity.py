"""Structural similarity in PyTorch, of one scale (SSIM) and of several (MS-SSIM), with gradients: a measure and a loss.

Wang, Bovik, Sheikh & Simoncelli 2004 (SSIM) and Wang, Simoncelli & Bovik 2003 (MS-SSIM), with their constants: an 11x11
Gaussian window of SD 1.5 that sums to 1, moved over the valid part alone; K1 0.01, K2 0.03; five weights. Between
scales 2x2 pixels are averaged and every second one is kept, borders mirrored, so that n pixels become ceil(n/2), as in
their MATLAB code. Channels are measured on their own: scales are multiplied within a channel, then channels are
averaged.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor
from torch.nn import functional

from deepsim.runtime.errors import DtypeError, ShapeError, UsageError
from deepsim.runtime.pixels import Pixels

WANG_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # exponents of the scales, the finest first
Negative: TypeAlias = Literal["clamp", "signed", "keep"]


@dataclass(frozen=True)
class Similarity:
    """How images are compared. ``peak`` is the range of their values (255 for grey levels).

    ``weights`` are the exponents of the scales, the finest first. ``window`` (odd) and ``sigma`` are the Gaussian's
    extent and SD in pixels. ``negative`` says what a scale's mean becomes that is below 0, as of an inverted picture,
    where a fractional power has no real value: "clamp" makes it 0, as all packages do, and then the whole channel has
    neither a value nor a gradient; "signed" takes the power of its absolute value and keeps the sign, so that a loss
    can leave such a place; "keep" leaves it alone, which needs exponents of 1.

    Raises UsageError for values out of range.

    >>> Similarity(weights=(1.0, 1.0, 1.0), negative="keep").scales
    3
    """

    weights: tuple[float, ...] = WANG_WEIGHTS
    window: int = 11
    sigma: float = 1.5
    k1: float = 0.01
    k2: float = 0.03
    peak: float = 255.0
    negative: Negative = "clamp"

    def __post_init__(self) -> None:
        if not self.weights or not all(math.isfinite(weight) and weight >= 0 for weight in self.weights):
            raise UsageError(f"weights {self.weights}: expected one or several numbers from 0.")
        if self.window < 1 or self.window % 2 == 0:
            raise UsageError(f"window {self.window}: expected an odd number of pixels.")
        if self.sigma <= 0 or self.peak <= 0:
            raise UsageError(f"sigma {self.sigma}, peak {self.peak}: expected numbers above 0.")
        if self.negative not in get_args(Negative):
            raise UsageError(f"negative {self.negative!r}: expected one of {', '.join(get_args(Negative))}.")
        if self.negative == "keep" and set(self.weights) != {1.0}:
            raise UsageError(f'negative "keep": weights {self.weights}, expected exponents of 1.')

    @property
    def scales(self) -> int:
        """Return how many scales are compared."""
        return len(self.weights)

    @property
    def smallest_side(self) -> int:
        """Return the least side in pixels at which the window fits into the coarsest scale.

        >>> Similarity().smallest_side
        161
        """
        return ((self.window - 1) << (self.scales - 1)) + 1

    def at(self, side: int) -> Similarity:
        """Return the same with as many scales as fit into a side, their weights divided by their sum.

        The result differs from that of five scales: figures of pictures of other sizes do not compare. Raises
        ShapeError where the window does not fit at all.

        >>> Similarity().at(96).scales, Similarity().at(227) == Similarity()
        (4, True)
        """
        if side < self.window:
            raise ShapeError(f"side {side}: smaller than the window, {self.window} pixels.")
        fitting, whole = self, self.scales
        while fitting.smallest_side > side:
            fitting = replace(fitting, weights=fitting.weights[:-1])
        if fitting.scales == whole or set(self.weights) == {1.0}:
            return fitting
        total = sum(fitting.weights)
        return replace(fitting, weights=tuple(weight / total for weight in fitting.weights))


def ssim(x: Tensor, y: Tensor, how: Similarity | None = None) -> Tensor:
    """Return the mean SSIM of each pair of images: (N,), at most 1, which equal images have.

    ``x`` and ``y`` are floating-point (N, C, H, W) in one range. Raises ShapeError, DtypeError.

    >>> x = torch.rand(2, 3, 32, 32) * 255
    >>> ssim(x, x)
    tensor([1., 1.])
    """
    how = how or Similarity()
    _check(x, y, how.window)
    whole, _ = _compare(x, y, how)
    return whole.mean(1)


def ms_ssim(x: Tensor, y: Tensor, how: Similarity | None = None) -> Tensor:
    """Return the multi-scale SSIM of each pair of images, (N,): the product of the scales, averaged over channels.

    Contrast and structure count at every scale, luminance at the coarsest alone; each scale's mean over its places has
    its weight as exponent. ``x`` and ``y`` are floating-point (N, C, H, W) in one range, of at least
    ``how.smallest_side`` pixels (:meth:`Similarity.at` leaves out scales). Raises ShapeError, DtypeError.

    >>> x = torch.rand(1, 3, 161, 161) * 255
    >>> ms_ssim(x, x)
    tensor([1.])
    """
    return both(x, y, how)[1]


def both(x: Tensor, y: Tensor, how: Similarity | None = None) -> tuple[Tensor, Tensor]:
    """Return (SSIM, MS-SSIM) of each pair of images, in the time of the second: they share the finest scale."""
    how = how or Similarity()
    _check(x, y, how.smallest_side)
    product, finest = None, None
    for scale, weight in enumerate(how.weights):
        if scale:
            x, y = halve(x), halve(y)
        whole, contrast = _compare(x, y, how)
        finest = whole if finest is None else finest
        factor = _power(whole if scale == how.scales - 1 else contrast, weight, how.negative)  # (N, C)
        product = factor if product is None else product * factor
    assert product is not None and finest is not None, "one scale or several"
    return finest.mean(1), product.mean(1)


def halve(x: Tensor) -> Tensor:
    """Average 2x2 pixels and keep every second one: (N, C, H, W) -> (N, C, ceil(H/2), ceil(W/2)).

    Where a side is odd, the last pixels are averaged with their mirror images, which are themselves.
    """
    height, width = x.shape[-2:]
    if height % 2 or width % 2:
        x = functional.pad(x, (0, width % 2, 0, height % 2), mode="replicate")
    return functional.avg_pool2d(x, 2)


def _compare(x: Tensor, y: Tensor, how: Similarity) -> tuple[Tensor, Tensor]:
    """Return the means over all places of SSIM, and of its contrast and structure alone: (N, C) each."""
    contrast, luminance = _maps(x, y, how)
    return (luminance * contrast).mean((-2, -1)), contrast.mean((-2, -1))


def _maps(x: Tensor, y: Tensor, how: Similarity) -> tuple[Tensor, Tensor]:
    """Return contrast and structure, and luminance, at each place: (N, C, h, w) each.

    They are written in the sum s and the difference d of both images, which takes half as many passes over memory:
    with variances V, (2 cov(x, y) + C2) / (V(x) + V(y) + C2) is (V(s) - V(d) + 2 C2) / (V(s) + V(d) + 2 C2), and
    likewise for luminance. Variances do not depend on the middle of the range, and lose fewer digits around it.
    """
    total, difference = (x + y).sub_(how.peak), x - y
    averaged = _windowed(torch.cat([total, difference, total.square(), difference.square()], 1), how)  # (N, 4 C, h, w)
    mean_s, mean_d, squares_s, squares_d = averaged.chunk(4, 1)
    c1, c2 = (how.k1 * how.peak) ** 2, (how.k2 * how.peak) ** 2
    of_s = torch.addcmul(squares_s, mean_s, mean_s, value=-1).add_(2 * c2)
    of_d = torch.addcmul(squares_d, mean_d, mean_d, value=-1)
    bright, apart = (mean_s + how.peak).square_().add_(2 * c1), mean_d.square()
    return (of_s - of_d) / (of_s + of_d), (bright - apart) / (bright + apart)


def _windowed(x: Tensor, how: Similarity) -> Tensor:
    """Average (N, C, H, W) in the Gaussian window, where it lies inside: (N, C, H - window + 1, W - window + 1).

    All planes are channels of one image, each with a kernel of its own: from 16 planes on, a CPU convolves those seven
    times as fast as single planes.
    """
    kernel, planes = torch.tensor(_gaussian(how.window, how.sigma), dtype=x.dtype, device=x.device), len(x) * x.shape[1]
    found = x.reshape(1, planes, *x.shape[2:])
    for shape in ((1, 1, -1, 1), (1, 1, 1, -1)):
        found = functional.conv2d(found, kernel.view(shape).expand(planes, -1, -1, -1), groups=planes)
    return found.view(*x.shape[:2], *found.shape[2:])


@lru_cache(maxsize=8)
def _gaussian(window: int, sigma: float) -> tuple[float, ...]:
    values = [math.exp(-((place - window // 2) ** 2) / (2 * sigma**2)) for place in range(window)]
    return tuple(value / sum(values) for value in values)


def _power(means: Tensor, weight: float, negative: Negative) -> Tensor:
    """Raise means to a power; where a mean is 0 or clamped to it, its gradient is 0 and not NaN."""
    if negative == "keep" or weight == 0:
        return means if weight else torch.ones_like(means)
    usable = means > 0 if negative == "clamp" else means != 0
    powers = torch.where(usable, means, 1.0).abs().pow(weight)
    return torch.where(usable, powers * torch.sign(means.detach()), 0.0)


def _check(x: Tensor, y: Tensor, smallest: int) -> None:
    if x.shape != y.shape or x.ndim != 4:
        raise ShapeError(f"similarity: shapes {tuple(x.shape)} and {tuple(y.shape)}, expected the same (N, C, H, W).")
    if not x.is_floating_point() or x.dtype != y.dtype:
        raise DtypeError(f"similarity: {x.dtype} and {y.dtype}, expected one floating-point type. Convert them first.")
    if min(x.shape[-2:]) < smallest:
        raise ShapeError(f"similarity: {x.shape[-2]} x {x.shape[-1]} pixels, expected at least {smallest}.")


def as_images(rgb: Pixels) -> Tensor:
    """Return uint8 RGB (N, H, W, 3) as float32 (N, 3, H, W) in grey levels, for :func:`ssim` and :func:`ms_ssim`."""
    return torch.as_tensor(rgb).permute(0, 3, 1, 2).float()
