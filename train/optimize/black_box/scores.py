"""Where scores come from without an experiment: a Python function, or a unit of an encoder."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from deepsim.runtime.errors import DataError, DeepsimError, ShapeError, UsageError
from deepsim.runtime.inputs import whole_number
from deepsim.runtime.inverter import Inverter
from deepsim.runtime.pixels import Pixels

Score: TypeAlias = Callable[[Pixels], Any]


class UnitScore:
    """The activity of one unit of an encoder: call it with images (n, H, W, 3), uint8 RGB, for float32 (n,).

    Images of another size than the encoder's are resized and cropped as its bundle says of photographs. ``unit`` is an
    index of (C,) features, or (c, y, x) of (C, H, W) features. Raises UsageError for a unit that the layer lacks.

    >>> UnitScore(inverter, (5, 6, 6))(np.zeros((2, 227, 227, 3), np.uint8)).shape
    (2,)
    """

    def __init__(self, encoder: Inverter, unit: int | tuple[int, ...]) -> None:
        self.encoder = encoder
        self.unit = (unit,) if isinstance(unit, int) else tuple(unit)
        shape = encoder.feature_shape
        if len(self.unit) != len(shape) or not all(0 <= i < n for i, n in zip(self.unit, shape, strict=True)):
            found, place = ",".join(map(str, self.unit)), "an index" if len(shape) == 1 else "c,y,x"
            raise UsageError(f"unit {found}: expected {place} within the {shape} features of layer {encoder.layer}.")

    def __call__(self, images: Pixels) -> NDArray[np.float32]:
        """Return the unit's activity for each image."""
        features: NDArray[np.float32] = self.encoder.encode(images)
        index = int(np.ravel_multi_index(self.unit, self.encoder.feature_shape))
        return features.reshape(len(features), -1)[:, index]


def parse_unit(text: str) -> tuple[int, ...]:
    """Read "123" or "c,y,x". Raises UsageError.

    >>> parse_unit("5,6,6")
    (5, 6, 6)
    """
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"--unit {text}: expected an index, or c,y,x.") from error


def load_score(reference: str) -> Score:
    """Import a function "module:name"; modules are found in the current folder too. Raises UsageError.

    What the function raises becomes a DataError that says where.
    """
    module_name, _, name = reference.partition(":")
    if not module_name or not name:
        raise UsageError(f"--score {reference}: expected MODULE:FUNCTION.")
    if os.getcwd() not in sys.path:  # noqa: PTH109  # an entry of sys.path is a text
        sys.path.insert(0, os.getcwd())  # noqa: PTH109
    try:
        function = getattr(importlib.import_module(module_name), name, None)
    except Exception as error:
        raise UsageError(f"--score {reference}: not importable ({_where(error)}), expected a module.") from error
    if not callable(function):
        raise UsageError(f"--score {reference}: no function of that name in the module, expected one.")

    def score(images: Pixels) -> Any:
        try:
            return function(images)
        except DeepsimError:
            raise
        except Exception as error:
            raise DataError(f"--score {reference}: {_where(error)}, expected a number for each image.") from error

    return score


def repeat(score: Score, images: Pixels, presentations: int) -> NDArray[np.float64]:
    """Score images several times, as an experiment shows them: float64 (n, presentations).

    Raises DataError or ShapeError where the function does not return a number for each image.
    """
    whole_number("presentations", presentations, 1)
    trials = []
    for _ in range(presentations):
        try:
            values = np.asarray(score(images), np.float64)
        except (TypeError, ValueError) as error:
            raise DataError(f"scores: not numbers ({error}), expected one for each image.") from error
        if values.shape != (len(images),):
            raise ShapeError(f"scores: shape {values.shape}, expected ({len(images)},), one for each image.")
        trials.append(values)
    return np.stack(trials, axis=1)


def _where(error: Exception) -> str:
    """Say what was raised and in which line."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f", {frames[-1].filename} line {frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}: {error}{place}"
