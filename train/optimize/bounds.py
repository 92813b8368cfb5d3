"""Bounds of the variable: a pair of numbers, a file of upper bounds per unit, or what a bundle recorded."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch

from deepsim.kernels.layers import Shape
from deepsim.runtime.errors import UsageError
from deepsim.runtime.features.statistics import Statistics
from deepsim.runtime.features.units import read_bounds
from deepsim.train.optimize.place import Place
from deepsim.train.optimize.presets import FILE
from deepsim.train.optimize.rules import Bounds

BUNDLE, BUNDLE_SDS = "bundle", 3.0


def parse_bounds(text: str, shape: Shape, place: Place, statistics: Statistics | None = None) -> Bounds:
    """Return (lower, upper) for variables of ``shape``: "none", "LOW,HIGH" (either may be empty), "bundle", or a file.

    "bundle" is 0 and mean + 3 SD of ``statistics``, which deepsim stats records; "bundle,2.5" takes 2.5 SD.

    A file holds upper bounds of each unit or of each channel (see :func:`~deepsim.runtime.features.units.read_bounds`);
    the lower bound is 0 then. Raises UsageError, DataError, ShapeError.
    """
    if text == "none":
        return None, None
    if text == FILE:
        raise UsageError("bounds: the preset's are a file's (mean + 3 SD per unit), none is named. Pass --bounds FILE.")
    if text.partition(",")[0] == BUNDLE:
        return place.put(torch.zeros(())), place.put(torch.from_numpy(_of_bundle(text, statistics).reshape(shape)))
    limits = _numbers(text)
    if limits is not None:
        lower, upper = (None if limit is None else place.put(torch.tensor(limit)) for limit in limits)
        return lower, upper
    return place.put(torch.zeros(())), place.put(torch.from_numpy(read_bounds(Path(text), shape).upper))


def _numbers(text: str) -> tuple[float | None, float | None] | None:
    """Read LOW,HIGH; None where the text is none. Raises UsageError where LOW is above HIGH."""
    parts = text.split(",")
    try:
        low, high = (float(part) if part.strip() else None for part in parts)
    except ValueError:
        return None
    for limit in (low, high):
        if limit is not None and math.isnan(limit):
            return None
    if low is not None and high is not None and low > high:
        raise UsageError(f"bounds {text}: {low:g} is above {high:g}, expected LOW,HIGH.")
    return low, high


def _of_bundle(text: str, statistics: Statistics | None) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    if statistics is None:
        raise UsageError(f"bounds {text}: the generator's bundle has no statistics, expected them. See deepsim stats.")
    try:
        factor = float(text.partition(",")[2] or BUNDLE_SDS)
    except ValueError as error:
        raise UsageError(f"bounds {text}: expected bundle, or bundle,K for mean + K SD.") from error
    return np.maximum(statistics.upper(factor), 0)
