"""What is measured of pictures: columns of figures, one row for each photograph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from deepsim.evaluate.metrics.correlation import byte_distance_and_correlation
from deepsim.evaluate.metrics.sharpness import BANDS, aligned_gradient, band_power, gradient_energy, luma
from deepsim.runtime.metrics import decibels
from deepsim.runtime.pixels import Pixels
from deepsim.train.similarity import Similarity, both

_AT_ONCE = 8  # pictures whose planes nearly stay in a core's cache
_SMALLEST_SPECTRUM = 16  # pixels of a side
BAND_NAMES = tuple(f"power_{band:02d}" for band in range(BANDS))
OWN = ("gradient_energy", *BAND_NAMES)  # of a picture alone
COMPARED = ("image_distance", "psnr", "ssim", "ms_ssim", "pixel_correlation", "aligned_gradient")
LPIPS = "lpips"
Perceptual = Callable[[Pixels, Pixels], NDArray[np.float64]]


@dataclass(frozen=True)
class PictureMeasures:
    """Measures pictures of one side; ``lpips`` is None where nobody asked for it.

    SSIM and MS-SSIM are those of brightness, as Wang's code and the decoding field take them; below 161 pixels with as
    many scales as fit. Other figures are of all three channels.
    """

    side: int
    lpips: Perceptual | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """Name the columns of :meth:`compare`."""
        return (*COMPARED, *OWN, *((LPIPS,) if self.lpips else ()))

    @property
    def similarity(self) -> Similarity | None:
        """Return how structure is compared; None where the window does not fit."""
        return Similarity().at(self.side) if self.side >= Similarity().window else None

    def compare(self, pictures: Pixels, photographs: Pixels) -> NDArray[np.float64]:
        """Measure pictures (n, side, side, 3) against their photographs: float64 (n, columns)."""
        parts = range(0, len(pictures), _AT_ONCE)
        return np.concatenate(
            [self._some(pictures[at : at + _AT_ONCE], photographs[at : at + _AT_ONCE]) for at in parts]
        )

    def _some(self, pictures: Pixels, photographs: Pixels) -> NDArray[np.float64]:
        grey, wanted = luma(pictures), luma(photographs)
        distances, correlations = byte_distance_and_correlation(pictures, photographs)
        columns = [
            distances,
            decibels(distances / np.sqrt(pictures[0].size)),
            *self._similarities(grey, wanted),
            correlations,
            aligned_gradient(grey, wanted),
        ]
        given = [] if self.lpips is None else [self.lpips(pictures, photographs)]
        return np.column_stack([*columns, own_measures(grey), *given])

    @torch.no_grad()
    def _similarities(self, grey: NDArray[np.float32], wanted: NDArray[np.float32]) -> list[NDArray[np.float64]]:
        if self.similarity is None:
            return [np.full(len(grey), np.nan)] * 2
        found = both(torch.from_numpy(grey)[:, None], torch.from_numpy(wanted)[:, None], self.similarity)
        return [values.double().numpy() for values in found]


def own_measures(grey: NDArray[np.float32]) -> NDArray[np.float64]:
    """Measure the brightness (n, H, W) of pictures alone: float64 (n, OWN)."""
    small = min(grey.shape[1:]) < _SMALLEST_SPECTRUM
    powers = np.full((len(grey), BANDS), np.nan) if small else band_power(grey)
    return np.column_stack([gradient_energy(grey), powers])
