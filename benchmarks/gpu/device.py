"""The GPU that is measured: its memory, its clock, its graphs, and what its kernels take, all through PyTorch."""

from __future__ import annotations

import gc
import json
import math
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from shutil import which
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepsim.runtime.backends import cuda
from deepsim.runtime.errors import DeviceError

Call = Callable[[], Tensor]
Result = TypeVar("Result")
CUDA_PROVIDER = "CUDAExecutionProvider"
WARM_UP = 3  # calls before anything is timed, recorded or profiled
# Kernels of a type that no network has, run first in a recording: CUPTI 13.0 loses the first of all but the first one.
MARKERS, MARKER = 512, "FillFunctor<short>"


class Kernel(NamedTuple):
    """One kernel that ran: its name, seconds on the GPU, and when it started, in seconds."""

    name: str
    seconds: float
    start: float = 0.0


def queued_seconds(call: Callable[[], object], count: int) -> float:
    """Return seconds for one of ``count`` calls, queued one after the other, between two CUDA events."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    torch.cuda.synchronize()
    start.record()
    for _ in range(count):
        call()
    end.record()
    torch.cuda.synchronize()
    return float(start.elapsed_time(end)) / 1000 / count


def captured(call: Callable[[], Result]) -> Callable[[], Result]:
    """Return a replay of a call as one CUDA graph."""
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UP):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    before = torch.cuda.current_stream()
    try:
        with torch.cuda.graph(graph):
            result = call()
    finally:
        torch.cuda.set_stream(before)  # which PyTorch does not where this fails

    def replay(alive: object = call) -> Result:  # its memory is what the graph reads
        graph.replay()
        return result

    return replay


class Gpu:
    """The first GPU. Raises DeviceError where PyTorch sees none, or our library has no kernels for it."""

    device = "cuda"  # of PyTorch's tensors
    provider = CUDA_PROVIDER  # of ONNX Runtime

    def __init__(self) -> None:
        if not torch.cuda.is_available():
            raise DeviceError(
                "gpu: PyTorch sees none, expected an NVIDIA GPU. Run this where PyTorch for CUDA has one."
            )
        reason = cuda.reason_unavailable("cuda:0")
        if reason is not None:
            raise DeviceError(f"gpu: the backend cuda cannot run ({reason.rstrip('.')}). See deepsim doctor.")
        torch.cuda.set_stream(torch.cuda.Stream())  # type: ignore[no-untyped-call]  # one that has a handle: to ONNX Runtime, 0 is none
        torch.backends.cudnn.benchmark = True  # PyTorch at its best
        self.name = torch.cuda.get_device_name()
        major, minor = torch.cuda.get_device_capability()
        self.architecture = 10 * major + minor

    @property
    def stream(self) -> int:
        """Return the handle of PyTorch's current stream."""
        return int(torch.cuda.current_stream().cuda_stream)

    def tensor(self, array: NDArray[Any]) -> Tensor:
        """Copy a host array to the GPU."""
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Take memory of the GPU, of undefined content."""
        return torch.empty(shape, dtype=dtype, device=self.device)

    def let_go(self) -> None:
        """Give memory that PyTorch keeps but does not use back to the GPU, for others."""
        gc.collect()  # forms and their compiled functions refer to each other
        torch.cuda.empty_cache()

    def synchronize(self) -> None:
        """Wait for all work."""
        torch.cuda.synchronize()

    def seconds(self, call: Callable[[], object], count: int) -> float:
        """Return seconds for one of ``count`` calls, queued one after the other."""
        return queued_seconds(call, count)

    def latency(self, call: Callable[[], object]) -> float:
        """Return seconds from a call on an idle GPU until its result is there, by the host's clock."""
        self.synchronize()
        start = time.perf_counter()
        call()
        self.synchronize()
        return time.perf_counter() - start

    def captured(self, function: Callable[[Tensor], Tensor], argument: Tensor) -> Call:
        """Return a replay of ``function(argument)`` as one CUDA graph."""
        return captured(lambda: function(argument))

    def attach_profiler(self) -> None:
        """Record something: before the graphs are made whose kernels shall be recorded, CUPTI wants that.

        What is timed afterwards may take longer. Raises DeviceError where nothing is recorded.
        """
        self._trace(lambda: None, 1)

    def kernels(self, call: Callable[[], object], calls: int, ordered: bool = True) -> list[list[Kernel]]:
        """Return the kernels of each of ``calls`` calls, in the order in which they ran.

        Not ``ordered``: side by side in branches of a graph, as cuDNN's may be, they start now so, now so.
        """
        for _ in range(WARM_UP):
            call()
        return split(self._trace(call, calls), calls, ordered)

    def _trace(self, call: Callable[[], object], calls: int) -> list[Kernel]:
        marked = torch.zeros(1, dtype=torch.int16, device=self.device)
        self.synchronize()
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            for _ in range(MARKERS):
                marked.fill_(1)
            self.synchronize()
            for _ in range(calls):
                call()
            self.synchronize()
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "trace.json"
            profile.export_chrome_trace(str(file))
            return after_markers(kernels_of(json.loads(file.read_text())))


def clocks() -> str | None:
    """Return what nvidia-smi tells of driver, clocks, power limit and temperature of the first GPU; None without it."""
    if which("nvidia-smi") is None:
        return None
    fields = "driver_version,clocks.sm,clocks.max.sm,clocks.mem,power.limit,temperature.gpu"
    command = ["nvidia-smi", "--id=0", f"--query-gpu={fields}", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True)
    return f"{fields}: {done.stdout.strip()}" if done.returncode == 0 else None


def kernels_of(trace: Mapping[str, Any]) -> list[Kernel]:
    """Return the kernels of a Chrome trace of PyTorch's profiler, in the order of their start."""
    events = [event for event in trace["traceEvents"] if event.get("cat") == "kernel"]
    ran = [Kernel(event["name"], event["dur"] / 1e6, event["ts"] / 1e6) for event in events]
    return sorted(ran, key=lambda kernel: kernel.start)


def busy_seconds(kernels: Sequence[Kernel]) -> float:
    """Return the time in which one of several kernels runs, or more of them side by side."""
    total, end = 0.0, -math.inf
    for kernel in sorted(kernels, key=lambda kernel: kernel.start):
        begin, finish = max(kernel.start, end), kernel.start + kernel.seconds
        total += max(finish - begin, 0.0)
        end = max(end, finish)
    return total


def after_markers(kernels: list[Kernel]) -> list[Kernel]:
    """Return what ran after the last marker. Raises DeviceError where none was recorded: more may be missing then."""
    marked = [at for at, kernel in enumerate(kernels) if MARKER in kernel.name]
    if not marked:
        raise DeviceError(
            f"profiler: {len(kernels)} kernels recorded and not those that mark the beginning. "
            "Let this user profile, as NVIDIA's driver may."
        )
    return kernels[marked[-1] + 1 :]


def split(kernels: list[Kernel], calls: int, ordered: bool = True) -> list[list[Kernel]]:
    """Cut what ``calls`` equal calls ran into calls. Raises DeviceError where they are not equal, ordered or not."""
    each, rest = divmod(len(kernels), calls)
    parts = [kernels[at : at + each] for at in range(0, len(kernels), max(each, 1))]
    names = [[kernel.name for kernel in part] for part in parts]
    names = names if ordered else [sorted(own) for own in names]
    if rest or not each or any(part != names[0] for part in names):
        raise DeviceError(f"profiler: {len(kernels)} kernels in {calls} equal calls, expected the same in each.")
    return parts
