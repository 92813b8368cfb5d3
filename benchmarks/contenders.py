"""Who takes part: the backends of this package, and what a user would otherwise run the same networks with."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from deepsim.benchmarks.timing import Contender, Tolerance
from deepsim.runtime.backends import BACKENDS, reasons
from deepsim.runtime.bundle import Bundle
from deepsim.runtime.errors import DeviceError
from deepsim.runtime.inverter import Inverter

INSTRUCTION_SETS = ("avx512", "avx2")
# What keeps the libraries to AVX2. ONNX Runtime has no such switch: onnxruntime_avx2.py makes a copy of it that sees
# no AVX-512, with this file in its folder.
AVX2_ONLY = "AVX2_ONLY"
_RESTRICT = {
    "DEEPSIM_INSTRUCTION_SET": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "DNNL_MAX_CPU_ISA": "AVX2",
    "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
}


@dataclass(frozen=True)
class Entry:
    """A contender: what opens it, what it needs installed, whether it is ours, and how exact it must be."""

    open: Callable[[Bundle, int], Contender]
    packages: tuple[str, ...] = ()
    own: bool = False
    tolerance: Tolerance = field(default_factory=Tolerance)


def _half(bundle: Bundle, max_batch: int) -> Contender:
    return Inverter(bundle, "cpu", "cpu", max_batch, half_fc_weights=True)


def _onnxruntime_2x2(bundle: Bundle, max_batch: int) -> Contender:
    from deepsim.benchmarks.peers import RewrittenBackend

    return RewrittenBackend(bundle, "cpu", max_batch)


def _openvino(bundle: Bundle, max_batch: int) -> Contender:
    from deepsim.benchmarks.peers import OpenVino

    return OpenVino(bundle)


def _channels_last(bundle: Bundle, max_batch: int) -> Contender:
    from deepsim.benchmarks.peers import ChannelsLastBackend

    return ChannelsLastBackend(bundle, "cpu")


def _compiled(bundle: Bundle, max_batch: int) -> Contender:
    from deepsim.benchmarks.peers import CompiledBackend

    return CompiledBackend(bundle, "cpu")


def _frozen(bundle: Bundle, max_batch: int) -> Contender:
    from deepsim.benchmarks.peers import FrozenBackend

    return FrozenBackend(bundle, "cpu")


# Beside the backends, all on the CPU.
PEERS = {
    "cpu-half": Entry(_half, own=True, tolerance=Tolerance(1e-2, 2, 0.1)),
    "onnxruntime-2x2": Entry(_onnxruntime_2x2, ("onnx", "onnxruntime")),
    "openvino": Entry(_openvino, ("openvino",)),
    "torch-channels-last": Entry(_channels_last, ("torch", "safetensors")),
    "torch-compile": Entry(_compiled, ("torch", "safetensors")),
    "torch-compile-frozen": Entry(_frozen, ("torch", "safetensors")),
}
NAMES = (*BACKENDS, *PEERS)
OWN = ("cpu", "cuda", "cuda-mma", "cuda-wgmma", *(name for name, entry in PEERS.items() if entry.own))


def unrestricted(instruction_set: str) -> dict[str, str]:
    """Map the contenders that cannot be kept to an instruction set here to the reason."""
    spec = find_spec("onnxruntime")
    folder = Path(spec.origin).parent if spec and spec.origin else None
    if instruction_set == "avx512" or folder is None or (folder / AVX2_ONLY).exists():
        return {}
    reason = f"it cannot be kept to {instruction_set} (a copy made by deepsim.benchmarks.onnxruntime_avx2 can)"
    return {name: reason for name in NAMES if name.startswith("onnxruntime")}


def unusable(device: str) -> dict[str, str | None]:
    """Map every contender to why it cannot take part on ``device``; None where it can."""
    found = reasons(device)
    for name, entry in PEERS.items():
        missing = [package for package in entry.packages if find_spec(package) is None]
        if device.startswith("cuda:"):
            found[name] = "it runs on the CPU only"
        elif missing:
            found[name] = f"{', '.join(missing)} not installed (pip install 'deepsim[bench]')"
        else:
            found[name] = found["cpu"] if entry.own else None
    return found


def open_contender(name: str, bundle: Bundle, device: str, max_batch: int) -> Contender:
    """Load a bundle into the named contender."""
    return PEERS[name].open(bundle, max_batch) if name in PEERS else Inverter(bundle, name, device, max_batch)


def tolerances() -> dict[str, Tolerance]:
    """Return how far from the first contender each may be, where it is not the default."""
    return {name: entry.tolerance for name, entry in PEERS.items()}


def restrict(instruction_set: str) -> None:
    """Keep every library to an instruction set, through the environment. Raises DeviceError when it is too late."""
    if instruction_set == "avx512":
        return
    loaded = [name for name in ("torch", "openvino") if name in sys.modules]
    if loaded:
        raise DeviceError(f"instruction set {instruction_set}: {loaded[0]} is loaded already. Start a new process.")
    os.environ.update(_RESTRICT)
