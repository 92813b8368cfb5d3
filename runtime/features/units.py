"""Are features in the units of their layer? Mistakes that are known are named; what is asked for mends them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepsim.runtime.errors import DataError, ShapeError
from deepsim.runtime.features import Preferred, read_features
from deepsim.runtime.features.records import read_errors
from deepsim.runtime.features.statistics import Array, Statistics

SAMPLE = 32  # features that are looked at
_ENOUGH = 8  # features whose mean can be compared with the recorded one, unit by unit
_ALIKE, _UNLIKE = 0.5, 0.2  # correlations of the means
_TIMES = 3.0  # how far values may be from the recorded ones
_MANY_CLIPPED = 0.2
_LETTERS = "CHW"


@dataclass(frozen=True)
class Bounds:
    """The least and the largest value of each unit, in an array that a feature broadcasts with."""

    lower: Array
    upper: Array
    path: Path


def rectify(feature: NDArray[Any]) -> NDArray[np.float32]:
    """Set negative values to 0, as the ReLU of a layer does; NaN stays.

    >>> rectify(np.array([-1.0, 2.0]))
    array([0., 2.], dtype=float32)
    """
    positive: NDArray[Any] = np.maximum(feature, 0)
    return positive.astype(np.float32)


def clip_to(feature: NDArray[Any], bounds: Bounds) -> NDArray[np.float32]:
    """Clip every unit of a feature to its bounds; NaN stays."""
    clipped: Array = np.clip(feature, bounds.lower, bounds.upper)
    return clipped.astype(np.float32)


def read_bounds(path: Path, shape: tuple[int, ...]) -> Bounds:
    """Read upper bounds, one per unit or one per channel, and 0 as the lower one.

    ``act_range/3x/fc6.txt`` of the authors' release has them as numbers with spaces between; a .npz of ``deepsim
    stats`` and other feature files as an array. Raises DataError when there is no such file, for what are no numbers,
    and for bounds below 0; ShapeError for another count.
    """
    values = _read_text(path) if path.suffix.lower() == ".txt" else read_features(path, Preferred(("upper",))).values
    if values.size == math.prod(shape):
        upper = values.reshape(shape)
    elif values.size == shape[0]:
        upper = values.reshape(-1, *[1] * (len(shape) - 1))
    else:
        expected = f"{math.prod(shape)}, one per unit"
        if len(shape) > 1:
            expected = f"{math.prod(shape)} (one per unit) or {shape[0]} (one per channel)"
        raise ShapeError(f"{path}: {values.size} bounds, expected {expected}.")
    if not np.isfinite(upper).all() or upper.min() < 0:
        raise DataError(
            f"{path}: bounds from {upper.min():g} on, negative or not finite, expected finite ones from 0 on."
        )
    return Bounds(np.zeros_like(upper, np.float64), upper.astype(np.float64), path)


def likely_mistake(sample: NDArray[np.float32], is_rectified: bool, statistics: Statistics | None) -> str | None:
    """Say in one sentence what is probably wrong with some features (n, ...) of a layer; None where nothing seems so.

    ``is_rectified`` tells that the layer has no negative values; ``statistics`` are those recorded of it.
    """
    known = statistics or Statistics()
    if len(sample) == 0:
        return None
    negative = float((sample < 0).mean())
    if is_rectified and negative:
        return _of_negative_values(sample, negative)
    if known.mean is not None:
        turned = _turned(sample, known.mean)
        if turned:
            return f"units fit the recorded means better as --axes {turned}: the axes seem to be reversed."
    return _of_range(sample, known) or _of_means(sample, known)


def doubtful_bounds(sample: NDArray[np.float32], bounds: Bounds, statistics: Statistics | None) -> str | None:
    """Say in one sentence why bounds are probably another layer's or network's; None where they seem to fit."""
    positive = sample > 0
    above = float((sample > bounds.upper)[positive].mean()) if positive.any() else 0.0
    if above > _MANY_CLIPPED:
        return f"{above:.0%} of the positive values are above {bounds.path}: a bounds file of another layer?"
    if statistics is not None and statistics.mean is not None and statistics.sd is not None:
        expected = np.broadcast_to(statistics.upper(_TIMES), sample.shape[1:])
        found = np.broadcast_to(bounds.upper, sample.shape[1:])
        alike = _correlation(found, expected)
        if alike is not None and alike < _UNLIKE:
            return f"{bounds.path} does not follow the recorded means and SDs (correlation {alike:.2f}): a wrong file?"
    return None


def _read_text(path: Path) -> Array:
    with read_errors(path):
        text = path.read_text(encoding="ascii", errors="replace")
    try:
        return np.array([float(word) for word in text.split()])
    except ValueError as error:
        raise DataError(f"{path}: {error}, expected numbers with spaces between.") from error


def _of_negative_values(sample: NDArray[np.float32], negative: float) -> str:
    mean, sd = float(sample.mean(dtype=np.float64)), float(sample.std(dtype=np.float64))
    share = f"{negative:.0%} of the values are negative" if negative >= 0.005 else "some values are negative"
    if abs(mean) < 0.2 and 0.8 < sd < 1.25:
        return f"{share}, mean {mean:.2f}, SD {sd:.2f}: z-scored? The layer has no negative values; see --match-stats."
    if negative < 0.25 and -float(sample.min()) < 0.5 * float(sample.max()):
        return f"{share}, as of decoded features; the layer has none. --rectify sets them to 0."
    return (
        f"{share}, the layer has none: features before the ReLU? bdpy's fc6 is, its relu6 is this program's fc6. "
        "--rectify applies the ReLU."
    )


def _turned(sample: NDArray[np.float32], recorded: Array) -> str | None:
    """Return the order of axes of flattened rows in which the mean feature is much more like the recorded one."""
    shape = sample.shape[1:]
    if len(shape) != 3:
        return None
    mean = sample.mean(axis=0, dtype=np.float64)
    alike = _correlation(mean, recorded) or 0.0
    found = {}
    for order in list(permutations(range(3)))[1:]:
        turned = mean.ravel().reshape([shape[axis] for axis in order]).transpose(np.argsort(order))
        found["".join(_LETTERS[axis] for axis in order)] = _correlation(turned, recorded) or 0.0
    best = max(found, key=lambda order: found[order])
    return f"N({best})" if found[best] > _ALIKE and 1 - found[best] < (1 - alike) / 2 else None


def _of_range(sample: NDArray[np.float32], known: Statistics) -> str | None:
    if known.maximum is None:
        return None
    found, largest = float(sample.max()), float(known.maximum.max())
    if found > _TIMES * largest:
        return f"values up to {found:.3g}, recorded were up to {largest:.3g}: another network's or layer's features?"
    if known.sd is not None and len(sample) >= _ENOUGH:
        spread, recorded = float(sample.std(axis=0).mean()), float(known.sd.mean())
        if spread * _TIMES < recorded:
            return f"a mean SD of {spread:.3g}, recorded was {recorded:.3g}: scaled features? See --match-stats."
    return None


def _of_means(sample: NDArray[np.float32], known: Statistics) -> str | None:
    if known.mean is None or len(sample) < _ENOUGH:
        return None
    alike = _correlation(sample.mean(axis=0, dtype=np.float64), known.mean)
    if alike is None or alike >= _UNLIKE:
        return None
    return (
        f"their means do not follow the recorded ones (correlation {alike:.2f}): another network's features, such as "
        "torchvision's AlexNet for CaffeNet, or units in another order?"
    )


def _correlation(first: NDArray[Any], second: NDArray[Any]) -> float | None:
    """Return Pearson's correlation over all units; None where one of them is constant."""
    a, b = (np.asarray(each, np.float64).ravel() - np.mean(each) for each in (first, second))
    scale = float(np.sqrt((a**2).sum() * (b**2).sum()))
    return float((a * b).sum()) / scale if scale > 0 else None
