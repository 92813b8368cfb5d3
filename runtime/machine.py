"""What a measurement ran on: processor, GPUs, versions."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

from deepsim.runtime.backends.devices import find_gpus, library_threads

PACKAGES = (
    *("deepsim", "numpy", "pillow", "click", "tqdm", "onnxruntime", "onnxruntime-gpu", "openvino", "torch"),
    "safetensors",
)


def environment() -> dict[str, Any]:
    """Describe this machine and the installed versions, as they belong beside every measured figure."""
    gpus = find_gpus()
    return {
        "versions": versions(PACKAGES),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": cpu_name(),
        "cpus": len(os.sched_getaffinity(0)),
        "threads": library_threads() or "default",
        "gpus": list(gpus.names),
        "cuda_driver": gpus.cuda,
    }


def versions(packages: Iterable[str]) -> dict[str, str | None]:
    """Map distribution names to their installed versions, None where one is not installed; imports none of them."""
    found: dict[str, str | None] = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found


def cpu_name() -> str:
    """Return the CPU's model name, or its architecture where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
