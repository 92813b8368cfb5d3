"""Run a bundle in libdeepsim: our fused kernels on an NVIDIA GPU, the whole loop on the device."""

from __future__ import annotations

from dataclasses import dataclass, replace

from deepsim.runtime import native_library
from deepsim.runtime.backends.devices import find_gpus
from deepsim.runtime.backends.sessions import Sessions
from deepsim.runtime.bundle import Bundle
from deepsim.runtime.errors import DeviceError
from deepsim.runtime.native_inverter import NativeInverter

PRECISIONS = ("fp16", "bf16", "fp32")


@dataclass(frozen=True)
class Options:
    """``precision`` is how activations and weights are stored; with ``stable`` an image has the same bits in any batch.

    "fp16" or, for values beyond 65504, "bf16", with fp32 sums; "fp32" stores and multiplies in fp32, without tensor
    cores or TF32, as a reference. ``stable`` costs speed for few images.
    """

    precision: str = PRECISIONS[0]
    stable: bool = False


def reason_unavailable(device: str = "auto") -> str | None:
    """Tell why the library cannot run on ``device`` ("auto", "cpu", "cuda:N") here; None when it can."""
    if device == "cpu":
        return "it runs on GPUs only"
    reason = native_library.reason_unavailable()
    if reason is not None:
        return reason
    gpus = find_gpus()
    if gpus.reason is not None:
        return gpus.reason
    try:
        native_library.check_device(_named(device))
    except DeviceError as error:
        return str(error).removeprefix("cuda: ")
    return None


def create(bundle: Bundle, device: str, max_batch: int, options: Options) -> Sessions:
    """Load a bundle onto a GPU, "auto": the first.

    Raises BundleError and its kinds for the bundle, DeviceError for the GPU, OutOfMemory naming need and what is free,
    NumericError for weights that fp16 cannot hold, UsageError for another precision.
    """
    backend = CudaBackend(bundle, _named(device), max_batch, options)
    return replace(backend.sessions(), gpu=backend)


class CudaBackend(NativeInverter):
    """Shared by all threads: calls wait for each other."""

    name = "cuda"

    def __init__(self, bundle: Bundle, device: str, max_batch: int, options: Options) -> None:
        precision, stable = options.precision, int(options.stable)
        super().__init__(bundle, max_batch=max_batch, device=device, precision=precision, stable=stable)
        self.device = device


def _named(device: str) -> str:
    return "cuda:0" if device == "auto" else device
