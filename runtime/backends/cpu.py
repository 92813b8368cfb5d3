"""Run a bundle in libdeepsim: our fused kernels on the CPU."""

from __future__ import annotations

import os
from dataclasses import dataclass

from deepsim.runtime import native_library
from deepsim.runtime.backends.sessions import Sessions
from deepsim.runtime.bundle import Bundle
from deepsim.runtime.native_inverter import NativeInverter

INSTRUCTION_SET_VARIABLE = "DEEPSIM_INSTRUCTION_SET"


@dataclass(frozen=True)
class Options:
    """``half_fc_weights`` stores the fully connected weights as fp16; arithmetic stays fp32."""

    half_fc_weights: bool = False


def reason_unavailable(device: str = "auto") -> str | None:
    """Tell why the library cannot run on ``device`` ("auto", "cpu", "cuda:N") here; None when it can."""
    if device.startswith("cuda:"):
        return "it runs on the CPU only"
    return native_library.reason_unavailable()


def create(bundle: Bundle, device: str, max_batch: int, options: Options) -> Sessions:
    """Load a bundle.

    DEEPSIM_INSTRUCTION_SET (avx512, avx2, baseline) restricts the kernels; DEEPSIM_NUM_THREADS sets the threads, by
    default one for each CPU of the affinity mask and of the control groups' quota. Where the system grants fewer, a
    warning of the logger "deepsim" says so.
    Raises BundleError and its kinds for the bundle, DeviceError for an instruction set that this CPU lacks and for
    threads that DEEPSIM_NUM_THREADS asks for and the system refuses, OutOfMemory.
    """
    return CpuBackend(bundle, max_batch, options).sessions()


class CpuBackend(NativeInverter):
    """Shared by all threads: calls wait for each other, each uses all CPUs."""

    name = "cpu"
    device = "cpu"

    def __init__(self, bundle: Bundle, max_batch: int, options: Options) -> None:
        wanted = os.environ.get(INSTRUCTION_SET_VARIABLE) or None
        super().__init__(bundle, max_batch=max_batch, half_fc_weights=int(options.half_fc_weights), isa=wanted)
