"""Codes and pixels optimised against features (by gradients) or against scores (black box).

>>> from deepsim.train.optimize import optimize_features
>>> features = inverter.encode(["cat.jpg", "dog.jpg"])
>>> found = optimize_features("norm2.deepsim", {"norm2": features}, encoder="norm2.deepsim", iterations=2)
>>> found.images.shape, found.codes.shape  # uint8 RGB, float32
((2, 227, 227, 3), (2, 256, 13, 13))

Nothing here imports torch until one of these names is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deepsim.train.optimize.api import optimize_features
    from deepsim.train.optimize.outcome import Outcome
    from deepsim.train.optimize.presets import PRESETS
    from deepsim.train.optimize.settings import Settings

__all__ = ["PRESETS", "Outcome", "Settings", "optimize_features"]

_WHERE = {"PRESETS": "presets", "Outcome": "outcome", "Settings": "settings", "optimize_features": "api"}


def __getattr__(name: str) -> Any:
    """Import the public names on first use, so that the black box needs no torch."""
    if name in _WHERE:
        return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
