"""From columns of figures, a row for each photograph, to figures with intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepsim.evaluate.measure.pictures import BAND_NAMES, LPIPS
from deepsim.evaluate.measure.spaces import Space
from deepsim.evaluate.metrics.bootstrap import Bootstrap, Interval
from deepsim.evaluate.metrics.correlation import Identification
from deepsim.evaluate.metrics.sharpness import octaves, ratios, spectrum_slope

WAYS = (2, 10, 50)
FIRST = "first"  # among all originals
Columns = Mapping[str, NDArray[np.float64]]
Means = NDArray[np.float64]


@dataclass
class Figures:
    """Collects what is to be computed, so that all of it shares one set of resamples."""

    how: Bootstrap
    _columns: list[NDArray[np.float64]] = field(default_factory=list)
    _statistics: dict[str, Callable[[Means], Means]] = field(default_factory=dict)

    def mean(self, name: str, values: NDArray[np.float64], divisor: float | None = 1.0) -> None:
        """Add a mean over the photographs that have a value, divided; without a divisor it is not defined."""
        value, known = self._column(_filled(values)), self._column((~np.isnan(values)).astype(float))
        factor = np.nan if divisor is None else 1 / divisor
        self._statistics[name] = lambda means: ratios(means[..., value], means[..., known]) * factor

    def ratio(self, name: str, ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> None:
        """Add the ratio of two sums over photographs."""
        above, below = self._column(ours), self._column(theirs)
        self._statistics[name] = lambda means: ratios(means[..., above], means[..., below])

    def of_powers(
        self,
        name: str,
        ours: NDArray[np.float64],
        theirs: NDArray[np.float64],
        compare: Callable[[Means, Means], Means],
    ) -> None:
        """Add a comparison of two mean spectra, (N, BANDS) each; bands that pictures of this size lack are NaN."""
        width = ours.shape[1]
        first, second = ([self._column(_filled(powers[:, band])) for band in range(width)] for powers in (ours, theirs))
        lacking = np.where(np.isnan(theirs).all(axis=0), np.nan, 0.0)
        self._statistics[name] = lambda means: compare(means[..., first] + lacking, means[..., second] + lacking)

    def intervals(self) -> dict[str, Interval]:
        """Compute everything."""
        found = self.how.intervals(np.column_stack(self._columns), list(self._statistics.values()))
        return dict(zip(self._statistics, found, strict=True))

    def _column(self, values: NDArray[np.float64]) -> int:
        self._columns.append(values)
        return len(self._columns) - 1


@dataclass(frozen=True)
class Summary:
    """Figures of one method: of the image, of its sharpness, and in each space by name."""

    photographs: int
    image: dict[str, Interval]
    sharpness: dict[str, Interval]
    spaces: dict[str, dict[str, Interval]]

    def to_json(self) -> dict[str, Any]:
        """Return every figure as {"value", "low", "high"}."""
        parts = {"image": self.image, "sharpness": self.sharpness}
        named = {part: {name: found.to_json() for name, found in figures.items()} for part, figures in parts.items()}
        spaces = {
            space: {name: found.to_json() for name, found in figures.items()} for space, figures in self.spaces.items()
        }
        return {"photographs": self.photographs, **named, "spaces": spaces}


def summarise(
    columns: Columns, originals: Columns, spaces: list[Space], norms: Mapping[str, float | None], how: Bootstrap
) -> Summary:
    """Turn a method's columns into figures.

    ``originals`` are what was measured of the photographs alone; ``norms`` has N of each space by its key, and that of
    pixels as "". N counts as known: intervals are over the photographs that were reconstructed.
    """
    image, sharp = Figures(how), Figures(how)
    image.mean("normalized_error", columns["image_distance"], norms[""])
    for name in ("psnr", "ssim", "ms_ssim", "pixel_correlation", *([LPIPS] if LPIPS in columns else [])):
        image.mean(name, columns[name])
    energy = originals["gradient_energy"]
    sharp.ratio("gradient_energy", columns["gradient_energy"], energy)
    sharp.ratio("aligned_gradient", columns["aligned_gradient"], energy)
    ours, theirs = (np.column_stack([given[name] for name in BAND_NAMES]) for given in (columns, originals))
    sharp.of_powers("spectrum_slope", ours, theirs, lambda own, other: spectrum_slope(other) / spectrum_slope(own))
    for octave in range(octaves(ours[:1]).shape[1]):
        sharp.of_powers(f"octave_{octave + 1}", ours, theirs, _of_octave(octave))
    in_spaces = {space.name: _in_space(columns, space.key, norms[space.key], how) for space in spaces}
    if "pixels beaten" in columns:
        in_pixels = Figures(how)
        _identification(in_pixels, columns["pixels beaten"], columns["pixels others"])
        in_spaces["pixels"] = in_pixels.intervals()
    return Summary(len(columns["psnr"]), image.intervals(), sharp.intervals(), in_spaces)


def _filled(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return values with 0 where there is none; infinite ones stay."""
    filled: NDArray[np.float64] = np.where(np.isnan(values), 0.0, values)
    return filled


def _of_octave(octave: int) -> Callable[[Means, Means], Means]:
    return lambda own, other: ratios(octaves(own)[..., octave], octaves(other)[..., octave])


def _in_space(columns: Columns, key: str, norm: float | None, how: Bootstrap) -> dict[str, Interval]:
    figures = Figures(how)
    figures.mean("normalized_error", columns[f"{key} distance"], norm)
    figures.mean("correlation", columns[f"{key} correlation"])
    _identification(figures, columns[f"{key} beaten"], columns[f"{key} others"])
    return figures.intervals()


def _identification(figures: Figures, beaten: NDArray[np.float64], others: NDArray[np.float64]) -> None:
    found = Identification(beaten.astype(np.int64), others.astype(np.int64))
    for ways in WAYS:
        figures.mean(f"{ways}_way", found.n_way(ways))
    figures.mean(FIRST, np.where(others > 0, found.first, np.nan))
