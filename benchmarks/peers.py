"""Peers: the same bundle through OpenVINO, PyTorch in its faster forms, and ONNX Runtime without ConvTranspose."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from deepsim.benchmarks.rewrite import without_transposed_convolutions
from deepsim.runtime.backends.cpu import INSTRUCTION_SET_VARIABLE
from deepsim.runtime.backends.devices import library_threads
from deepsim.runtime.backends.onnxruntime import OnnxRuntimeBackend
from deepsim.runtime.backends.torch import TorchBackend, to_network
from deepsim.runtime.bundle import Bundle
from deepsim.runtime.pixels import Pixels

if TYPE_CHECKING:
    from torch import Tensor


class RewrittenBackend(OnnxRuntimeBackend):
    """ONNX Runtime on a graph whose transposed convolutions are 2x2 convolutions and a pixel shuffle."""

    name = "onnxruntime-2x2"

    def graph(self, name: str) -> bytes:
        """Return a graph of the bundle, rewritten."""
        return without_transposed_convolutions(super().graph(name))


class OpenVino:
    """OpenVINO on the bundle's graphs, fp32, compiled for the batch size at hand (its fastest form)."""

    def __init__(self, bundle: Bundle) -> None:
        import openvino

        self._openvino = openvino
        self._core = openvino.Core()
        self._path = bundle.path
        self._requests: dict[tuple[str, str], tuple[int, Any]] = {}

    def encode(self, images: Pixels) -> NDArray[np.float32]:
        """Compute features, (N, *feature shape)."""
        features: NDArray[np.float32] = self._run("encoder.onnx", "features", images)
        return features

    def decode(self, features: NDArray[np.float32], full: bool) -> Pixels:
        """Generate images, uint8 (N, S, S, 3)."""
        images: Pixels = self._run("generator.onnx", "image_full" if full else "image", features)
        return images

    def reencode(self, images: Pixels, iterations: int, keep: tuple[int, ...]) -> Pixels:
        """Reconstruct again and again, uint8 (N, len(keep), side, side, 3)."""
        kept = []
        for iteration in range(1, iterations + 1):
            images = self.decode(self.encode(images), False)
            kept += [images] if iteration in keep else []
        return np.stack(kept, axis=1)

    def _run(self, graph: str, output: str, values: NDArray[Any]) -> NDArray[Any]:
        batch, request = self._requests.get((graph, output), (0, None))
        if batch != len(values):
            request = self._compile(graph, output, len(values))
            self._requests[graph, output] = len(values), request
        request.infer({0: values}, share_inputs=True)
        result: NDArray[Any] = request.get_output_tensor(0).data.copy()  # the next call writes there again
        return result

    def _compile(self, graph: str, output: str, batch: int) -> Any:
        read = self._core.read_model(self._path / graph)
        wanted = read.output(output).get_node().input_value(0)
        model = self._openvino.Model([wanted], read.get_parameters(), graph)  # nothing but the output asked for
        port = model.inputs[0]
        model.reshape({port: [batch, *(size.get_length() for size in list(port.partial_shape)[1:])]})
        options = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": "1", "PERFORMANCE_HINT": "LATENCY"}
        threads = library_threads()
        if threads is not None:
            options["INFERENCE_NUM_THREADS"] = str(threads)
        return self._core.compile_model(model, "CPU", options).create_infer_request()


class ChannelsLastBackend(TorchBackend):
    """PyTorch with weights and activations in channels-last layout."""

    name = "torch-channels-last"

    def __init__(self, bundle: Bundle, device: str) -> None:
        super().__init__(bundle, device)
        layout = self._torch.channels_last
        for network in (self._encoder, self._generator):
            network.layers = [
                (
                    layer,
                    weight.contiguous(memory_format=layout) if weight is not None and weight.ndim == 4 else weight,
                    bias,
                )
                for layer, weight, bias in network.layers
            ]

    def _features(self, images: Tensor) -> Tensor:
        return self._encoder(to_network(images, self._encoder.pixels))  # as it comes: channels last


class CompiledBackend(ChannelsLastBackend):
    """``torch.compile`` of the channels-last form, compiled for each batch size, with default options."""

    name = "torch-compile"
    options: ClassVar[dict[str, Any]] = {}

    def __init__(self, bundle: Bundle, device: str) -> None:
        super().__init__(bundle, device)
        options = {**self.options, "cpp.simdlen": _vector_bits()}
        # PyTorch counts the forms of both contenders together, and beyond its limit goes on without compiling; with
        # fullgraph it would be an error.
        self._torch._dynamo.config.recompile_limit = 64
        compiled = partial(self._torch.compile, dynamic=False, fullgraph=True, options=options)
        self._compiled_features, self._compiled_image = compiled(super()._features), compiled(super()._image)

    def _features(self, images: Tensor) -> Tensor:
        result: Tensor = self._compiled_features(images)
        return result

    def _image(self, features: Tensor, full: bool) -> Tensor:
        result: Tensor = self._compiled_image(features, full)
        return result


def _vector_bits() -> int | None:
    """Return the width of the vectors that inductor may use; unless it is told, it does not follow PyTorch's own."""
    return 256 if os.environ.get(INSTRUCTION_SET_VARIABLE) == "avx2" else None


class FrozenBackend(CompiledBackend):
    """``torch.compile`` with constant weights (its option "freezing"), which oneDNN may reorder once."""

    name = "torch-compile-frozen"
    options: ClassVar[dict[str, Any]] = {"freezing": True}

    def __init__(self, bundle: Bundle, device: str) -> None:
        super().__init__(bundle, device)
        self._table, self._decoder = (_with_buffers(each) for each in (self._encoder, self._generator))


def _with_buffers(network: Any) -> Any:
    """Return the network as a module with its weights as buffers, as freezing wants them."""
    from torch import nn

    from deepsim.kernels.torch_layers import apply_layer

    class Module(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pixels = network.pixels
            self.table = [layer for layer, _, _ in network.layers]
            for index, (_, weight, bias) in enumerate(network.layers):
                self.register_buffer(f"weight{index}", weight)
                self.register_buffer(f"bias{index}", bias)

        def forward(self, x: Tensor) -> Tensor:
            for index, layer in enumerate(self.table):
                x = apply_layer(layer, x, getattr(self, f"weight{index}"), getattr(self, f"bias{index}"))
            return x

    return Module().eval()
