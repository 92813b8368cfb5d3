"""Run exported bundles: reconstruct photographs from a network's features, re-encode, interpolate.

>>> from deepsim import runtime
>>> inverter = runtime.Inverter("norm2.deepsim")
>>> inverter.layer, inverter.feature_shape, inverter.image_size
('norm2', (256, 13, 13), 227)
>>> inverter.reconstruct(["cat.jpg"]).shape  # uint8 RGB
(1, 227, 227, 3)
>>> runtime.available_backends()["cpu"] is None  # it can run here
True

Nothing here imports torch, onnx or the training code; a backend's packages are imported when it is chosen.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "runtime":  # imported as a checkout's folder: be deepsim.runtime instead, so that classes exist once
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "python"))  # a spawned process reads it too
    importlib.import_module("deepsim.runtime.checkout").alias("runtime", __file__)
elif getattr(sys.modules["deepsim"], "__file__", None) is None:  # a folder of that name, such as a clone
    importlib.import_module("deepsim.runtime.checkout").warn_of_installation(__file__)

if TYPE_CHECKING:
    from deepsim.runtime.inverter import Inverter, available_backends

__all__ = ["Inverter", "available_backends"]


def __getattr__(name: str) -> Any:
    """Import the public names on first use, so that ``import deepsim.runtime`` stays instant."""
    if name in __all__:
        return getattr(importlib.import_module("deepsim.runtime.inverter"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
