"""Build one TensorRT engine in a process of its own: ``python engine_build.py < job.json``, events on stdout.

A builder may leak, crash or hang, so it lives apart from the exporter. This file stands alone: it is started by its
path and imports the vendor's package and the standard library only. It writes one JSON object per line:

* ``{"event": "log", "severity": "WARNING", "message": ...}``
* ``{"event": "progress", "phase": ..., "done": 3, "steps": 18}``
* ``{"event": "failed", "kind": "numeric" or "environment", "message": ...}``
* ``{"event": "built", ...}`` with everything that the sidecar records

The job: ``target`` (tensorrt, tensorrt-rtx), ``onnx`` and ``plan`` (paths), ``precision``, ``islands`` (layers that
may be float32 in an fp16 engine), ``opt_batch``, ``max_batch``, ``workspace_bytes`` (0: no limit).
"""

from __future__ import annotations

import collections
import contextlib
import ctypes
import importlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
# What TensorRT-RTX builds for. Turing has engines of its own: beside it the later ones would be slower.
TARGET_GPUS = {"ampere": (80, 86, 89, 120, 121), "turing": (75,)}
WEIGHTED = ("CONVOLUTION", "DECONVOLUTION", "MATRIX_MULTIPLY")
_WANTED = {"fp16": "HALF", "fp32": "FLOAT"}
_NAMES = {"FLOAT": "float32", "HALF": "float16"}  # others are named as in numpy, in capitals
_PR_SET_PDEATHSIG, _MAJOR, _MINOR = 1, 75, 76


class BuildError(Exception):
    """The engine cannot be built or is not what was asked for; ``kind`` is "numeric" or "environment"."""

    def __init__(self, message: str, kind: str = "environment") -> None:
        super().__init__(message)
        self.kind = kind


def probe_gpu() -> dict[str, Any] | None:
    """Ask the driver for the first GPU: name, compute capability, CUDA version of the driver. None: there is none.

    Without a driver a TensorRT runtime may crash the process, so this comes before one is made.
    """
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    device, major, minor, version = (ctypes.c_int() for _ in range(4))
    name = ctypes.create_string_buffer(256)
    codes = (
        cuda.cuInit(0),
        cuda.cuDeviceGet(ctypes.byref(device), 0),
        cuda.cuDeviceGetName(name, len(name), device),
        cuda.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, device),
        cuda.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, device),
        cuda.cuDriverGetVersion(ctypes.byref(version)),
    )
    if any(codes):
        return None
    driver = f"CUDA {version.value // 1000}.{version.value % 1000 // 10}"
    return {
        "name": name.value.decode(errors="replace"),
        "compute_capability": f"{major.value}.{minor.value}",
        "driver": driver,
    }


def build(trt: Any, job: dict[str, Any], emit: Any) -> dict[str, Any]:
    """Parse, check the types, build, write the plan; return what the sidecar records. Raises BuildError."""
    logger = _logger(trt, emit)
    builder = _required(trt.Builder(logger), "a builder")
    network = _parsed(trt, builder, logger, Path(job["onnx"]).read_bytes())
    layers = layer_types(network)
    check_types(layers, job["precision"], frozenset(job["islands"]))
    config = _required(builder.create_builder_config(), "a builder configuration")
    capabilities = _configure(trt, config, job)
    _limit(trt, config, job)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # else the inspector knows no types
    profiles = _profiles(builder, network, config, job)
    config.progress_monitor = _monitor(trt, emit)
    plan = _required(builder.build_serialized_network(network, config), "an engine")
    data = bytes(plan)
    Path(job["plan"]).write_bytes(data)
    gpu = probe_gpu()
    return {
        "tensorrt_version": trt.__version__,
        "compute_capabilities": capabilities or [gpu["compute_capability"] if gpu else "unknown"],
        "gpu": gpu["name"] if gpu else None,
        "driver": gpu["driver"] if gpu else None,
        "profiles": profiles,
        "tensors": _tensors(network),
        "layers": _summary(layers, job),
        "inspected": _inspect(trt, logger, data, job, gpu),
    }


def layer_types(network: Any) -> list[dict[str, str]]:
    """List a parsed network's layers: the ONNX node, the kind, the element type of the first output."""
    found = []
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        node = layer.metadata.removeprefix("[ONNX Layer: ").removesuffix("]") or layer.name
        found.append({"node": node, "kind": layer.type.name, "dtype": layer.get_output(0).dtype.name})
    return found


def check_types(layers: list[dict[str, str]], precision: str, islands: frozenset[str]) -> None:
    """Require that every convolution, deconvolution and matrix product has the engine's precision.

    An fp16 engine may hold ``islands`` in float32, named by ONNX node. Raises BuildError (numeric): strongly typed
    builders take precisions from the graph, so a graph of another precision would build without a word.
    """
    weighted = [layer for layer in layers if layer["kind"] in WEIGHTED]
    wrong = [
        f"{layer['node']} is {layer['dtype']}"
        for layer in weighted
        if layer["dtype"] != (_WANTED["fp32"] if layer["node"] in islands else _WANTED[precision])
    ]
    if wrong or not weighted:
        found = f"{', '.join(wrong[:5])} ({len(wrong)} of {len(weighted)})" if weighted else "no layer with weights"
        raise BuildError(
            f"{precision} engine: {found}, expected {_WANTED[precision]} outside {sorted(islands)}", "numeric"
        )


def _summary(layers: list[dict[str, str]], job: dict[str, Any]) -> dict[str, Any]:
    weighted = [layer for layer in layers if layer["kind"] in WEIGHTED]
    casts = [layer for layer in layers if layer["kind"] == "CAST" and not layer["dtype"].startswith("INT")]
    return {
        "count": len(layers),
        "dtypes": dict(sorted(collections.Counter(layer["dtype"] for layer in layers).items())),
        "weighted": len(weighted),
        "weighted_half": sum(layer["dtype"] == "HALF" for layer in weighted),
        "fp32_islands": sorted(job["islands"]),
        "casts": len(casts),
    }


def _required(value: Any, what: str) -> Any:
    if value is None:
        raise BuildError(f"TensorRT returned nothing, expected {what}")
    return value


def _parsed(trt: Any, builder: Any, logger: Any, data: bytes) -> Any:
    strong = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)  # TensorRT 11 knows no other network
    network = _required(builder.create_network(0 if strong is None else 1 << int(strong)), "a network")
    parser = _required(trt.OnnxParser(network, logger), "a parser")
    if not parser.parse(data):
        errors = "; ".join(str(parser.get_error(index)) for index in range(parser.num_errors))
        raise BuildError(f"the ONNX parser refused the graph: {errors}")
    return network


def _configure(trt: Any, config: Any, job: dict[str, Any]) -> list[str]:
    """Set the target GPUs; return their compute capabilities (empty: the GPU at hand)."""
    if job["precision"] == "fp32" and hasattr(trt.BuilderFlag, "TF32"):
        config.clear_flag(trt.BuilderFlag.TF32)  # ten bits of mantissa are not fp32
    if job["target"] != "tensorrt-rtx":
        return []
    numbers = TARGET_GPUS[job["gpus"]]
    config.num_compute_capabilities = len(numbers)
    for index, number in enumerate(numbers):
        if not config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{number}"), index):
            raise BuildError(f"compute capability {number} was refused")
    return [f"{number // 10}.{number % 10}" for number in numbers]


def _limit(trt: Any, config: Any, job: dict[str, Any]) -> None:
    if job["workspace_bytes"]:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, job["workspace_bytes"])


def _profiles(builder: Any, network: Any, config: Any, job: dict[str, Any]) -> list[dict[str, Any]]:
    profile = _required(builder.create_optimization_profile(), "an optimization profile")
    recorded = []
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        extents = tuple(tensor.shape)[1:]
        shapes = {key: (batch, *extents) for key, batch in zip(("min", "opt", "max"), _batches(job), strict=True)}
        profile.set_shape(tensor.name, shapes["min"], shapes["opt"], shapes["max"])
        recorded.append({"input": tensor.name, **shapes})
    if not profile or config.add_optimization_profile(profile) < 0:
        raise BuildError(f"the optimization profile {recorded} was refused")
    return recorded


def _batches(job: dict[str, Any]) -> tuple[int, int, int]:
    return 1, job["opt_batch"], job["max_batch"]


def _tensors(network: Any) -> dict[str, Any]:
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    outputs = [network.get_output(index) for index in range(network.num_outputs)]
    return {
        tensor.name: {
            "mode": mode,
            "dtype": _NAMES.get(tensor.dtype.name, tensor.dtype.name.lower()),
            "shape": list(tensor.shape),
        }
        for mode, side in (("input", inputs), ("output", outputs))
        for tensor in side
    }


def _inspect(trt: Any, logger: Any, data: bytes, job: dict[str, Any], gpu: dict[str, Any] | None) -> str:
    """Check the built engine's layers, where a GPU can load it, and save them as JSON beside the plan; say so.

    Raises BuildError (numeric) when a layer of an fp16 engine with weights computes in another type.
    """
    if gpu is None:
        return "not inspected: no GPU"
    plan = Path(job["plan"])
    here = int(gpu["compute_capability"].replace(".", ""))
    if job["target"] == "tensorrt-rtx" and here not in TARGET_GPUS[job["gpus"]]:
        return f"not inspected: {gpu['name']} (SM {here}) is not among the engine's targets"
    engine = _required(_required(trt.Runtime(logger), "a runtime").deserialize_cuda_engine(data), "a loaded engine")
    inspector = _required(engine.create_engine_inspector(), "an inspector")
    report = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
    plan.with_suffix(".layers.json").write_text(report)
    wrong = not_half(json.loads(report), frozenset(job["islands"])) if job["precision"] == "fp16" else []
    if wrong:
        raise BuildError(f"fp16 engine: {', '.join(wrong[:5])} read float32 in the built engine", "numeric")
    return f"inspected on {gpu['name']}: {plan.stem}.layers.json"


def not_half(report: dict[str, Any], islands: frozenset[str]) -> list[str]:
    """Name the layers with weights in an inspector's report (JSON, detailed) whose first input is not Half.

    The input tells: a last layer may write float32 and still compute in half. Layers of ``islands`` are passed over.
    """
    wrong = []
    for layer in report["Layers"]:
        kind = f"{layer.get('LayerType', '')} {layer.get('ParameterType', '')}".lower()
        if not any(word in kind for word in ("conv", "gemm", "matrix")) or not layer.get("Inputs"):
            continue  # "conv" is in convolution and deconvolution
        name = layer["Name"]
        datatype = layer["Inputs"][0].get("Format/Datatype") or layer["Inputs"][0].get("Datatype", "")
        if not any(word in datatype for word in ("Half", "FP16")) and not any(island in name for island in islands):
            wrong.append(f"{name} ({datatype})")
    return wrong


def _logger(trt: Any, emit: Any) -> Any:
    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            name = severity.name.split("_")[-1]
            if name in ("ERROR", "WARNING"):
                emit({"event": "log", "severity": name, "message": message})

    return Logger()


def _monitor(trt: Any, emit: Any) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.steps: dict[str, int] = {}

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            self.steps[phase] = steps
            emit({"event": "progress", "phase": phase, "done": 0, "steps": steps})

        def step_complete(self, phase: str, step: int) -> bool:
            emit({"event": "progress", "phase": phase, "done": step + 1, "steps": self.steps.get(phase, 0)})
            return True

        def phase_finish(self, phase: str) -> None:
            steps = self.steps.get(phase, 0)
            emit({"event": "progress", "phase": phase, "done": steps, "steps": steps})

    return Monitor()


def main() -> None:
    """Read the job from stdin, build, write events; exits 0 when built and 1 when not."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the exporter ends this process itself
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # Linux: do not outlive the exporter
    events = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a vendor's library prints must not mix with the events

    def emit(event: dict[str, Any]) -> None:
        events.write(json.dumps(event) + "\n")

    job = json.load(sys.stdin)
    try:
        emit({"event": "built", **build(importlib.import_module(MODULES[job["target"]]), job, emit)})
    except (BuildError, ImportError, OSError, MemoryError) as error:
        emit({"event": "failed", "kind": getattr(error, "kind", "environment"), "message": f"{error}"})
        sys.exit(1)


if __name__ == "__main__":
    main()
