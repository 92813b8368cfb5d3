"""Measure an inverter on held-out photographs: every figure and picture of the report, before any of it is drawn."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from deepsim.evaluate.metrics.drift import ITERATIONS, Reencoding, trace
from deepsim.evaluate.report.baselines import ImageError, baseline_images, image_error
from deepsim.evaluate.report.coarse import Coarse, compare_coarsely
from deepsim.runtime.errors import NumericError
from deepsim.runtime.geometry import Framing
from deepsim.runtime.images import prepare
from deepsim.runtime.metrics import euclidean_distances, mean_pairwise_distance, normalized_error, psnr, rmse

RECONSTRUCTION = "the reconstruction"
CHUNK = 8  # photographs per call, so that the progress bar moves
REENCODED = 16  # photographs sent through the loop of encoding and decoding
FRAMES = 8  # of an interpolation

Pixels = NDArray[np.uint8]


class Inverts(Protocol):
    """What the report needs of :class:`deepsim.runtime.inverter.Inverter`."""

    def encode(self, photos: Pixels) -> NDArray[np.float32]:
        """Return the features (N, ...) of uint8 RGB photographs (N, side, side, 3)."""

    def reconstruct(self, photos: Pixels) -> Pixels:
        """Return the photographs' reconstructions, uint8 RGB (N, side, side, 3)."""

    def reencode(self, photos: Pixels, *, iterations: int, keep: Sequence[int]) -> Pixels:
        """Return the kept iterates, uint8 RGB (N, len(keep), side, side, 3)."""

    def interpolate(self, photo_a: Pixels, photo_b: Pixels, *, steps: int) -> Pixels:
        """Return the decoded features between two photographs, uint8 RGB (steps, side, side, 3)."""


@dataclass(frozen=True)
class PhotoError:
    """The reconstruction's error on one photograph: grey levels RMSE, decibels, and the normalised fraction."""

    name: str
    rmse: float
    psnr: float
    normalized: float | None

    def to_json(self) -> dict[str, Any]:
        """Return the figures as plain JSON values."""
        return {**vars(self), "psnr": self.psnr if math.isfinite(self.psnr) else None}


@dataclass(frozen=True)
class Figures:
    """Everything measured: errors are as :class:`ImageError` defines them, ``feature_error`` is a fraction.

    ``standard_error`` is that of the mean normalised image error over photographs. ``found`` counts the photographs in
    the folder, of which ``photos`` were measured.
    """

    photos: tuple[PhotoError, ...]
    found: int
    reconstruction: ImageError
    baselines: tuple[ImageError, ...]
    standard_error: float | None
    feature_error: float | None
    reencoding: Reencoding
    coarse: Coarse

    def to_json(self) -> dict[str, Any]:
        """Return every figure as plain JSON values."""
        return {
            "photographs": len(self.photos),
            "photographs_found": self.found,
            "reconstruction": self.reconstruction.to_json(),
            "standard_error": self.standard_error,
            "feature_error": self.feature_error,
            "baselines": [error.to_json() for error in self.baselines],
            "reencoding": self.reencoding.to_json(),
            "coarse_correlation": self.coarse.to_json(),
            "per_photograph": [photo.to_json() for photo in self.photos],
        }


@dataclass(frozen=True)
class Pictures:
    """The pixels behind the figures, uint8 RGB; ``iterates`` (n, 8, side, side, 3) are of the first photographs."""

    photos: Pixels
    reconstructions: Pixels
    baselines: dict[str, Pixels]
    iterates: Pixels
    frames: dict[tuple[int, int], Pixels]


def choose(paths: Sequence[Path], limit: int) -> list[Path]:
    """Return at most ``limit`` of the paths, spread evenly over their order, so that nobody picks."""
    if len(paths) <= limit:
        return list(paths)
    return [paths[index * len(paths) // limit] for index in range(limit)]


def read_photos(paths: Sequence[Path], framing: Framing) -> Pixels:
    """Read photographs as uint8 RGB (N, side, side, 3). Raises DataError naming a file that is not usable."""
    bar = tqdm(paths, desc="reading", unit="photo", disable=None, leave=False)
    return np.stack([prepare(path, framing) for path in bar])


def collect(
    inverter: Inverts, photos: Pixels, names: Sequence[str], found: int, training_mean: Pixels | None
) -> tuple[Figures, Pictures]:
    """Reconstruct, re-encode and interpolate photographs (N, side, side, 3), N >= 1, and measure the results.

    ``training_mean`` is the mean training crop where it is known. Raises what the inverter raises.
    """
    reconstructions = np.concatenate([inverter.reconstruct(part) for part in _chunks(photos, "reconstructing")])
    looped = photos[:REENCODED]
    keep = tuple(range(1, ITERATIONS + 1))
    iterates = np.concatenate(
        [inverter.reencode(part, iterations=ITERATIONS, keep=keep) for part in _chunks(looped, "re-encoding")]
    )
    images = baseline_images(photos, training_mean)
    own = image_error(RECONSTRUCTION, reconstructions, photos)
    per_photo = _photo_errors(reconstructions, photos, names)
    figures = Figures(
        per_photo,
        found,
        own,
        tuple(image_error(name, image, photos, own) for name, image in images.items()),
        _standard_error([photo.normalized for photo in per_photo]),
        _feature_error(inverter, photos, reconstructions),
        trace(looped, iterates),
        compare_coarsely(reconstructions, photos),
    )
    return figures, Pictures(photos, reconstructions, images, iterates, _interpolate(inverter, photos))


def _photo_errors(reconstructions: Pixels, photos: Pixels, names: Sequence[str]) -> tuple[PhotoError, ...]:
    scale = mean_pairwise_distance(photos) if len(photos) > 1 else 0.0
    columns = zip(
        names,
        rmse(reconstructions, photos),
        psnr(reconstructions, photos),
        euclidean_distances(reconstructions, photos),
        strict=True,
    )
    return tuple(
        PhotoError(name, float(levels), float(decibels), float(distance) / scale if scale else None)
        for name, levels, decibels, distance in columns
    )


def _standard_error(errors: Sequence[float | None]) -> float | None:
    known = [error for error in errors if error is not None]
    return float(np.std(known, ddof=1) / math.sqrt(len(known))) if len(known) > 1 else None


def _feature_error(inverter: Inverts, photos: Pixels, reconstructions: Pixels) -> float | None:
    """Return the normalised error between the features of reconstructions and photographs; None where undefined."""
    if len(photos) < 2:
        return None
    wanted = np.concatenate([inverter.encode(part) for part in _chunks(photos, "encoding")])
    reached = np.concatenate([inverter.encode(part) for part in _chunks(reconstructions, "encoding")])
    try:
        return normalized_error(reached, wanted)
    except NumericError:
        if np.isfinite(wanted).all() and np.isfinite(reached).all():
            return None  # the features of all photographs are equal: nothing to normalise by
        raise


def _interpolate(inverter: Inverts, photos: Pixels) -> dict[tuple[int, int], Pixels]:
    pairs = list(itertools.islice(zip(range(0, len(photos), 2), range(1, len(photos), 2), strict=False), 2))
    return {(a, b): inverter.interpolate(photos[a], photos[b], steps=FRAMES) for a, b in pairs}


def _chunks(photos: Pixels, what: str) -> Iterator[Pixels]:
    with tqdm(total=len(photos), desc=what, unit="photo", disable=None, leave=False) as bar:
        for start in range(0, len(photos), CHUNK):
            part = photos[start : start + CHUNK]
            yield part
            bar.update(len(part))
