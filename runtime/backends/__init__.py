"""What can run a bundle: one module per backend, all with the same functions, and the registry that names them.

A backend module has ``reason_unavailable(device)``, ``create(bundle, device, max_batch, options)`` and the type
``Options`` of its options, and imports its packages inside the functions only. It hands out sessions (see
:mod:`deepsim.runtime.backends.sessions`). An encoder that is a graph is run by ONNX Runtime, whatever the backend.
``"auto"`` takes the first usable of :data:`AUTO_ORDER`, and says on the logger "deepsim" which it
left out.
"""

from __future__ import annotations

import logging
from dataclasses import fields, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

from deepsim.runtime.backends.sessions import (
    DecodeSession,
    EncodeSession,
    EnlargedDecoder,
    LoopSession,
    Sessions,
    StretchedDecoder,
    TwoSessions,
)
from deepsim.runtime.bundle import Bundle
from deepsim.runtime.errors import DeviceError, UsageError

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


class BackendModule(Protocol):
    """What every module of this package has."""

    Options: type[Any]

    def reason_unavailable(self, device: str = "auto") -> str | None:
        """Tell in one line why the backend cannot run on ``device`` here; None when it can."""
        ...

    def create(self, bundle: Bundle, device: str, max_batch: int, options: Any) -> Sessions:
        """Load a bundle onto "cpu", "cuda:N" or "auto" (the first GPU that the backend can use, else the CPU)."""
        ...


def reasons(device: str = "auto") -> dict[str, str | None]:
    """Map every backend's name to None when it is usable here on ``device``, else to the reason in one line."""
    return {name: _reason(name, device) for name in BACKENDS}


def create(name: str, bundle: Bundle, device: str, max_batch: int, **options: bool | str) -> Sessions:
    """Load a bundle into the named backend, or for "auto" into the first usable one of :data:`AUTO_ORDER`.

    ``options`` are fields of the ``Options`` of the backend's module. Raises UsageError on an unknown name and for an
    option of another backend, DeviceError with the reason when the backend cannot run here.
    """
    if name == "auto":
        name = _first_usable(device)
    if name not in BACKENDS:
        raise UsageError(f"backend {name!r}: unknown, expected auto or one of {', '.join(BACKENDS)}.")
    reason = _reason(name, device)
    if reason is not None:
        raise DeviceError(f"backend {name} on device {device}: {reason}. Choose another, see deepsim doctor.")
    module = _module(name)
    return _completed(module.create(bundle, device, max_batch, _options(name, module, options)), bundle)


def _options(name: str, module: BackendModule, given: dict[str, bool | str]) -> Any:
    """Build a backend's options. Raises UsageError for one that it does not have, naming the backend that has it."""
    for option in given:
        if option not in field_names(module.Options):
            owner = next((other for other in _MODULES if option in field_names(_module(other).Options)), "none")
            raise UsageError(f"{option}: backend {name} has no such option, only {owner} has.")
    return module.Options(**given)


def field_names(options: type[Any]) -> tuple[str, ...]:
    """List the fields of an ``Options`` type."""
    return tuple(entry.name for entry in fields(options))


def _completed(sessions: Sessions, bundle: Bundle) -> Sessions:
    """Put together what the backend runs, what ONNX Runtime does beside it, and how pictures are made."""
    sessions = _with_encoder(sessions, bundle)
    if sessions.decoder is None:
        error = UsageError(f"{bundle.path}: has no generator, so it encodes photographs only.")
        return replace(sessions, no_decoder=error)
    decoder, geometry = sessions.decoder, bundle.manifest.geometry
    if geometry.enlarges:
        decoder = EnlargedDecoder(decoder, geometry)
    if bundle.manifest.display == "stretch":
        decoder = StretchedDecoder(decoder)
    if decoder is sessions.decoder:
        return sessions
    return replace(sessions, decoder=decoder, loop=_loop(sessions.encoder, decoder))


def _with_encoder(sessions: Sessions, bundle: Bundle) -> Sessions:
    """Add ONNX Runtime for an encoder that is a graph, or the error that says why nothing encodes here."""
    if sessions.encoder is not None:
        return sessions
    if bundle.manifest.encoder is None:
        return replace(sessions, no_encoder=UsageError(f"{bundle.path}: has no encoder, so it decodes features only."))
    from deepsim.runtime.backends import onnxruntime

    usable = onnxruntime.reason_unavailable(sessions.device) is None
    reason = None if usable else onnxruntime.reason_unavailable("cpu")
    if reason is not None:
        name = bundle.manifest.encoder_name
        line = f"{bundle.path}: its encoder {name} is a graph, which ONNX Runtime runs: {reason}."
        only = "" if sessions.decoder is None else " It decodes only."
        return replace(sessions, no_encoder=DeviceError(line + only))
    encoder = onnxruntime.OnnxEncoder(bundle, sessions.device if usable else "cpu")
    return replace(sessions, encoder=encoder, loop=_loop(encoder, sessions.decoder))


def _loop(encoder: EncodeSession | None, decoder: DecodeSession | None) -> LoopSession | None:
    return None if encoder is None or decoder is None else TwoSessions(encoder, decoder)


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
