"""Images that need no features, to compare reconstructions with: a reconstruction has to beat all of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepsim.evaluate.metrics.drift import own_colours
from deepsim.runtime.metrics import euclidean_distances, mean_pairwise_distance, psnr

BLUR_SIGMA = 8.0  # pixels

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class ImageError:
    """How far one way of guessing the photographs is from them.

    ``distance`` is the mean over photographs of the Euclidean distance of side x side x 3 grey levels; ``rmse`` is the
    same per value, in grey levels; ``psnr`` is the mean in decibels, infinite for equal images; ``normalized`` is
    ``distance`` over the mean distance between different photographs, a fraction, None with fewer than two photographs
    or all of them equal; ``margin`` is 1 - (error of the reconstruction) / (this error), a fraction, None for the
    reconstruction itself.
    """

    name: str
    distance: float
    rmse: float
    psnr: float
    normalized: float | None
    margin: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the figures as plain JSON values."""
        return {**vars(self), "psnr": self.psnr if math.isfinite(self.psnr) else None}


def pixelwise_mean(photos: Pixels) -> Pixels:
    """Return the one image (H, W, 3) with the least summed squared error over the photographs (N, H, W, 3)."""
    mean: Pixels = np.rint(photos.mean(axis=0, dtype=np.float64)).astype(np.uint8)
    return mean


def gaussian_blur(image: Pixels, sigma: float = BLUR_SIGMA) -> Pixels:
    """Blur an image (H, W, 3) with a Gaussian of ``sigma`` pixels, cut at 4 sigma, the border mirrored."""
    radius = math.ceil(4 * sigma)
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    values = image.astype(np.float64)
    for axis in (0, 1):
        values = _filter(values, kernel, axis)
    return np.rint(values).astype(np.uint8)


def mean_oracle(photos: Pixels, sigma: float = BLUR_SIGMA) -> Pixels:
    """Return the best constant image, blurred: the photographs' own pixelwise mean under a Gaussian of ``sigma``.

    It has seen the very photographs it is compared with, so with few of them it is hard to beat.
    """
    return gaussian_blur(pixelwise_mean(photos), sigma)


def image_error(name: str, images: Pixels, photos: Pixels, rival: ImageError | None = None) -> ImageError:
    """Measure images (N, H, W, 3), or one image (H, W, 3) for all, against the photographs (N, H, W, 3).

    ``rival`` is the reconstruction's error, from which the margin over these images is computed.
    """
    images = np.broadcast_to(images, photos.shape)
    distance = float(euclidean_distances(images, photos).mean())
    scale = mean_pairwise_distance(photos) if len(photos) > 1 else 0.0
    return ImageError(
        name,
        distance,
        rmse=distance / math.sqrt(math.prod(photos.shape[1:])),
        psnr=float(psnr(images, photos).mean()),
        normalized=distance / scale if scale else None,
        margin=None if rival is None or distance == 0 else 1 - rival.distance / distance,
    )


def baseline_images(photos: Pixels, training_mean: Pixels | None) -> dict[str, Pixels]:
    """Return every baseline by name: one image (H, W, 3) for all photographs, or one for each (N, H, W, 3).

    ``training_mean`` is the mean of the training crops (side, side, 3), None where it is not known.
    """
    images = {"the mean training image": training_mean} if training_mean is not None else {}
    return {
        **images,
        "the blurred best constant image": mean_oracle(photos),
        "each photograph\u2019s own mean colour": own_colours(photos),
    }


def _filter(values: NDArray[np.float64], kernel: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    radius, size = len(kernel) // 2, values.shape[axis]
    pads = [(radius, radius) if index == axis else (0, 0) for index in range(values.ndim)]
    padded = np.pad(values, pads, mode="symmetric")
    total = np.zeros_like(values)
    for offset, weight in enumerate(kernel):
        total += weight * padded.take(range(offset, offset + size), axis=axis)
    return total
