"""Run a bundle's ONNX graphs in ONNX Runtime: on the CPU, or on a GPU through its CUDA execution provider.

Sessions are built from bytes whose hash has been checked, never from a path. In :meth:`OnnxRuntimeBackend.reencode`
the features and the images lie in buffers of fixed address: the generator's crop is the very memory that the encoder
reads next, so a loop allocates nothing and, on a GPU, only the kept iterations leave the device.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from deepsim.runtime.backends.devices import find_gpus, gpu_ordinal, library_threads
from deepsim.runtime.backends.sessions import Sessions
from deepsim.runtime.bundle import Bundle
from deepsim.runtime.errors import BundleError, DeviceError, OutOfMemory, missing_extra
from deepsim.runtime.pixels import Pixels

if TYPE_CHECKING:
    import onnxruntime

_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
# fp32 means fp32, so no TF32; HEURISTIC, because the default searches anew whenever the batch size changes
_CUDA_OPTIONS = {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}
_TYPES = {"uint8": "tensor(uint8)", "float32": "tensor(float)"}
# The grey levels of our generator graphs before they are rounded (export/onnx_from_layers.py): float32 RGB, NCHW.
LEVELS = "pixels/shifted"
_Port: TypeAlias = "tuple[str | int, ...]"  # element type, then the shape without the batch
_MEMORY_WORDS = ("allocate memory", "out of memory", "bad_alloc", "bfcarena")


@dataclass(frozen=True)
class Options:
    """This backend has no options."""


def reason_unavailable(device: str = "auto") -> str | None:
    """Tell why ONNX Runtime cannot run on ``device`` ("auto", "cpu", "cuda:N") here; None when it can."""
    if find_spec("onnxruntime") is None:
        return "onnxruntime is not installed (pip install 'deepsim[onnxruntime]')"
    if not device.startswith("cuda:"):
        return None
    if _CUDA not in _import().get_available_providers():
        return "the installed onnxruntime has no CUDA (it needs onnxruntime-gpu: pip install 'deepsim[gpu]')"
    gpus = find_gpus()
    if gpu_ordinal(device) >= len(gpus.names):
        return gpus.reason or f"no GPU {gpu_ordinal(device)}, the driver sees {len(gpus.names)}"
    return None


def create(bundle: Bundle, device: str, max_batch: int, options: Options) -> Sessions:
    """Load a bundle; "auto" takes the first GPU when ONNX Runtime can use one, else the CPU.

    Raises BundleError and its kinds for the bundle, DeviceError when the provider for the device does not start.
    """
    if device == "auto":
        device = "cuda:0" if reason_unavailable("cuda:0") is None else "cpu"
    backend = OnnxRuntimeBackend(bundle, device, max_batch)
    manifest = bundle.manifest
    return Sessions.of(backend, encodes=manifest.encoder is not None, decodes=manifest.generator is not None)


class OnnxEncoder:
    """A bundle's encoder, where it has one, in ONNX Runtime on one device; shared by all threads."""

    name = "onnxruntime"

    def __init__(self, bundle: Bundle, device: str) -> None:
        self._onnxruntime = _import()
        self.device = device
        self._bundle, manifest = bundle, bundle.manifest
        self._ports = manifest.tensors()
        self._feature_shape = manifest.feature_shape
        self._full, self._side = manifest.full_size, manifest.geometry.side
        self._encoder: Any = None  # where the bundle has none, nothing calls it
        if manifest.encoder is not None:
            self._encoder = self.open("encoder.onnx", ["image"], ["features"])

    def graph(self, name: str) -> bytes:
        """Return a graph of the bundle as it is run."""
        return self._bundle.read(name)

    def open(self, name: str, inputs: list[str], outputs: list[str]) -> onnxruntime.InferenceSession:
        """Load a graph. Raises BundleError where its inputs and outputs are not those that the manifest describes."""
        return self.load(name, self.graph(name), self._described(inputs + outputs))

    def load(self, name: str, data: bytes, ports: dict[str, _Port]) -> onnxruntime.InferenceSession:
        """Load a graph from its bytes; ``ports`` are all of its inputs and outputs. Raises as :meth:`open`."""
        options = self._onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = library_threads() or 0  # 0: ONNX Runtime's own choice
        provider: Any = _CPU
        if self.device != "cpu":
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
            provider = (_CUDA, {"device_id": str(gpu_ordinal(self.device)), **_CUDA_OPTIONS})
        with vendor_errors(name):
            session = self._onnxruntime.InferenceSession(data, options, providers=[provider], enable_fallback=0)
        wanted = _CPU if self.device == "cpu" else _CUDA
        if session.get_providers()[0] != wanted:
            raise DeviceError(
                f"onnxruntime: started with {session.get_providers()[0]}, expected {wanted} for device {self.device}. "
                "Choose device cpu, or repair the CUDA libraries (deepsim doctor)."
            )
        found = {port.name: (port.type, *port.shape[1:]) for port in (*session.get_inputs(), *session.get_outputs())}
        if found != ports:
            raise BundleError(f"{name}: has {found}, expected {ports}. Export the bundle again.")
        return session

    def _described(self, names: list[str]) -> dict[str, _Port]:
        """Return what the manifest says of inputs and outputs."""
        return {name: (_TYPES[self._ports[name]["dtype"]], *self._ports[name]["shape"][1:]) for name in names}

    def run(self, session: Any, source: tuple[str, NDArray[Any]], result: tuple[str, NDArray[Any]]) -> None:
        """Run a session from one host array into another."""
        name, array = result
        with vendor_errors(name):
            binding = session.io_binding()
            binding.bind_cpu_input(*source)
            binding.bind_output(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
            session.run_with_iobinding(binding)

    def encode(self, images: Pixels) -> NDArray[np.float32]:
        """Compute the features of images (see :mod:`deepsim.runtime.backends.sessions`)."""
        features = np.empty((len(images), *self._feature_shape), np.float32)
        self.run(self._encoder, ("image", images), ("features", features))
        return features


class OnnxRuntimeBackend(OnnxEncoder):
    """An ONNX Runtime session for each of a bundle's graphs, shared by all threads."""

    def __init__(self, bundle: Bundle, device: str, max_batch: int) -> None:
        super().__init__(bundle, device)
        self.max_batch = max_batch
        self._offset = bundle.manifest.geometry.offset
        self._generator: Any = None  # where the bundle has none, nothing calls it
        if bundle.manifest.generator is not None:
            self._generator = self._open_generator()
        self._idle: list[_Buffers] = []  # of calls to reencode that ended; list.append and list.pop are atomic

    def _open_generator(self) -> onnxruntime.InferenceSession:
        """Load the generator with its grey levels as one more output, so that no second graph takes memory for them.

        The levels are the very tensor that the graph rounds, whatever the runtime fuses. Raises as :meth:`open`.
        """
        data = self.graph("generator.onnx")
        ports = self._described(["features", "image", "image_full"])
        if LEVELS.encode() in data:
            data += one_more_output(LEVELS)
            ports[LEVELS] = (_TYPES["float32"], 3, self._full, self._full)
        return self.load("generator.onnx", data, ports)

    def decode_raw(self, features: NDArray[np.float32], full: bool) -> NDArray[np.float32]:
        """Generate images before clipping and rounding (see :mod:`deepsim.runtime.backends.sessions`).

        Raises BundleError for a graph of another program, which does not name them.
        """
        if all(port.name != LEVELS for port in self._generator.get_outputs()):
            raise BundleError(
                f"generator.onnx: no tensor {LEVELS}, expected one for raw images. Export the bundle again."
            )
        levels = np.empty((len(features), 3, self._full, self._full), np.float32)
        self.run(self._generator, ("features", features), (LEVELS, levels))
        start, end = (0, self._full) if full else (self._offset, self._offset + self._side)
        return np.ascontiguousarray(levels[:, :, start:end, start:end].transpose(0, 2, 3, 1))

    def decode(self, features: NDArray[np.float32], full: bool) -> Pixels:
        """Generate images from features (see :mod:`deepsim.runtime.backends.sessions`)."""
        side = self._full if full else self._side
        images = np.empty((len(features), side, side, 3), np.uint8)
        self.run(self._generator, ("features", features), ("image_full" if full else "image", images))
        return images

    def reencode(self, images: Pixels, iterations: int, keep: tuple[int, ...]) -> Pixels:
        """Re-encode images (see :mod:`deepsim.runtime.backends.sessions`)."""
        kept = np.empty((len(images), len(keep), self._side, self._side, 3), np.uint8)
        with vendor_errors("re-encoding"), self._buffers() as buffers:
            first, encode, decode = self._bindings(buffers, images)
            for iteration in range(1, iterations + 1):
                self._encoder.run_with_iobinding(first if iteration == 1 else encode)
                self._generator.run_with_iobinding(decode)
                if iteration in keep:
                    kept[:, keep.index(iteration)] = buffers.images.fetch(len(images), decode)
        return kept

    def _bindings(self, buffers: _Buffers, images: Pixels) -> tuple[Any, Any, Any]:
        """Bind the encoder to the caller's images, the encoder to the image buffer, and the generator to both."""
        n = len(images)
        first = self._encoder.io_binding()
        first.bind_cpu_input("image", images)
        buffers.features.bind(first.bind_output, "features", n)
        encode = self._encoder.io_binding()
        buffers.images.bind(encode.bind_input, "image", n)
        buffers.features.bind(encode.bind_output, "features", n)
        decode = self._generator.io_binding()
        buffers.features.bind(decode.bind_input, "features", n)
        buffers.images.bind(decode.bind_output, "image", n)
        return first, encode, decode

    @contextmanager
    def _buffers(self) -> Iterator[_Buffers]:
        try:
            buffers = self._idle.pop()
        except IndexError:
            buffers = _Buffers(self._onnxruntime, self.device, self.max_batch, self._feature_shape, self._side)
        yield buffers
        self._idle.append(buffers)  # not after an error: who knows what still refers to them


class _Memory:
    """Memory of fixed address on the device, for up to ``shape[0]`` rows."""

    def __init__(self, onnxruntime: Any, device: str, shape: tuple[int, ...], dtype: type[np.generic]) -> None:
        self.row, self.dtype = shape[1:], dtype
        self.place = ("cpu", 0) if device == "cpu" else ("cuda", gpu_ordinal(device))
        self.host = np.empty(shape, dtype) if device == "cpu" else None
        if self.host is not None:
            self.address: int = self.host.ctypes.data
        else:
            self.value = onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, dtype, *self.place)
            self.address = self.value.data_ptr()

    def bind(self, method: Any, name: str, n: int) -> None:
        """Bind the first ``n`` rows to a graph's input or output through ``bind_input`` or ``bind_output``."""
        method(name, *self.place, self.dtype, (n, *self.row), self.address)

    def fetch(self, n: int, binding: Any) -> NDArray[Any]:
        """Return the first ``n`` rows on the host; ``binding`` has just written them as its only output."""
        if self.host is not None:
            return self.host[:n]
        copied: NDArray[Any] = binding.copy_outputs_to_cpu()[0]
        return copied


class _Buffers:
    """What one call to ``reencode`` works in."""

    def __init__(self, onnxruntime: Any, device: str, rows: int, feature_shape: tuple[int, ...], side: int) -> None:
        self.features = _Memory(onnxruntime, device, (rows, *feature_shape), np.float32)
        self.images = _Memory(onnxruntime, device, (rows, side, side, 3), np.uint8)


def one_more_output(name: str) -> bytes:
    """Return what makes a tensor inside of a graph an output of it, written behind the serialised model.

    Protobuf joins messages that are written one after the other, so neither the file nor the onnx package is touched.
    The fields: ModelProto.graph (7), GraphProto.output (12), ValueInfoProto.name (1).
    """
    message = name.encode()
    for field in (1, 12, 7):
        message = bytes((field << 3 | 2, len(message))) + message
    return message


def _import() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise missing_extra("onnxruntime", "onnxruntime") from error
    return onnxruntime


@contextmanager
def vendor_errors(subject: str) -> Iterator[None]:
    """Turn ONNX Runtime's exceptions, which share no base class, into typed ones with its own text."""
    from onnxruntime.capi import onnxruntime_pybind11_state as vendor

    graph = (vendor.InvalidGraph, vendor.InvalidProtobuf, vendor.NoModel, vendor.NotImplemented)
    run = (
        vendor.Fail,
        vendor.InvalidArgument,
        vendor.EPFail,
        vendor.EngineError,
        vendor.RuntimeException,
        RuntimeError,
    )
    try:
        yield
    except graph as error:
        raise BundleError(f"{subject}: refused by ONNX Runtime ({_line(error)}). Export the bundle again.") from error
    except run as error:
        if any(word in str(error).lower() for word in _MEMORY_WORDS):
            raise OutOfMemory(f"{subject}: {_line(error)}. Use a smaller max_batch.") from error
        raise DeviceError(f"{subject}: ONNX Runtime failed ({_line(error)}). See deepsim doctor.") from error


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".")[:500]
