"""The reference backend: PyTorch runs the manifest's layer tables with the weights of ``weights.safetensors``."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from deepsim.kernels.activations import UnknownLayerError
from deepsim.kernels.layers import Layer, Shape
from deepsim.runtime.backends.devices import gpu_ordinal, library_threads
from deepsim.runtime.backends.sessions import Sessions
from deepsim.runtime.bundle import Bundle
from deepsim.runtime.errors import BundleError, DeviceError, OutOfMemory, missing_extra
from deepsim.runtime.generators import GeneratorSpec
from deepsim.runtime.networks import EncoderSpec
from deepsim.runtime.pixels import PixelConvention, Pixels

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS = "weights.safetensors"
_GPU_LOCK = threading.Lock()
_MEMORY_WORDS = ("out of memory", "can't allocate memory", "not enough memory")


@dataclass(frozen=True)
class Options:
    """This backend has no options."""


def reason_unavailable(device: str = "auto") -> str | None:
    """Tell why PyTorch cannot run on ``device`` ("auto", "cpu", "cuda:N") here; None when it can."""
    for package in ("torch", "safetensors"):
        if find_spec(package) is None:
            return f"{package} is not installed (pip install 'deepsim[train]')"
    if not device.startswith("cuda:"):
        return None
    import torch

    if not torch.cuda.is_available():
        return "the installed PyTorch sees no GPU"
    if gpu_ordinal(device) >= torch.cuda.device_count():
        return f"no GPU {gpu_ordinal(device)}, PyTorch sees {torch.cuda.device_count()}"
    return None


def create(bundle: Bundle, device: str, max_batch: int, options: Options) -> Sessions:
    """Load a bundle; "auto" takes the first GPU when PyTorch sees one, else the CPU. ``max_batch`` sets nothing here.

    Sets PyTorch's number of threads, for the whole process, only when DEEPSIM_NUM_THREADS is set. Raises BundleError
    and its kinds for the bundle.
    """
    if device == "auto":
        device = "cuda:0" if reason_unavailable("cuda:0") is None else "cpu"
    backend = TorchBackend(bundle, device)
    manifest = bundle.manifest
    return Sessions.of(backend, encodes=manifest.encoder_kind == "table", decodes=manifest.generator is not None)


class TorchBackend:
    """The networks of a bundle that are tables in PyTorch, fp32 (on a GPU with TF32 off)."""

    name = "torch"

    def __init__(self, bundle: Bundle, device: str) -> None:
        try:
            import torch
        except ImportError as error:
            raise missing_extra("torch and safetensors", "train") from error
        threads = library_threads()
        if threads is not None:
            torch.set_num_threads(threads)
        self._torch = torch
        self.device, self._geometry = device, bundle.manifest.geometry
        manifest = bundle.manifest
        encoder, generator = manifest.encoder, manifest.generator
        weights = stored_weights(bundle) if manifest.has_tables else {}
        with self._guarded():
            self._table = _Network(encoder, weights, "encoder", device) if isinstance(encoder, EncoderSpec) else None
            self._decoder = None if generator is None else _Network(generator, weights, "generator", device)

    def encode(self, images: Pixels) -> NDArray[np.float32]:
        """Compute the features of images (see :mod:`deepsim.runtime.backends.sessions`)."""
        with self._guarded():
            return _host(self._features(self._torch.tensor(images, device=self.device)))

    def decode(self, features: NDArray[np.float32], full: bool) -> Pixels:
        """Generate images from features (see :mod:`deepsim.runtime.backends.sessions`)."""
        with self._guarded():
            return _host(self._image(self._torch.tensor(features, device=self.device), full))

    def decode_raw(self, features: NDArray[np.float32], full: bool) -> NDArray[np.float32]:
        """Generate images before clipping and rounding (see :mod:`deepsim.runtime.backends.sessions`)."""
        with self._guarded():
            output = self._output(self._torch.tensor(features, device=self.device), full)
            return _host(to_levels(output, self._generator.pixels))

    def reencode(self, images: Pixels, iterations: int, keep: tuple[int, ...]) -> Pixels:
        """Re-encode images (see :mod:`deepsim.runtime.backends.sessions`)."""
        kept = np.empty((len(images), len(keep), *images.shape[1:]), np.uint8)
        with self._guarded():
            current = self._torch.tensor(images, device=self.device)
            for iteration in range(1, iterations + 1):
                current = self._image(self._features(current), full=False)
                if iteration in keep:
                    kept[:, keep.index(iteration)] = _host(current)
        return kept

    @property
    def _encoder(self) -> _Network:
        """Return the encoder. Raises DeviceError where the bundle has no table of it."""
        if self._table is None:
            raise DeviceError("torch: the bundle's encoder is no table, expected one.")
        return self._table

    @property
    def _generator(self) -> _Network:
        """Return the generator. Raises DeviceError where the bundle has none."""
        if self._decoder is None:
            raise DeviceError("torch: the bundle has no generator, expected one.")
        return self._decoder

    def _features(self, images: Tensor) -> Tensor:
        return self._encoder(to_network(images, self._encoder.pixels).contiguous())

    def _output(self, features: Tensor, full: bool) -> Tensor:
        output = self._generator(features)  # (n, 3, S, S)
        if full:
            return output
        start, end = self._geometry.offset, self._geometry.offset + self._geometry.generated_side
        return output[:, :, start:end, start:end]

    def _image(self, features: Tensor, full: bool) -> Tensor:
        return to_pixels(self._output(features, full), self._generator.pixels)

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Run without gradients and with typed errors; on a GPU one call at a time, because TF32 is a global switch."""
        torch = self._torch
        try:
            with torch.inference_mode():
                if self.device == "cpu":
                    torch.get_num_threads()  # gives a new thread the process's number: with another, last bits change
                    yield
                    return
                with _GPU_LOCK, torch.backends.cudnn.flags(deterministic=True, allow_tf32=False):
                    yield
        except UnknownLayerError as error:
            raise BundleError(f"torch: {error}") from error
        except (RuntimeError, torch.OutOfMemoryError) as error:
            text = " ".join(str(error).split()).rstrip(".")[:500]
            if any(word in text.lower() for word in _MEMORY_WORDS):
                raise OutOfMemory(f"torch on {self.device}: {text}. Use a smaller max_batch.") from error
            raise DeviceError(f"torch on {self.device}: {text}. See deepsim doctor.") from error


class _Network:
    """One layer table with its weights on the device."""

    def __init__(self, spec: EncoderSpec | GeneratorSpec, weights: dict[str, Tensor], prefix: str, device: str) -> None:
        self.pixels = spec.pixels
        own = {name: tensor.to(device) for name, tensor in weights_of(weights, prefix, spec.layers).items()}
        self.layers = [(layer, own.get(f"{layer.name}.weight"), own.get(f"{layer.name}.bias")) for layer in spec.layers]

    def __call__(self, x: Tensor) -> Tensor:
        from deepsim.kernels.torch_layers import apply_layer

        for layer, weight, bias in self.layers:
            x = apply_layer(layer, x, weight, bias)
        return x


def stored_weights(bundle: Bundle) -> dict[str, Tensor]:
    """Return the weights of all of a bundle's tables. Raises BundleError and its kinds, DeviceError for a package."""
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load
    except ImportError as error:
        raise missing_extra("torch and safetensors", "train") from error
    try:
        return dict(load(bundle.read(WEIGHTS)))
    except SafetensorError as error:
        raise BundleError(f"{WEIGHTS}: not safetensors ({error}). Export the bundle again.") from error


def weights_of(stored: Mapping[str, Tensor], network: str, layers: Iterable[Layer]) -> dict[str, Tensor]:
    """Return ``LAYER.weight`` and ``LAYER.bias`` of a bundle's "encoder" or "generator", checked.

    Raises BundleError naming the tensor that is missing, of another type or shape, or not finite.
    """
    found: dict[str, Tensor] = {}
    for layer in layers:
        if layer.has_weights:
            for kind, shape in (("weight", layer.weight_shape), ("bias", (layer.outputs,))):
                name = f"{network}.{layer.name}.{kind}"
                found[f"{layer.name}.{kind}"] = _checked(stored.get(name), name, shape)
    return found


def _checked(tensor: Tensor | None, name: str, shape: Shape) -> Tensor:
    what = "missing" if tensor is None else f"{tensor.dtype} {tuple(tensor.shape)}"
    if tensor is None or what != f"torch.float32 {shape}":
        raise BundleError(f"{WEIGHTS}: {name} is {what}, expected float32 {shape}. Export the bundle again.")
    if not tensor.isfinite().all():
        raise BundleError(
            f"{WEIGHTS}: {name} holds NaN or infinity, expected finite float32. Train or export it again."
        )
    return tensor


def to_network(images: Tensor, pixels: PixelConvention) -> Tensor:
    """Do what :meth:`PixelConvention.to_network` does, on the device: uint8 NHWC -> float32 NCHW (channels last)."""
    ordered = images.flip(-1) if pixels.order == "BGR" else images
    values = ordered.float()
    values = (values - values.new_tensor(pixels.mean)) * values.new_tensor(pixels.scale)
    return values.permute(0, 3, 1, 2)


def to_levels(output: Tensor, pixels: PixelConvention) -> Tensor:
    """Do what :meth:`PixelConvention.to_levels` does, on the device: float32 NCHW -> float32 NHWC."""
    return _in_rgb(_shifted(output, pixels), pixels)


def to_pixels(output: Tensor, pixels: PixelConvention) -> Tensor:
    """Do what :meth:`PixelConvention.to_pixels` does, on the device: float32 NCHW -> uint8 NHWC."""
    return _in_rgb(_shifted(output, pixels).round().clamp(0, 255).byte(), pixels)  # half to even


def _shifted(output: Tensor, pixels: PixelConvention) -> Tensor:
    return output.permute(0, 2, 3, 1) / output.new_tensor(pixels.scale) + output.new_tensor(pixels.mean)


def _in_rgb(image: Tensor, pixels: PixelConvention) -> Tensor:
    return (image.flip(-1) if pixels.order == "BGR" else image).contiguous()


def _host(tensor: Tensor) -> NDArray[Any]:
    array: NDArray[Any] = tensor.cpu().numpy()
    return array
