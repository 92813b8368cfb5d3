"""What PyTorch computes with: devices, by the names that options have for them, and threads."""

from __future__ import annotations

from deepsim.runtime.backends.devices import library_threads
from deepsim.runtime.errors import DeviceError, UsageError


def device_of(name: str, has_cuda: bool) -> str:
    """Return PyTorch's name of a device that was asked for. Raises DeviceError, UsageError."""
    if name == "auto":
        return "cuda" if has_cuda else "cpu"
    if name.startswith("cuda") and not has_cuda:
        raise DeviceError(f"device {name!r}: PyTorch sees no CUDA GPU. Pass --device cpu, or check the driver.")
    if name != "cpu" and not name.startswith("cuda"):
        raise UsageError(f"device {name!r}: expected auto, cpu, cuda or cuda:N.")
    return name


def use_threads(asked: int) -> None:
    """Let PyTorch compute with as many CPU threads as ``asked``; 0: its own choice, within a limit or a CPU quota."""
    import torch

    threads = asked or library_threads()
    if threads:
        torch.set_num_threads(min(threads, asked or torch.get_num_threads()))
