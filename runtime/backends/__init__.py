"""What can run a bundle: one module per backend, all with the same functions, and the registry that names them.

A backend module has ``reason_unavailable(device)`` and ``create(bundle, device, max_batch)`` and imports its packages
inside these only. ``"auto"`` takes the first usable of :data:`AUTO_ORDER`, and says on the logger "deepsim" which it
left out.
"""

from __future__ import annotations

import logging
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from deepsim.runtime.backends import cpu
from deepsim.runtime.bundle import Bundle
from deepsim.runtime.errors import DeviceError, UsageError
from deepsim.runtime.pixels import Pixels

_log = logging.getLogger("deepsim")

AUTO_ORDER = ("cpu", "cuda", "onnxruntime", "torch")
_MODULES = {name: f"deepsim.runtime.backends.{name}" for name in AUTO_ORDER}
_ENGINES = "not in this version: its engines are built by deepsim-export and run with NVIDIA's own tools"
_PLANNED = {
    "tensorrt": _ENGINES,
    "tensorrt-rtx": _ENGINES,
}
_FOLDER = Path(__file__).resolve().parents[2]  # where deepsim was imported from
BACKENDS = tuple(sorted((*_MODULES, *_PLANNED)))


class Backend(Protocol):
    """Runs one bundle on one device; safe to call from several threads at once.

    Images are C-contiguous uint8 RGB (n, 227, 227, 3), features C-contiguous finite float32 (n, *feature_shape), with
    1 <= n <= max_batch: the Inverter checks, converts and chunks. Every method raises DeviceError when the device
    fails and OutOfMemory when it has too little memory, and stays usable.
    """

    name: str
    device: str

    def encode(self, images: Pixels) -> NDArray[np.float32]:
        """Compute the features of images, float32 (n, *feature_shape)."""
        ...

    def decode(self, features: NDArray[np.float32], full: bool) -> Pixels:
        """Generate images from features: uint8 (n, 227, 227, 3), with ``full`` the whole (n, S, S, 3)."""
        ...

    def reencode(self, images: Pixels, iterations: int, keep: tuple[int, ...]) -> Pixels:
        """Encode and decode ``iterations`` times over; return iterations ``keep``, uint8 (n, len(keep), 227, 227, 3).

        Iteration k is decode(encode(.)) applied k times to its own uint8 output, exactly: images are rounded to uint8
        between iterations. ``keep`` counts from 1, is strictly increasing and ends at ``iterations`` at most.
        """
        ...


class BackendModule(Protocol):
    """The two functions that every module of this package has."""

    def reason_unavailable(self, device: str = "auto") -> str | None:
        """Tell in one line why the backend cannot run on ``device`` here; None when it can."""
        ...

    def create(self, bundle: Bundle, device: str, max_batch: int, **options: Any) -> Backend:
        """Load a bundle onto "cpu", "cuda:N" or "auto" (the first GPU that the backend can use, else the CPU)."""
        ...


def reasons(device: str = "auto") -> dict[str, str | None]:
    """Map every backend's name to None when it is usable here on ``device``, else to the reason in one line."""
    return {name: _reason(name, device) for name in BACKENDS}


def create(name: str, bundle: Bundle, device: str, max_batch: int, **options: bool | str) -> Backend:
    """Load a bundle into the named backend, or for "auto" into the first usable one of :data:`AUTO_ORDER`.

    ``options`` are those that the backend's module lists in ``OPTIONS``. Raises UsageError on an unknown name and for
    an option of another backend, DeviceError with the reason when the backend cannot run here.
    """
    if name == "auto":
        name = _first_usable(device)
    if name not in BACKENDS:
        raise UsageError(
            f"backend {name!r}: unknown, expected auto or one of {', '.join(BACKENDS)}. Choose one of these."
        )
    reason = _reason(name, device)
    if reason is not None:
        raise DeviceError(f"backend {name} on device {device}: {reason}. Choose another, see deepsim doctor.")
    for option in options:
        if option not in getattr(_module(name), "OPTIONS", ()):
            owner = "cpu" if option in cpu.OPTIONS else "cuda"
            raise UsageError(f"{option}: backend {name} has no such option, only {owner} has. Leave it out.")
    return _module(name).create(bundle, device, max_batch, **options)


def _first_usable(device: str) -> str:
    found: dict[str, str] = {}
    for name in _order(device):  # one by one: what comes after a usable one, such as a GPU's driver, is not started
        reason = _reason(name, device)
        if reason is None:
            if found:
                _log.warning("backend auto: takes %s and leaves out %s; deepsim is %s.", name, _listed(found), _FOLDER)
            return name
        found[name] = reason
    raise DeviceError(
        f"backend auto on device {device}: none is usable ({_listed(found)}); deepsim is {_FOLDER}. "
        "Install one, see deepsim doctor."
    )


def _order(device: str) -> list[str]:
    """Return what can be meant on a device: there is no choice to speak of between backends for a CPU and for a GPU."""
    other = {"cpu": "cuda", "auto": None}.get(device, "cpu")
    return [name for name in AUTO_ORDER if name != other]


def _listed(reasons: dict[str, str]) -> str:
    return "; ".join(f"{name}: {reason}" for name, reason in reasons.items())


def _reason(name: str, device: str) -> str | None:
    return _PLANNED[name] if name in _PLANNED else _module(name).reason_unavailable(device)


def _module(name: str) -> BackendModule:
    return cast(BackendModule, import_module(_MODULES[name]))
