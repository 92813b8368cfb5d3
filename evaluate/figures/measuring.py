"""Measure pictures against photographs: the paper's errors, and how sharp they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepsim.evaluate.figures.numbers import Numbers
from deepsim.evaluate.metrics.pairwise import streamed_mean_distance
from deepsim.evaluate.metrics.sharpness import gradient_energy, luma
from deepsim.runtime.metrics import euclidean_distances
from deepsim.runtime.pixels import Pixels

_AT_ONCE = 8  # pictures that are encoded together


@dataclass(frozen=True)
class Reference:
    """Photographs (N, side, side, 3) that pictures are measured against, with N of the error and their sharpness."""

    pixels: Pixels

    def image_error(self, pictures: Pixels) -> float | None:
        """Return the mean distance of pictures, in order, to the first photographs, over N; None without N."""
        return _normalized(pictures, self.pixels)

    def sharpness(self, pictures: Pixels) -> float | None:
        """Return the gradient energy of pictures over that of photographs: as many as there are pictures, or all."""
        photographs = float(gradient_energy(luma(self.pixels)).mean())
        return float(gradient_energy(luma(pictures)).mean()) / photographs if photographs > 0 else None

    def numbers(self, pictures: Pixels, encode: Callable[[Pixels], NDArray[np.float32]] | None) -> Numbers:
        """Measure one picture of each photograph; ``encode`` gives the features that were inverted."""
        feature = None
        if encode is not None:
            wanted, reached = (_in_parts(encode, images) for images in (self.pixels, pictures))
            feature = _normalized(reached, wanted)
        return Numbers(self.image_error(pictures), feature, self.sharpness(pictures), len(pictures))


def _normalized(reached: NDArray[Any], wanted: NDArray[Any]) -> float | None:
    """Return the mean distance over N, the mean distance of different rows of ``wanted``."""
    scale = streamed_mean_distance(wanted) if len(wanted) > 1 else 0.0
    return float(euclidean_distances(reached, wanted[: len(reached)]).mean()) / scale if scale > 0 else None


def _in_parts(encode: Callable[[Pixels], NDArray[np.float32]], images: Pixels) -> NDArray[np.float32]:
    return np.concatenate([encode(images[start : start + _AT_ONCE]) for start in range(0, len(images), _AT_ONCE)])
