"""Does a reconstruction have the photograph's layout and colours? Correlations over a coarse grid tell them apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

GRID = 16  # cells along each side
CLEAR = 0.5  # a correlation from which the page says that layout or colour is there

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Coarse:
    """Pearson correlations, -1 to 1, between photographs and reconstructions over all cells of all of them.

    ``brightness`` compares the mean of the three channels within each photograph, its own average taken out;
    ``colour`` compares what the channels differ by from that mean. None where one side is constant.
    """

    brightness: float | None
    colour: float | None

    def to_json(self) -> dict[str, Any]:
        """Return both correlations as plain JSON values."""
        return dict(vars(self))


def compare_coarsely(images: Pixels, photos: Pixels) -> Coarse:
    """Correlate uint8 RGB images with photographs (N, H, W, 3), H and W at least ``GRID``, cell by cell."""
    ours, theirs = _cells(images), _cells(photos)
    grey, wanted = ours.mean(axis=-1, keepdims=True), theirs.mean(axis=-1, keepdims=True)
    within = [values - values.mean(axis=(1, 2), keepdims=True) for values in (grey, wanted)]
    colours = [values - values.mean(axis=(0, 1, 2)) for values in (ours - grey, theirs - wanted)]
    return Coarse(_correlation(*within), _correlation(*colours))


def _cells(rgb: Pixels) -> Floats:
    """Average (N, H, W, 3) over a grid of equal cells in its middle: (N, GRID, GRID, 3)."""
    count, height, width, _ = rgb.shape
    tall, wide = height // GRID, width // GRID
    top, left = (height - GRID * tall) // 2, (width - GRID * wide) // 2
    middle = rgb[:, top : top + GRID * tall, left : left + GRID * wide]
    cells = middle.reshape(count, GRID, tall, GRID, wide, 3).mean(axis=(2, 4), dtype=np.float64)
    return np.asarray(cells)


def _correlation(a: Floats, b: Floats) -> float | None:
    """Correlate centred values; below a thousandth of a grey level there is nothing to correlate."""
    norms = float(np.linalg.norm(a)), float(np.linalg.norm(b))
    if min(norms) < 1e-3:
        return None
    return float((a * b).sum() / (norms[0] * norms[1]))
