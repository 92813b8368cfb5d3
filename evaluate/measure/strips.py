"""Strips of pictures as in the paper: re-encoding (Fig. 5) with its drift in figures, and interpolation (Fig. 7)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from deepsim.evaluate.metrics.drift import Reencoding, own_colours
from deepsim.evaluate.metrics.sharpness import gradient_energy, luma
from deepsim.runtime.images import save_png
from deepsim.runtime.inverter import Inverter
from deepsim.runtime.metrics import rmse
from deepsim.runtime.pixels import Pixels

_BYTES = 256 << 20  # of iterates in memory at a time
_GAP = 4  # white pixels between pictures


@dataclass(frozen=True)
class Drift:
    """Means over photographs at each iteration, from 1 on; ``sharpness`` is the gradient energy over the photographs'.

    ``loop`` has the errors and steps in grey levels RMSE, and the verdict.
    """

    photographs: int
    loop: Reencoding
    sharpness: tuple[float | None, ...]

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain JSON values."""
        return {"photographs": self.photographs, **self.loop.to_json(), "sharpness": list(self.sharpness)}

    def lines(self) -> list[tuple[int, float, float | None, float | None]]:
        """Return (iteration, error, step from the one before, sharpness) for each."""
        steps = (None, *self.loop.steps)
        counted = zip(self.loop.errors, steps, self.sharpness, strict=True)
        return [(number, *values) for number, values in enumerate(counted, 1)]


def drift(inverter: Inverter, photographs: Pixels, iterations: int) -> Drift:
    """Re-encode photographs (N, side, side, 3) ``iterations`` times, two or more, and follow the figures."""
    size = max(1, _BYTES // (iterations * photographs[0].nbytes))
    sums = np.zeros((3, iterations))  # of errors, steps and gradient energy
    keep = tuple(range(1, iterations + 1))
    with tqdm(total=len(photographs), desc="re-encoding", unit="image", disable=None) as bar:
        for start in range(0, len(photographs), size):
            part = photographs[start : start + size]
            sums += _followed(part, inverter.reencode(part, iterations, keep))
            bar.update(len(part))
    errors, steps, energies = sums / len(photographs)
    plain = float(rmse(own_colours(photographs), photographs).mean())
    own = float(gradient_energy(luma(photographs)).mean())
    sharp = tuple(float(energy) / own if own > 0 else None for energy in energies)
    loop = Reencoding(tuple(map(float, errors)), tuple(map(float, steps[1:])), plain)
    return Drift(len(photographs), loop, sharp)


def _followed(photographs: Pixels, iterates: Pixels) -> NDArray[np.float64]:
    """Return the sums over photographs of error, step and gradient energy at each iteration: float64 (3, K)."""
    found, before = np.zeros((3, iterates.shape[1])), photographs
    for k in range(iterates.shape[1]):
        now = np.ascontiguousarray(iterates[:, k])
        found[:, k] = rmse(now, photographs).sum(), rmse(now, before).sum(), gradient_energy(luma(now)).sum()
        before = now
    return found


def kept_iterations(iterations: int) -> tuple[int, ...]:
    """Return the iterations that a strip shows: powers of two, and the last.

    >>> kept_iterations(8), kept_iterations(100)
    ((1, 2, 4, 8), (1, 2, 4, 8, 16, 32, 64, 100))
    """
    powers = [1 << place for place in range(iterations.bit_length())]
    return tuple(powers if powers[-1] == iterations else [*powers, iterations])


def draw_reencoding(inverter: Inverter, photographs: Pixels, iterations: int, path: Path) -> None:
    """Write a picture with a row for each photograph: itself, then iterations 1, 2, 4, 8 and on."""
    iterates = inverter.reencode(photographs, iterations, kept_iterations(iterations))
    save_png(mosaic(np.concatenate([photographs[:, None], iterates], axis=1)), path)


def draw_interpolation(inverter: Inverter, photographs: Pixels, steps: int, path: Path) -> None:
    """Write a picture with a row for each pair of neighbours: features from one to the other, decoded."""
    pairs = pairwise(photographs)
    save_png(mosaic(np.stack([inverter.interpolate(a, b, steps) for a, b in pairs])), path)


def mosaic(pictures: Pixels) -> Pixels:
    """Put pictures (rows, columns, side, side, 3) into one, with white between them.

    >>> mosaic(np.zeros((2, 3, 5, 5, 3), np.uint8)).shape
    (14, 23, 3)
    """
    rows, columns, height, width, _ = pictures.shape
    whole = np.full((rows * (height + _GAP) - _GAP, columns * (width + _GAP) - _GAP, 3), 255, np.uint8)
    for row in range(rows):
        for column in range(columns):
            top, left = row * (height + _GAP), column * (width + _GAP)
            whole[top : top + height, left : left + width] = pictures[row, column]
    return whole
