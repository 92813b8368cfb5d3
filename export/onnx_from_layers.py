"""Layer table and weights -> ONNX, one named node per layer, built with ``onnx.helper``.

Deliberately not ``torch.onnx``: the tables already say everything, so nothing has to be traced. What comes out has
real LRN nodes (the tracing exporter writes ten), the release layer names, no source paths of the exporting machine,
no auxiliary nodes, and needs neither torch nor onnxscript; the same weights give the same bytes.

Both graphs speak pixels, uint8 RGB (N, H, W, 3), with a dynamic batch ``N``:

* encoder: ``image`` (N, side, side, 3) -> ``features`` float32 (N, C, H, W) or (N, C)
* generator: ``features`` float32 -> ``image`` uint8 (N, side, side, 3), which training scored, and ``image_full``
  (N, S, S, 3)

The Casts from and to uint8 stand directly at the graphs' borders because TensorRT takes uint8 only there. A network
in BGR costs nothing: its first (last) layer's weights are stored with their channels reversed, which is exact. A
deconvolution of stride 1 is written as the convolution it equals (kernel rotated by 180 degrees, in and out swapped),
which every runtime runs faster; it keeps its name.

``precision="fp16"`` types the graph itself as half, because strongly typed engine builders take their precision from
there. Three things stay float32: ``features``, every LRN (its squares overflow half above 256), and everything after
the last convolution (tanh, mean, rounding). Pixels minus an integer mean are exact in half; another mean is
subtracted in float32. ``fp32_layers`` adds islands by layer name.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from deepsim.kernels.activations import refuse_activation
from deepsim.kernels.layers import LRN_ALPHA, LRN_BETA, LRN_K, LRN_SIZE, Layer, Shape, refuse_kind
from deepsim.runtime.errors import CheckpointError, NumericError, UsageError, missing_extra
from deepsim.runtime.generators import GeneratorSpec
from deepsim.runtime.geometry import Geometry
from deepsim.runtime.networks import EncoderSpec
from deepsim.runtime.pixels import PixelConvention

if TYPE_CHECKING:
    import onnx

Precision = Literal["fp32", "fp16"]
Weights = Mapping[str, NDArray[Any]]

OPSET, IR_VERSION = 18, 8  # loaded by every ONNX Runtime since 1.14 and TensorRT since 8.6
MAX_BYTES = 2**31 - 1  # protobuf's limit for one message, and so for an ONNX model in one file
_MARGIN = 1 << 20  # for everything but the weights
_FLOAT, _UINT8, _HALF = 1, 2, 10  # onnx.TensorProto
_OUTPUT_AXIS = {"Gemm": 0, "Conv": 0, "ConvTranspose": 1}
_Port = tuple[str, int, tuple[int | str, ...]]  # name, element type, shape
_TYPES = {"fp32": _FLOAT, "fp16": _HALF}


def encoder_onnx(
    spec: EncoderSpec,
    layer: str,
    weights: Weights,
    precision: Precision = "fp32",
    *,
    fp32_layers: frozenset[str] = frozenset(),
    metadata: Mapping[str, str] | None = None,
) -> bytes:
    """Build the encoder up to and including ``layer`` as a serialised ONNX model (interface: see the module).

    ``weights`` maps ``<layer>.weight`` and ``<layer>.bias`` to arrays of the shapes in the table, any float dtype.
    ``metadata`` goes into the model's metadata_props. Raises UsageError on an unknown layer or precision,
    CheckpointError on missing or misshapen weights, NumericError on a model over 2 GB.
    """
    layers = spec.up_to(layer)
    _check_border(layers[0], spec.pixels)
    graph = _Graph(weights, precision, fp32_layers)
    name = graph.pixels_in(spec.pixels, spec.input_shape)
    for index, entry in enumerate(layers):
        name = graph.layer(entry, name, reverse_inputs=index == 0 and spec.pixels.order == "BGR")
    graph.rename(graph.to(name, _FLOAT), "features")
    inputs: list[_Port] = [("image", _UINT8, ("N", *_hwc(spec.input_shape)))]
    outputs: list[_Port] = [("features", _FLOAT, ("N", *spec.feature_shape(layer)))]
    return graph.finish(f"{spec.name}-{layer}-encoder", inputs, outputs, metadata)


def generator_onnx(
    spec: GeneratorSpec,
    geometry: Geometry,
    weights: Weights,
    precision: Precision = "fp32",
    *,
    fp32_layers: frozenset[str] = frozenset(),
    metadata: Mapping[str, str] | None = None,
) -> bytes:
    """Build the generator as a serialised ONNX model (interface: see the module).

    ``geometry`` says which part of the output is ``image``. Other arguments and Raises as in :func:`encoder_onnx`.
    """
    _check_border(spec.layers[-1], spec.pixels)
    graph = _Graph(weights, precision, fp32_layers)
    name, graph.types["features"], graph.shape = "features", _FLOAT, spec.input_shape
    for entry in spec.layers:
        name = graph.layer(entry, name, reverse_outputs=entry is spec.layers[-1] and spec.pixels.order == "BGR")
    graph.pixels_out(name, spec.pixels, geometry)
    side, full = geometry.side, spec.output_size
    inputs: list[_Port] = [("features", _FLOAT, ("N", *spec.input_shape))]
    outputs: list[_Port] = [("image", _UINT8, ("N", side, side, 3)), ("image_full", _UINT8, ("N", full, full, 3))]
    return graph.finish(f"{spec.layer}-generator", inputs, outputs, metadata)


def _check_border(layer: Layer, pixels: PixelConvention) -> None:
    """Refuse a network whose channel order cannot be folded into its outermost layer."""
    if pixels.order == "BGR" and (layer.kind not in ("conv", "deconv") or layer.groups != 1):
        found = f"{layer.kind} with {layer.groups} groups"
        raise UsageError(f"layer {layer.name}: {found}, expected an ungrouped convolution next to BGR pixels. Use RGB.")


def _converted(name: str, value: NDArray[Any], dtype: Any) -> NDArray[Any]:
    with np.errstate(over="ignore"):
        converted = value.astype(dtype)
    if not np.isfinite(converted).all():
        raise NumericError(f"{name}: not finite as {dtype}, expected finite weights. Keep this layer in fp32.")
    return converted


def _hwc(shape: Shape) -> Shape:
    return (*shape[1:], shape[0])


def _onnx() -> Any:
    try:
        return import_module("onnx")
    except ImportError as error:
        raise missing_extra("onnx", "export") from error


class _Graph:
    """Collects nodes and initialisers; knows each tensor's element type, so that Casts stand only where needed."""

    def __init__(self, weights: Weights, precision: Precision, fp32_layers: frozenset[str]) -> None:
        if precision not in _TYPES:
            raise UsageError(f"precision {precision!r}: unknown, expected fp32 or fp16.")
        self.onnx = _onnx()
        self.weights = weights
        self.type = _TYPES[precision]
        self.fp32_layers = fp32_layers
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.types: dict[str, int] = {}
        self.size = 0  # bytes of the initialisers
        self.shape: Shape = ()  # of the tensor that the next layer reads, without the batch

    def node(self, op: str, inputs: list[str], name: str, dtype: int, **attributes: Any) -> str:
        """Append a node with one output, which bears the node's name; return that name."""
        self.nodes.append(self.onnx.helper.make_node(op, inputs, [name], name=name, **attributes))
        self.types[name] = dtype
        return name

    def constant(self, name: str, value: NDArray[Any], dtype: int | None = None) -> str:
        """Append an initialiser, converted to an ONNX element type where one is given."""
        if dtype is not None:
            value = _converted(name, value, self.onnx.helper.tensor_dtype_to_np_dtype(dtype))
        self.size += value.nbytes
        self.initializers.append(self.onnx.numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def to(self, name: str, dtype: int, label: str | None = None) -> str:
        """Cast a tensor, unless it has the type already."""
        if self.types[name] == dtype:
            return name
        suffix = {_FLOAT: "fp32", _HALF: "fp16", _UINT8: "uint8"}[dtype]
        return self.node("Cast", [name], label or f"{name}/{suffix}", dtype, to=dtype)

    def rename(self, old: str, new: str) -> None:
        """Give the last node's output the name of a graph output."""
        self.nodes[-1].output[0] = new
        self.types[new] = self.types.pop(old)

    def weight(self, name: str, shape: Shape) -> NDArray[Any]:
        """Look a weight up and check its shape."""
        if name not in self.weights:
            raise CheckpointError(f"{name}: missing, expected shape {shape}. Export weights of this very network.")
        if self.weights[name].shape != shape:
            found = self.weights[name].shape
            raise CheckpointError(f"{name}: shape {found}, expected {shape}. Export weights of this very network.")
        return self.weights[name]

    def pixels_in(self, pixels: PixelConvention, shape: Shape) -> str:
        """Turn uint8 RGB NHWC into (pixel - mean) * scale in RGB, NCHW; the mean is applied in half where exact."""
        mean, scale = _in_rgb(pixels, pixels.mean), _in_rgb(pixels, pixels.scale)
        exact = not np.any(mean % 1) and np.all(scale == 1)
        dtype = self.type if exact else _FLOAT
        self.types["image"], self.shape = _UINT8, shape
        name = self.node("Cast", ["image"], "pixels", dtype, to=dtype)
        name = self.node("Transpose", [name], "pixels/nchw", dtype, perm=[0, 3, 1, 2])
        name = self.node("Sub", [name, self.constant("pixels/mean", mean, dtype)], "pixels/centred", dtype)
        if np.any(scale != 1):
            name = self.node("Mul", [name, self.constant("pixels/scale", scale, dtype)], "pixels/scaled", dtype)
        return name

    def pixels_out(self, name: str, pixels: PixelConvention, geometry: Geometry) -> None:
        """Turn the last layer's output (N, 3, S, S) in RGB into both uint8 outputs; the work up to NHWC is shared."""
        name = self.to(name, _FLOAT)
        scale = 1 / _in_rgb(pixels, pixels.scale)
        if np.any(scale != 1):
            name = self.node("Mul", [name, self.constant("pixels/scale", scale, _FLOAT)], "pixels/unscaled", _FLOAT)
        mean = self.constant("pixels/mean", _in_rgb(pixels, pixels.mean), _FLOAT)
        levels = self.node("Add", [name, mean], "pixels/shifted", _FLOAT)
        low, high = (
            self.constant("pixels/black", np.array(0, np.float32)),
            self.constant("pixels/white", np.array(255, np.float32)),
        )
        name = self.displayed(levels, low, high, "pixels")
        if geometry.enlarges:
            image = self.enlarged(self.cropped(levels, geometry, [2, 3]), geometry)
            image = self.displayed(image, low, high, "pixels/image")
        else:
            image = self.cropped(name, geometry, [1, 2])
        self.to(name, _UINT8, "image_full")
        self.to(image, _UINT8, "image")

    def displayed(self, levels: str, low: str, high: str, label: str) -> str:
        """Round grey levels half to even, clip them, and move the channels to the end."""
        name = self.node("Round", [levels], f"{label}/rounded", _FLOAT)
        name = self.node("Clip", [name, low, high], f"{label}/clipped", _FLOAT)
        return self.node("Transpose", [name], f"{label}/nhwc", _FLOAT, perm=[0, 2, 3, 1])

    def cropped(self, name: str, geometry: Geometry, axes: list[int]) -> str:
        """Cut the square that training scored from rows and columns, which are these axes."""
        offset, end = geometry.offset, geometry.offset + geometry.generated_side
        cut = {"starts": [offset] * 2, "ends": [end] * 2, "axes": axes}
        where = [self.constant(f"pixels/crop/{key}", np.array(value, np.int64)) for key, value in cut.items()]
        return self.node("Slice", [name, *where], "pixels/crop", _FLOAT)

    def enlarged(self, name: str, geometry: Geometry) -> str:
        """Enlarge (N, 3, S, S) as :func:`deepsim.runtime.geometry.enlarged` does.

        By scales: TensorRT's parser refuses sizes where the batch may vary. ONNX rounds their product with S down, so
        the scale is the next number that reaches the side.
        """
        scale = np.float32(geometry.side / geometry.generated_side)
        while geometry.generated_side * float(scale) < geometry.side:
            scale = np.nextafter(scale, np.float32(2 * scale))
        scales = self.constant("pixels/scales", np.array([1, 1, scale, scale], np.float32))
        how = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
        return self.node("Resize", [name, "", scales], "pixels/enlarged", _FLOAT, **how)

    def layer(self, layer: Layer, name: str, *, reverse_inputs: bool = False, reverse_outputs: bool = False) -> str:
        """Append one table row and its activation; return the name of the result.

        Raises UnknownLayerError for a kind or an activation that has no node.
        """
        before, self.shape = self.shape, layer.output_shape(self.shape)
        if layer.has_weights:
            dtype = _FLOAT if layer.name in self.fp32_layers else self.type
            name = self.to(name, dtype, f"{layer.name}/in")
            if layer.kind == "fc" and len(before) > 1:
                name = self.node("Flatten", [name], f"{layer.name}/flat", dtype, axis=1)
            return self.activation(layer, self.weighted(layer, name, reverse_inputs, reverse_outputs))
        return self.activation(layer, self.weightless(layer, name))

    def weightless(self, layer: Layer, name: str) -> str:
        """Append a layer without weights, without the activation."""
        if layer.kind == "reshape":
            shape = self.constant(f"{layer.name}/shape", np.array([0, *layer.shape], np.int64))  # 0: keep the batch
            return self.node("Reshape", [name, shape], layer.name, self.types[name])
        if layer.kind == "pool":
            extent = {"kernel_shape": [layer.kernel] * 2, "strides": [layer.stride] * 2}
            ceil = {"ceil_mode": 1} if layer.ceil_mode else {}
            return self.node("MaxPool", [name], layer.name, self.types[name], **extent, **ceil)
        if layer.kind == "lrn":
            constants = {"size": LRN_SIZE, "alpha": LRN_ALPHA, "beta": LRN_BETA, "bias": LRN_K}
            return self.node("LRN", [self.to(name, _FLOAT)], layer.name, _FLOAT, **constants)
        raise refuse_kind(layer, "ONNX's builder")

    def weighted(self, layer: Layer, name: str, reverse_inputs: bool, reverse_outputs: bool) -> str:
        """Append a layer with weights, in the precision of its input, without the activation."""
        dtype = self.types[name]
        op, weight, attributes = _operator(layer, self.weight(f"{layer.name}.weight", layer.weight_shape))
        bias = self.weight(f"{layer.name}.bias", (layer.outputs,))
        if reverse_inputs:
            weight = weight[:, ::-1]
        if reverse_outputs:
            weight, bias = np.flip(weight, _OUTPUT_AXIS[op]), bias[::-1]
        self.constant(f"{layer.name}.weight", weight, dtype)
        self.constant(f"{layer.name}.bias", bias, dtype)
        return self.node(op, [name, f"{layer.name}.weight", f"{layer.name}.bias"], layer.name, dtype, **attributes)

    def activation(self, layer: Layer, name: str) -> str:
        """Append a layer's activation; a tanh is always computed in float32."""
        record, label = layer.activates, f"{layer.name}/{layer.activation}"
        if record.slope == 1:
            return name
        if record.slope == 0:
            return self.node("Relu", [name], label, self.types[name])
        if record.slope is not None:
            return self.node("LeakyRelu", [name], label, self.types[name], alpha=record.slope)
        if record.scale is not None:
            name = self.node("Tanh", [self.to(name, _FLOAT)], f"{layer.name}/tanh", _FLOAT)
            factor = self.constant(f"{layer.name}/{record.scale:g}", np.array(record.scale, np.float32), _FLOAT)
            return self.node("Mul", [name, factor], label, _FLOAT)
        raise refuse_activation(record, "ONNX's builder")

    def finish(self, name: str, inputs: list[_Port], outputs: list[_Port], metadata: Mapping[str, str] | None) -> bytes:
        """Assemble, check in full and serialise the model."""
        if (size := self.size) > MAX_BYTES - _MARGIN:
            raise NumericError(
                f"{name}: {size:,} bytes of weights, ONNX holds at most {MAX_BYTES:,}. Use fewer weights."
            )
        helper = self.onnx.helper
        ports = [[helper.make_tensor_value_info(*port) for port in side] for side in (inputs, outputs)]
        graph = helper.make_graph(self.nodes, name, *ports, initializer=self.initializers)
        model = helper.make_model(
            graph, producer_name="deepsim", opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
        )
        helper.set_model_props(model, dict(sorted((metadata or {}).items())))
        data: bytes = model.SerializeToString(deterministic=True)
        self.onnx.checker.check_model(data, full_check=True)
        return data


def _operator(layer: Layer, weight: NDArray[Any]) -> tuple[str, NDArray[Any], dict[str, Any]]:
    """Return a weighted layer's ONNX operator with its weight and attributes. Raises UnknownLayerError."""
    if layer.kind == "fc":
        return "Gemm", weight, {"transB": 1}
    if layer.kind not in ("conv", "deconv"):
        raise refuse_kind(layer, "ONNX's builder")
    padding = layer.padding
    if layer.kind == "deconv" and layer.stride == 1 and layer.groups == 1:
        weight, padding = weight.transpose(1, 0, 2, 3)[:, :, ::-1, ::-1], layer.kernel - 1 - layer.padding
    attributes: dict[str, Any] = {
        "kernel_shape": [layer.kernel] * 2,
        "strides": [layer.stride] * 2,
        "pads": [padding] * 4,
        "group": layer.groups,
    }
    if layer.output_padding:
        attributes["output_padding"] = [layer.output_padding] * 2
    transposed = layer.kind == "deconv" and (layer.stride > 1 or layer.groups > 1)
    return "ConvTranspose" if transposed else "Conv", weight, attributes


def _in_rgb(pixels: PixelConvention, values: tuple[float, float, float]) -> NDArray[np.float32]:
    """Return per-channel values, given in the network's order, as (3, 1, 1) in RGB order."""
    ordered = values[::-1] if pixels.order == "BGR" else values
    return np.array(ordered, np.float32).reshape(3, 1, 1)
