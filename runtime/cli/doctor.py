"""The command ``deepsim doctor``: what can run here, and why the rest cannot."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from deepsim.runtime import native_library
from deepsim.runtime.backends.devices import find_gpus, library_threads
from deepsim.runtime.errors import DeepsimError
from deepsim.runtime.inverter import available_backends
from deepsim.runtime.machine import cpu_name, versions

PACKAGES = (
    *("deepsim", "numpy", "pillow", "click", "tqdm", "onnxruntime", "onnxruntime-gpu", "torch", "torchvision"),
    *("safetensors", "onnx", "tensorrt", "tensorrt-rtx", "pycuda", "cuda-bindings", "h5py", "scipy"),
)


def diagnose() -> dict[str, Any]:
    """Collect versions, deepsim's folder, CPU, GPUs, their kernels, backends (None: usable, else why not), warnings."""
    installed, gpus = versions(PACKAGES), find_gpus()
    return {
        "versions": installed,
        "python": platform.python_version(),
        "folder": str(Path(native_library.__file__).resolve().parents[1]),
        "platform": platform.platform(),
        "cpu": cpu_name(),
        "threads": library_threads() or "default",
        "instruction_sets": _of_library(native_library.instruction_sets),
        "cuda_architectures": _of_library(native_library.cuda_architectures),
        "gpu": asdict(gpus),
        "cuda_kernels": _of_library(lambda: [_kernels(f"cuda:{index}") for index in range(len(gpus.names))]),
        "backends": available_backends(),
        "warnings": _warnings(installed),
    }


@click.command(epilog="Example: deepsim doctor --json")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(as_json: bool) -> None:
    """Show versions, GPUs and their kernels, and which backends can run here, with the reason for each that cannot."""
    found = diagnose()
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    click.echo(f"python {found['python']}, {found['platform']}")
    click.echo(f"deepsim is imported from {found['folder']}")
    click.echo(f"cpu    {found['cpu']}, threads: {found['threads']}")
    click.echo(f"       libdeepsim has, best first: {', '.join(found['instruction_sets']) or 'not built'}")
    click.echo(f"gpu    {_gpu_line(found['gpu'])}")
    kernels = ", ".join(found["cuda_architectures"])
    click.echo(f"       libdeepsim has kernels for: {kernels or 'none, it was built without nvcc'}")
    for index, line in enumerate(found["cuda_kernels"]):
        click.echo(f"       cuda:{index}, fp16: {line}")
    click.echo("\nbackends")
    for name, reason in found["backends"].items():
        click.echo(f"  {name:13} {reason or 'usable'}")
    graphs = found["backends"]["onnxruntime"]
    click.echo(f"  encoders that are graphs: {'onnxruntime' if graphs is None else f'none can run, {graphs}'}")
    click.echo("\npackages")
    for name, version in found["versions"].items():
        click.echo(f"  {name:16} {version or 'not installed'}")
    for warning in found["warnings"]:
        click.echo(f"\nWarning: {warning}", err=True)


def _of_library(names: Callable[[], list[str]]) -> list[str]:
    return [] if native_library.reason_unavailable() else names()


def _kernels(device: str) -> str:
    try:
        return native_library.describe_kernels(device)
    except DeepsimError as error:
        return str(error)


def _gpu_line(gpu: dict[str, Any]) -> str:
    return f"{', '.join(gpu['names'])} (driver for CUDA {gpu['cuda']})" if gpu["names"] else str(gpu["reason"])


def _warnings(installed: dict[str, str | None]) -> list[str]:
    if installed["onnxruntime"] and installed["onnxruntime-gpu"]:
        return [
            "onnxruntime and onnxruntime-gpu: both are installed and overwrite each other's files. "
            "Run: pip uninstall -y onnxruntime onnxruntime-gpu, then install one of them."
        ]
    return []
