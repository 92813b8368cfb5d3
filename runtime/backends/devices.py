"""Devices by name, NVIDIA's GPUs as the driver tells of them, and the number of threads."""

from __future__ import annotations

import ctypes
import os
import re
from dataclasses import dataclass

from deepsim.runtime import native_library
from deepsim.runtime.errors import UsageError

_NOT_INITIALIZED = 3
THREADS_VARIABLE = "DEEPSIM_NUM_THREADS"
_DEVICE = re.compile(r"(?:cuda:)?(\d{1,3})")


@dataclass(frozen=True)
class Gpus:
    """The GPUs of this machine by name; without any, ``reason`` tells why. ``cuda`` is what the driver supports."""

    names: tuple[str, ...] = ()
    cuda: str | None = None
    reason: str | None = None


def parse_device(device: int | str) -> str:
    """Return "auto", "cpu" or "cuda:N" for these, for "cuda" and for the ordinal N as int or text.

    Raises UsageError on anything else.
    """
    text = str(device) if isinstance(device, (int, str)) and not isinstance(device, bool) else type(device).__name__
    if text in ("auto", "cpu"):
        return text
    match = _DEVICE.fullmatch("0" if text == "cuda" else text)
    if match is None:
        raise UsageError(f"device {text!r}: unknown, expected auto, cpu, or a GPU as 0 or cuda:0.")
    return f"cuda:{int(match[1])}"


def gpu_ordinal(device: str) -> int:
    """Return N of "cuda:N"."""
    return int(device.removeprefix("cuda:"))


def num_threads() -> int | None:
    """Read the number of threads from DEEPSIM_NUM_THREADS; None when it is not set. Raises UsageError otherwise."""
    text = os.environ.get(THREADS_VARIABLE, "")
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 4096:
        raise UsageError(f"{THREADS_VARIABLE}: {text!r}, expected a number of threads from 1 to 4096.")
    return int(text)


def library_threads() -> int | None:
    """Return how many threads PyTorch, ONNX Runtime and OpenVINO get; None leaves the choice to them.

    They count the CPUs of the affinity mask. Where control groups (containers) have a smaller quota of CPU time, that
    many threads are stopped while they wait for each other: then it is the quota, rounded up, as in libdeepsim. Raises
    as :func:`num_threads`.
    """
    asked = num_threads()
    if asked is not None or native_library.reason_unavailable() is not None:
        return asked
    usable = native_library.usable_cpus()
    return usable if usable < len(os.sched_getaffinity(0)) else None


def find_gpus() -> Gpus:
    """Ask the CUDA driver library, without any CUDA package, which GPUs it sees."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return Gpus(reason="no NVIDIA driver (libcuda.so.1 not found)")
    status = driver.cuInit(0)
    if status != 0:
        forked = ": CUDA was used before this process was forked" if status == _NOT_INITIALIZED else ""
        return Gpus(reason=f"the NVIDIA driver does not start (cuInit returned {status}{forked})")
    version, count = ctypes.c_int(), ctypes.c_int()
    if driver.cuDriverGetVersion(ctypes.byref(version)) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return Gpus(reason="the NVIDIA driver does not answer")
    cuda = f"{version.value // 1000}.{version.value % 1000 // 10}"
    names = tuple(_gpu_name(driver, ordinal) for ordinal in range(count.value))
    return Gpus(names, cuda, None if names else "the NVIDIA driver sees no GPU")


def _gpu_name(driver: ctypes.CDLL, ordinal: int) -> str:
    handle, name = ctypes.c_int(), ctypes.create_string_buffer(256)
    if driver.cuDeviceGet(ctypes.byref(handle), ordinal) != 0 or driver.cuDeviceGetName(name, 256, handle) != 0:
        return "unknown GPU"
    return name.value.decode(errors="replace")
