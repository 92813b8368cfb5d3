"""How sharp pictures are: energy of their gradients, and the power spectrum, to be set against the photographs' own.

Sums over pictures are compared, not single pictures: a photograph of fog has no edges to be sharp at. Noise and
checkerboards raise both measures as edges do. Only :func:`aligned_gradient` tells the photograph's own edges from them.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from deepsim.runtime.errors import ShapeError

LUMA = (0.299, 0.587, 0.114)  # of R, G, B: ITU-R BT.601
OCTAVES = 4  # of spatial frequency, up to half a cycle per pixel
PER_OCTAVE = 4  # bands in each
BANDS = OCTAVES * PER_OCTAVE
_SMALLEST, _FEWEST_BANDS = 16, 4

Luma = NDArray[np.float32]


def luma(rgb: NDArray[np.uint8]) -> Luma:
    """Return the brightness of RGB (N, H, W, 3), float32 (N, H, W) in the same unit."""
    grey: Luma = np.asarray(rgb @ np.asarray(LUMA, np.float32), np.float32)
    return grey


def gradients(grey: Luma) -> tuple[Luma, Luma]:
    """Return the differences to the pixel below and to the right, float32 (N, H - 1, W - 1) each."""
    corner = grey[:, :-1, :-1]
    return grey[:, 1:, :-1] - corner, grey[:, :-1, 1:] - corner


def gradient_energy(grey: Luma) -> NDArray[np.float64]:
    """Return the mean squared gradient of brightness, float64 (N,), in squared grey levels per pixel.

    >>> gradient_energy(np.array([[[0, 3], [4, 0]]], np.float32))
    array([25.])
    """
    down, right = gradients(grey)
    return _mean_product(down, down) + _mean_product(right, right)


def aligned_gradient(grey: Luma, photograph: Luma) -> NDArray[np.float64]:
    """Return the mean product of both gradients, float64 (N,), in squared grey levels per pixel.

    Divided by the photograph's gradient energy it is 1 where every edge has its strength and place, and less where
    edges are weak, elsewhere, or noise: these add to the energy, but not to this.
    """
    pairs = zip(gradients(grey), gradients(photograph), strict=True)
    down, right = (_mean_product(own, theirs) for own, theirs in pairs)
    return down + right


def band_power(grey: Luma) -> NDArray[np.float64]:
    """Return the radially averaged power spectrum in bands, float64 (N, BANDS), the lowest frequencies first.

    Bands are of equal width in log frequency, four to an octave, from 1/32 to 1/2 cycle per pixel; each is the mean
    power of its frequencies, NaN where a small picture has none. The central square with the largest side that the FFT
    is fast at is taken, less its mean, under a Hann window. Raises ShapeError for sides below 16 pixels.
    """
    side = _fast_side(min(grey.shape[1:]))
    if side < _SMALLEST:
        size = f"{grey.shape[1]} x {grey.shape[2]} pixels"
        raise ShapeError(f"spectrum: {size}, expected at least {_SMALLEST} on both sides.")
    window, bands, counts = _plan(side)
    top, left = (grey.shape[1] - side) // 2, (grey.shape[2] - side) // 2
    found = np.empty((len(grey), BANDS))
    for number, image in enumerate(grey[:, top : top + side, left : left + side]):
        spectrum = torch.fft.rfft2(torch.from_numpy((image - image.mean()) * window))  # 3 times as fast as numpy's
        power = torch.view_as_real(spectrum).square().sum(-1).numpy()
        found[number] = np.bincount(bands, power.ravel(), BANDS + 1)[:BANDS]
    found /= counts
    return found


def spectrum_slope(power: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the slope of log power over log frequency of (..., BANDS), by least squares: (...,).

    About -2 to -3 for photographs; a blurred picture's is steeper, white noise has 0. Bands that are NaN in all rows do
    not count. NaN where another band has no power, and where fewer than four bands count.
    """
    known = ~np.isnan(power).reshape(-1, BANDS).all(axis=0)
    if known.sum() < _FEWEST_BANDS:
        return np.full(power.shape[:-1], np.nan)
    places = np.arange(BANDS)[known] / PER_OCTAVE * np.log(2)  # log frequency, but for a constant
    places = places - places.mean()
    with np.errstate(divide="ignore", invalid="ignore"):
        slopes: NDArray[np.float64] = np.asarray(np.dot(np.log(power[..., known]), places / (places @ places)))
    slopes[~np.isfinite(slopes)] = np.nan
    return slopes


def octaves(power: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean power of each octave of (..., BANDS), the lowest first: (..., OCTAVES); bands that are NaN do
    not count.
    """
    grouped = power.reshape(*power.shape[:-1], OCTAVES, PER_OCTAVE)
    counts = (~np.isnan(grouped)).sum(-1)
    return ratios(np.nansum(grouped, -1), counts)


def _mean_product(a: Luma, b: Luma) -> NDArray[np.float64]:
    products = np.einsum("nhw,nhw->nh", a, b)  # rows in float32, their sum in float64
    means: NDArray[np.float64] = products.sum(axis=1, dtype=np.float64) / np.prod(a.shape[1:])
    return means


def _fast_side(side: int) -> int:
    """Return the largest side up to this one without a prime factor above 5: 227 is prime, and slow.

    >>> _fast_side(227), _fast_side(224)
    (225, 216)
    """
    while True:
        rest = side
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return side
        side -= 1


@lru_cache(maxsize=8)
def _plan(side: int) -> tuple[Luma, NDArray[np.int64], NDArray[np.float64]]:
    """Return the window, the band of each frequency of rfft2 (BANDS: none), and how many frequencies a band has."""
    hann = np.hanning(side + 2)[1:-1]
    radius = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
    with np.errstate(divide="ignore"):
        bands = np.floor(PER_OCTAVE * (np.log2(radius) + OCTAVES + 1))
    numbers = np.where((bands >= 0) & (bands < BANDS), bands, BANDS).astype(np.int64).ravel()
    counts = np.bincount(numbers, minlength=BANDS + 1)[:BANDS].astype(np.float64)
    counts[counts == 0] = np.nan
    return np.outer(hann, hann).astype(np.float32), numbers, counts


def ratios(ours: NDArray[Any], theirs: NDArray[Any]) -> NDArray[np.float64]:
    """Divide where the divisor is above 0, else NaN."""
    found: NDArray[np.float64] = np.where(theirs > 0, ours / np.where(theirs > 0, theirs, 1), np.nan)
    return found
