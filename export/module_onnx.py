"""Any PyTorch module as ``encoder.onnx``: traced by ``torch.onnx`` and stripped to what a runtime needs.

The graph speaks pixels, as the graphs of :mod:`~deepsim.export.onnx_from_layers`: ``image`` uint8 RGB
(N, side, side, 3) -> ``features`` float32 (N, C, h, w) or (N, C), with a dynamic batch ``N`` and the module's own
preprocessing inside. It is float32 throughout: which operations of an unknown network half can hold is not known, so
fp16 graphs and engines are the generator's alone.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from deepsim.export.onnx_from_layers import IR_VERSION, MAX_BYTES, OPSET
from deepsim.runtime.backends.torch import to_network
from deepsim.runtime.errors import NumericError, UsageError, missing_extra
from deepsim.train.module_creation import one_line
from deepsim.train.module_encoders import ModuleEncoder

if TYPE_CHECKING:
    import onnx

FP16_NOTE = "encoder: a graph of a PyTorch module, kept in fp32; half graphs and engines are of the generator alone."
_TRACED = 2  # images; torch.export takes a batch of 1 for a constant
_MARGIN = 16 << 20  # bytes for everything but the weights


class _FromPixels(nn.Module):
    """Encodes uint8 RGB (N, side, side, 3)."""

    def __init__(self, encoder: ModuleEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, image: Tensor) -> Tensor:
        """Return the features of the encoder's layer, float32."""
        x = to_network(image, self.encoder.preprocessing.pixels)
        return self.encoder.converted_features(x, [self.encoder.layer])[self.encoder.layer]


class _Flat(nn.Module):
    """Runs a module that ``torch.export`` does not see as a submodule, on parameters of its own.

    An encoder ends its pass by an exception. Through submodules that ``torch.export`` tracks, no exception may pass.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.hidden = (module,)  # in a tuple, it is not registered
        self.names = {}
        for name, parameter in module.named_parameters():
            self.names[name] = name.replace(".", "/")  # names of parameters have no dots
            self.register_parameter(self.names[name], nn.Parameter(parameter, requires_grad=False))
        for name, buffer in module.named_buffers():
            self.names[name] = name.replace(".", "/")
            self.register_buffer(self.names[name], buffer)

    def forward(self, image: Tensor) -> Tensor:
        """Run the hidden module on the tensors that are registered here."""
        own = {name: getattr(self, flat) for name, flat in self.names.items()}
        features: Tensor = torch.func.functional_call(self.hidden[0], own, (image,))
        return features


def module_encoder_onnx(encoder: ModuleEncoder, metadata: Mapping[str, str] | None = None) -> bytes:
    """Build the encoder up to its layer as a serialised ONNX model (interface: see the module).

    ``metadata`` goes into the model's metadata_props. Raises DeviceError for a missing package, UsageError for a module
    that ``torch.onnx`` cannot trace, NumericError for a model over 2 GB.
    """
    who = encoder.record().name
    size = sum(tensor.nbytes for tensor in (*encoder.parameters(), *encoder.buffers()))
    if size > MAX_BYTES - _MARGIN:
        raise NumericError(f"encoder {who}: {size:,} bytes of weights, ONNX holds at most {MAX_BYTES:,}.")
    model = _traced(encoder, who)
    _strip(model)
    helper, checker = import_module("onnx.helper"), import_module("onnx.checker")
    model.graph.name = f"{who}-{encoder.layer}-encoder"
    helper.set_model_props(model, dict(sorted((metadata or {}).items())))
    data: bytes = model.SerializeToString(deterministic=True)
    checker.check_model(data, full_check=True)
    return data


def _traced(encoder: ModuleEncoder, who: str) -> onnx.ModelProto:
    for package in ("onnx", "onnxscript"):
        try:
            import_module(package)
        except ImportError as error:
            raise missing_extra(package, "export") from error
    side = encoder.preprocessing.framing.side
    device = next((tensor.device for tensor in encoder.buffers()), torch.device("cpu"))
    image = torch.zeros((_TRACED, side, side, 3), dtype=torch.uint8, device=device)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of packages about each other
            program: Any = torch.onnx.export(
                _Flat(_FromPixels(encoder)).eval(),
                (image,),
                dynamo=True,
                verbose=False,
                opset_version=OPSET,
                input_names=["image"],
                output_names=["features"],
                dynamic_shapes=({0: torch.export.Dim("N", min=1)},),
            )
    except Exception as error:  # whatever a module's code does to the tracer
        raise UsageError(f"encoder {who}: torch.onnx cannot export it: {one_line(_root(error))}.") from error
    model: onnx.ModelProto = program.model_proto
    return model


def _root(error: BaseException) -> BaseException:
    """Return the error that others were raised from: torch.onnx's own text is advice about torch.onnx."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _strip(model: onnx.ModelProto) -> None:
    """Take out what a runtime does not need: stack traces with paths of this machine, types, unused weights."""
    graph = model.graph
    model.producer_name, model.producer_version, model.ir_version = "deepsim", "", IR_VERSION
    used = {name for node in _nodes(graph.node) for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:], graph.value_info[:]
    graph.initializer.extend(kept)
    ports = (*graph.input, *graph.output)
    for described in (model, graph, *graph.initializer, *ports, *model.functions, *_nodes(graph.node)):
        described.ClearField("doc_string")
        described.ClearField("metadata_props")
    own = "encoder/module/"  # the names of _Flat, back to the module's own
    _rename(graph, {name: name.removeprefix(own).replace("/", ".") for name in used if name.startswith(own)})


def _nodes(nodes: Iterable[onnx.NodeProto]) -> Iterable[onnx.NodeProto]:
    """Return nodes with those of the graphs in their attributes."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from _nodes(graph.node)


def _rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Rename initialisers, also where nodes read them."""
    for tensor in graph.initializer:
        tensor.name = names.get(tensor.name, tensor.name)
    for node in _nodes(graph.node):
        for index, name in enumerate(node.input):
            node.input[index] = names.get(name, name)
