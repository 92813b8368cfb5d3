"""Say on what a measurement ran, in the words of a reader: device, processor, cores, the versions that matter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# The distributions whose versions decide a backend's speed, beside numpy.
_PACKAGES = {
    "cpu": ("deepsim",),
    "cuda": ("deepsim",),
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "tensorrt": ("tensorrt", "tensorrt-cu12", "tensorrt-cu13"),
    "tensorrt-rtx": ("tensorrt-rtx", "tensorrt_rtx"),
    "torch": ("torch",),
}


def describe(environment: Mapping[str, Any], devices: Mapping[str, str]) -> list[tuple[str, str]]:
    """Turn :func:`deepsim.runtime.machine.environment` and the device of each backend into (what, which) pairs.

    What is not recorded is left out.
    """
    gpus = environment.get("gpus")
    pairs = [
        _backends(devices),
        ("Processor", environment.get("cpu")),
        ("Cores available", environment.get("cpus")),
        ("Threads", environment.get("threads")),
        ("GPU", ", ".join(map(str, gpus)) if isinstance(gpus, list) else None),
        ("System", " ".join(str(environment.get("platform", "")).split("-")[:2])),
        ("Python", environment.get("python")),
        *_versions(environment.get("versions"), devices),
    ]
    return [(name, str(value)) for name, value in pairs if value not in (None, "", "default")]


def _backends(devices: Mapping[str, str]) -> tuple[str, str]:
    if len(devices) > 1 and len(set(devices.values())) == 1:
        return "Device", next(iter(devices.values()))
    return "Backend", ", ".join(f"{name} on {device}" for name, device in devices.items())


def _versions(versions: object, devices: Mapping[str, str]) -> list[tuple[str, Any]]:
    if not isinstance(versions, Mapping):
        return []
    wanted = dict.fromkeys(package for name in devices for package in _PACKAGES.get(name, (name,)))
    return [(package, versions.get(package)) for package in ("numpy", *wanted)]
