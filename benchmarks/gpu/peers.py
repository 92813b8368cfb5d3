"""The other side: the same networks in PyTorch's fp16, eager and compiled, and in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from deepsim.benchmarks.gpu.device import CUDA_PROVIDER, Call, Gpu
from deepsim.export.onnx_from_layers import encoder_onnx, generator_onnx
from deepsim.export.sources import Source
from deepsim.kernels.layers import Layer
from deepsim.kernels.torch_layers import apply_layer
from deepsim.runtime.backends.onnxruntime import vendor_errors
from deepsim.runtime.errors import DeviceError
from deepsim.runtime.geometry import CAFFE_FRAMING, Geometry
from deepsim.runtime.pixels import PixelConvention


class TorchLayers(nn.Module):
    """Layers in fp16 with channels-last weights, which decide the layout of activations; an LRN in fp32."""

    def __init__(self, gpu: Gpu, layers: Sequence[Layer], weights: Mapping[str, NDArray[np.float32]]) -> None:
        super().__init__()
        self.table = tuple(layers)
        for index, layer in enumerate(layers):
            for kind in ("weight", "bias") if layer.has_weights else ():
                tensor = gpu.tensor(weights[f"{layer.name}.{kind}"]).half()
                if tensor.ndim == 4:
                    tensor = tensor.contiguous(memory_format=torch.channels_last)
                self.register_buffer(f"{kind}{index}", tensor)

    def forward(self, x: Tensor) -> Tensor:
        """Run the layers on a batch in fp16; the squares of an LRN would overflow there."""
        for index, layer in enumerate(self.table):
            own = (getattr(self, f"{kind}{index}", None) for kind in ("weight", "bias"))
            x = apply_layer(layer, x.float(), None, None).half() if layer.kind == "lrn" else apply_layer(layer, x, *own)
        return x


class TorchForm:
    """Both networks, from uint8 images and to uint8 images; nothing is copied from the host, as a graph wants it.

    ``compiled``: by torch.compile in its mode max-autotune. ``graph``: a call is recorded once and replayed.
    """

    def __init__(self, gpu: Gpu, source: Source, compiled: bool = False, graph: bool = False) -> None:
        self._gpu, self._graph = gpu, graph
        self._encoder = TorchLayers(gpu, source.table.layers, source.encoder_weights)
        self._generator = TorchLayers(gpu, source.generator_table.layers, source.generator_weights)
        self._in, self._out = (_Pixels(gpu, spec.pixels) for spec in (source.table, source.generator_table))
        self._functions: dict[str, Callable[[Tensor], Tensor]] = {"encode": self._encode, "decode": self._decode}
        if compiled:
            self._functions = {name: _compiled(each) for name, each in self._functions.items()}

    def call(self, what: str, argument: Tensor, iterations: int = 1) -> Call:
        """Return a call: features of images, images of features, or what ``iterations`` make of images."""

        def function(value: Tensor) -> Tensor:
            if what != "reencode":
                return self._functions[what](value)
            for _ in range(iterations):
                value = self._functions["decode"](self._functions["encode"](value))
            return value

        return self._gpu.captured(function, argument) if self._graph else lambda: function(argument)

    def _encode(self, images: Tensor) -> Tensor:
        """Return fp32 features of uint8 (n, 227, 227, 3)."""
        ordered = images.flip(-1) if self._in.reversed else images
        pixels = (ordered.half() - self._in.mean) * self._in.scale
        features: Tensor = self._encoder(pixels.permute(0, 3, 1, 2)).float()
        return features

    def _decode(self, features: Tensor) -> Tensor:
        """Return uint8 (n, 227, 227, 3) of fp32 features."""
        image: Tensor = self._generator(features.half())
        start = Geometry.central(CAFFE_FRAMING, image.shape[-1]).offset
        image = image[:, :, start : start + CAFFE_FRAMING.side, start : start + CAFFE_FRAMING.side].permute(0, 2, 3, 1)
        rounded = (image.float() / self._out.scale + self._out.mean).round().clamp(0, 255).byte()
        return (rounded.flip(-1) if self._out.reversed else rounded).contiguous()


class _Pixels:
    """A pixel convention with its numbers on the GPU: ``mean`` and ``scale`` (3,), fp16."""

    def __init__(self, gpu: Gpu, pixels: PixelConvention) -> None:
        self.reversed = pixels.order == "BGR"
        self.mean, self.scale = (gpu.tensor(np.asarray(each, np.float16)) for each in (pixels.mean, pixels.scale))


def captured_layers(gpu: Gpu, layers: TorchLayers, x: Tensor, compiled: bool) -> Call:
    """Return a replay of one CUDA graph that runs layers on a batch."""
    return gpu.captured(_compiled(layers) if compiled else layers, x)


def _compiled(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Compile for the shape of the first call; graphs are recorded by ourselves."""
    torch.compiler.reset()  # else the same code of many layers and sizes reaches PyTorch's limit of compilations
    return torch.compile(function, mode="max-autotune-no-cudagraphs", dynamic=False, fullgraph=True)


def reason_without_onnxruntime(provider: str) -> str | None:
    """Tell why ONNX Runtime does not take part; None when it does."""
    if find_spec("onnxruntime") is None or find_spec("onnx") is None:
        return "onnx or onnxruntime is not installed (pip install onnx onnxruntime-gpu)"
    import onnxruntime

    if provider not in onnxruntime.get_available_providers():
        return "the installed onnxruntime has no CUDA (it needs onnxruntime-gpu)"
    return None


class OnnxRuntimeForm:
    """ONNX Runtime on our fp16 graphs, inputs and outputs bound to tensors of the GPU, work on PyTorch's stream.

    Raises DeviceError and its kinds, as its calls do, where ONNX Runtime fails or would run elsewhere.
    """

    def __init__(self, gpu: Gpu, source: Source) -> None:
        import onnxruntime

        self._gpu = gpu
        options = {"cudnn_conv_algo_search": "EXHAUSTIVE", "user_compute_stream": str(gpu.stream)}
        chosen = [(gpu.provider, options if gpu.provider == CUDA_PROVIDER else {})]
        encoder = encoder_onnx(source.table, source.layer, source.encoder_weights, "fp16")
        generator = generator_onnx(source.generator_table, source.geometry, source.generator_weights, "fp16")
        with vendor_errors("onnxruntime"):
            self._sessions = {
                name: onnxruntime.InferenceSession(graph, providers=chosen, enable_fallback=0)
                for name, graph in (("encode", encoder), ("decode", generator))
            }
        for session in self._sessions.values():
            if session.get_providers()[0] != gpu.provider:
                raise DeviceError(f"onnxruntime: started on {session.get_providers()[0]}, expected {gpu.provider}.")
        self._run_options = onnxruntime.RunOptions()
        self._run_options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        self._features = source.generator_table.input_shape

    def call(self, what: str, argument: Tensor, iterations: int = 1) -> Call:
        """Return a call as :meth:`TorchForm.call` does."""
        count = len(argument)
        images = self._gpu.empty((count, CAFFE_FRAMING.side, CAFFE_FRAMING.side, 3), torch.uint8)
        features = self._gpu.empty((count, *self._features), torch.float32)
        if what == "encode":
            runs, result = [self._bound("encode", argument, features)], features
        elif what == "decode":
            runs, result = [self._bound("decode", argument, images)], images
        else:
            first, decode = self._bound("encode", argument, features), self._bound("decode", features, images)
            runs = [first, decode, *[self._bound("encode", images, features), decode] * (iterations - 1)]
            result = images

        def call() -> Tensor:
            with vendor_errors("onnxruntime"):
                for run in runs:
                    run()
            return result

        return call

    def _bound(self, what: str, source: Tensor, target: Tensor) -> Callable[[], Any]:
        session, names = self._sessions[what], ("image", "features")
        names = names if what == "encode" else names[::-1]
        binding = session.io_binding()
        for method, name, tensor in ((binding.bind_input, names[0], source), (binding.bind_output, names[1], target)):
            dtype = np.uint8 if tensor.dtype == torch.uint8 else np.float32
            method(name, self._gpu.device, 0, dtype, tuple(tensor.shape), tensor.data_ptr())
        return lambda: session.run_with_iobinding(binding, self._run_options)
