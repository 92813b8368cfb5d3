"""Calibration images: procedural, seeded, and shaped like photographs where it matters to a network; and features.

Their spectra fall as 1/f, channels are correlated, and flat shapes give hard edges and saturated colours; so they
reach the ranges that photographs reach, and everyone who verifies an export uses the same pixels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deepsim.kernels.layers import Shape
from deepsim.runtime.pixels import Pixels

_FEATURE_SDS = (1.0, 3.0, 10.0)
_SHAPES = 6  # flat ellipses and rectangles per image


def calibration_images(count: int, side: int, seed: int = 0) -> Pixels:
    """Draw ``count`` images, uint8 RGB (count, side, side, 3); the first n of more images are the same n."""
    return np.stack([_image(np.random.default_rng((seed, index)), side) for index in range(count)])


def calibration_features(count: int, shape: Shape, rectified: bool, seed: int = 0) -> NDArray[np.float32]:
    """Draw features for a generator without its encoder: float32 (count, *shape), normal with SDs 1, 3, 10, 1, ...

    ``rectified`` sets negative values to 0, as a ReLU before them does. SDs of CaffeNet's fc layers lie in that range.
    """
    rng = np.random.default_rng(seed)
    drawn = [rng.standard_normal(shape) * _FEATURE_SDS[index % len(_FEATURE_SDS)] for index in range(count)]
    features = np.stack(drawn).astype(np.float32)
    return np.maximum(features, 0) if rectified else features


def _image(rng: np.random.Generator, side: int) -> Pixels:
    clouds = np.stack([_clouds(rng, side) for _ in range(3)], -1)
    mixing = 0.75 + 0.25 * np.eye(3)  # neighbouring channels agree, as in photographs
    values = rng.uniform(80, 150, 3) + rng.uniform(25, 60) * (clouds @ mixing)
    for _ in range(_SHAPES):
        values[_shape(rng, side)] = rng.uniform(0, 255, 3) + rng.normal(0, 4, 3)
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _clouds(rng: np.random.Generator, side: int) -> NDArray[np.float64]:
    """Draw (side, side) noise with amplitude 1/f, mean 0 and standard deviation 1."""
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(rng.standard_normal((side, side))) / frequency
    noise: NDArray[np.float64] = np.fft.irfft2(spectrum, (side, side))
    noise /= noise.std()
    return noise


def _shape(rng: np.random.Generator, side: int) -> NDArray[np.bool_]:
    """Draw the mask of an ellipse or a rectangle, (side, side)."""
    rows, columns = np.mgrid[:side, :side]
    (y, x), (height, width) = rng.uniform(0, side, 2), rng.uniform(0.03, 0.2, 2) * side
    across, down = np.abs(columns - x) / width, np.abs(rows - y) / height
    mask: NDArray[np.bool_] = across**2 + down**2 < 1 if rng.random() < 0.5 else np.maximum(across, down) < 1
    return mask
