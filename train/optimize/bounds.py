"""Bounds of the variable: a pair of numbers, a file of upper bounds per unit, or what a bundle recorded."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch

from deepsim.kernels.layers import Shape
from deepsim.runtime.errors import DataError, UsageError
from deepsim.runtime.features import read_features
from deepsim.runtime.features.records import read_errors
from deepsim.runtime.features.statistics import Statistics
from deepsim.train.optimize.place import Place
from deepsim.train.optimize.presets import FILE
from deepsim.train.optimize.rules import Bounds

_TEXT = (".txt", ".csv")
BUNDLE, BUNDLE_SDS = "bundle", 3.0


def parse_bounds(text: str, shape: Shape, place: Place, statistics: Statistics | None = None) -> Bounds:
    """Return (lower, upper) for variables of ``shape``: "none", "LOW,HIGH" (either may be empty), "bundle", or a file.

    "bundle" is 0 and mean + 3 SD of ``statistics``, which deepsim stats records; "bundle,2.5" takes 2.5 SD.

    A file holds upper bounds of each unit or of each channel (a line of numbers as in act_range/3x/fc6.txt, or any
    feature file of one array); the lower bound is 0 then. Raises UsageError, DataError.
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
    return place.put(torch.zeros(())), place.put(torch.from_numpy(_of_file(Path(text), shape)))


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


def _of_file(path: Path, shape: Shape) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    with read_errors(path):
        if path.suffix.lower() in _TEXT:
            values = np.array(path.read_text(encoding="utf-8").replace(",", " ").split(), np.float64)
        else:
            values = np.asarray(read_features(path).values, np.float64)
    size, channels = math.prod(shape), shape[0]
    if values.size not in (size, channels):
        raise DataError(f"{path}: {values.size} bounds, expected {size}, one per unit, or {channels}, one per channel.")
    if not np.isfinite(values).all() or (values < 0).any():
        raise DataError(f"{path}: a bound that is negative or not finite, expected upper bounds of at least 0.")
    per_channel = values.size == channels and size != channels
    fitted = values.reshape(channels, *[1] * (len(shape) - 1)) if per_channel else values.reshape(shape)
    return np.ascontiguousarray(fitted, np.float32)
