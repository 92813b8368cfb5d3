"""Say on what a measurement ran, as a reader would: the processor, its cores, the versions that matter."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

# The distributions whose versions decide a backend's speed, beside numpy and deepsim.
_PACKAGES = {
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "tensorrt": ("tensorrt",),
    "tensorrt-rtx": ("tensorrt-rtx",),
    "torch": ("torch",),
}


def describe_machine(backend: str, device: str = "cpu") -> dict[str, str]:
    """Return processor, cores, system and versions by their names; what cannot be found out is left out."""
    facts = {
        "Device": device,
        "Processor": processor_name(),
        "Cores available": str(available_cores()),
        "Threads asked for": os.environ.get("DEEPSIM_NUM_THREADS", ""),
        "System": f"{platform.system()} {platform.machine()}",
        "Python": platform.python_version(),
    }
    for package in ("deepsim", "numpy", *_PACKAGES.get(backend, ())):
        found = version(package)
        if found:
            facts[package] = found
    return {name: fact for name, fact in facts.items() if fact}


def available_cores() -> int:
    """Return how many logical cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return the processor's model name, or its architecture where the system does not tell."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name") and ":" in line]
    return names[0] if names else platform.processor() or platform.machine()


def version(package: str) -> str | None:
    """Return the installed version of a distribution, None when it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
