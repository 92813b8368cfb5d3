"""Facts about layers, from Caffe's messages: of today, of 2014 (V1) and of 2013 (V0)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from deepsim.export.published.topology import LayerFacts
from deepsim.kernels.layers import Shape
from deepsim.runtime.errors import CheckpointError
from deepsim.runtime.geometry import MAX_SIDE

_V1_WORDS = {"RELU": "ReLU", "LRN": "LRN", "TANH": "TanH", "BNLL": "BNLL", "ABSVAL": "AbsVal", "MVN": "MVN"}
_V1_WORDS |= {"HDF5_DATA": "HDF5Data", "HDF5_OUTPUT": "HDF5Output", "ARGMAX": "ArgMax"}
_V0_WORDS = {
    "conv": "Convolution",
    "innerproduct": "InnerProduct",
    "relu": "ReLU",
    "pool": "Pooling",
    "lrn": "LRN",
    "padding": "Padding",
    "dropout": "Dropout",
    "split": "Split",
    "flatten": "Flatten",
    "concat": "Concat",
    "tanh": "TanH",
    "power": "Power",
    "softmax": "Softmax",
    "data": "Data",
}
_TEST = 1  # the phase in which a network is used


def text(name: bytes) -> str:
    """Return a name as text; bytes that are no UTF-8 are written as escapes."""
    return name.decode("utf-8", "backslashreplace")


def facts_of_layer(layer: Any) -> LayerFacts:
    """Return the facts of a layer of today (message Layer)."""
    return _with_settings(layer, LayerFacts(text(layer.name), text(layer.type), *_blobs_of(layer)))


def facts_of_v1(layer: Any) -> LayerFacts:
    """Return the facts of a layer of 2014 (message LayerV1), or of 2013, which lies inside one."""
    if layer.HasField("layer"):
        return _facts_of_v0(layer.layer, *_blobs_of(layer))
    word = layer.DESCRIPTOR.fields_by_name["type"].enum_type.values_by_number[layer.type].name
    kind = _V1_WORDS.get(word, "".join(part.capitalize() for part in word.split("_")))
    kind = "" if word == "NONE" else kind
    return _with_settings(layer, LayerFacts(text(layer.name), kind, *_blobs_of(layer)))


def _facts_of_v0(layer: Any, bottoms: tuple[str, ...], tops: tuple[str, ...]) -> LayerFacts:
    word = text(layer.type)
    methods = layer.DESCRIPTOR.fields_by_name["pool"].enum_type.values_by_number
    return _sized(
        LayerFacts(
            text(layer.name),
            _V0_WORDS.get(word, word),
            bottoms,
            tops,
            outputs=layer.num_output,
            kernel=layer.kernelsize or 1,
            stride=layer.stride,
            pad=layer.pad,
            groups=layer.group,
            bias=layer.biasterm,
            pool=methods[layer.pool].name,
            norm=(layer.local_size, layer.alpha, layer.beta, layer.k),
        )
    )


def _blobs_of(layer: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return tuple(map(text, layer.bottom)), tuple(map(text, layer.top))


def _with_settings(layer: Any, facts: LayerFacts) -> LayerFacts:
    reader, param = _SETTINGS.get(facts.kind, (None, ""))
    if reader is None or param not in layer.DESCRIPTOR.fields_by_name:
        return facts
    return _sized(reader(getattr(layer, param), facts))


def _sized(facts: LayerFacts) -> LayerFacts:
    """Refuse windows that no layer of ours can have."""
    sizes = {
        "kernel": (facts.kernel, 1),
        "stride": (facts.stride, 1),
        "pad": (facts.pad, 0),
        "group": (facts.groups, 1),
    }
    for name, (value, least) in sizes.items():
        if not least <= value <= MAX_SIDE:
            return refused(facts, f"{name} {value}, expected {least} to {MAX_SIDE}")
    return facts


def refused(facts: LayerFacts, reason: str) -> LayerFacts:
    """Add a reason why a layer cannot be computed; the first one stays."""
    return facts if facts.refused else replace(facts, refused=reason)


def _convolution(param: Any, facts: LayerFacts) -> LayerFacts:
    facts = _window(param, facts, most=2)
    facts = replace(facts, outputs=param.num_output, groups=param.group, bias=param.bias_term)
    if any(value != 1 for value in param.dilation):
        facts = refused(facts, f"dilation {max(param.dilation)}, expected 1")
    return _expect(facts, "axis", param.axis, (1, -3))


def _window(param: Any, facts: LayerFacts, most: int) -> LayerFacts:
    """Read kernel, stride and padding, given once for both axes, for each axis in a list, or by _h and _w."""
    sizes = {}
    for name, stem, default in (("kernel", "kernel_size", None), ("stride", "stride", 1), ("pad", "pad", 0)):
        listed = list(getattr(param, stem))
        single = [getattr(param, f"{name}_{axis}") for axis in "hw" if param.HasField(f"{name}_{axis}")]
        values = single or listed or [default]
        if (single and listed) or len(listed) > most or len(single) == 1 or len(set(values)) > 1 or values[0] is None:
            said = "x".join(map(str, [*single, *listed])) or "none"
            facts = refused(facts, f"{name} {said}, expected one for both axes")
        else:
            sizes[name] = values[0]
    return replace(facts, **sizes)


def _inner_product(param: Any, facts: LayerFacts) -> LayerFacts:
    facts = replace(facts, outputs=param.num_output, bias=param.bias_term, transpose=param.transpose)
    return _expect(facts, "axis", param.axis, (1,))


def _pooling(param: Any, facts: LayerFacts) -> LayerFacts:
    method = param.DESCRIPTOR.fields_by_name["pool"].enum_type.values_by_number[param.pool].name
    facts = replace(facts, pool=method, whole=param.global_pooling, ceil_mode=param.round_mode == 0)
    return facts if param.global_pooling else _window(param, facts, most=1)


def _lrn(param: Any, facts: LayerFacts) -> LayerFacts:
    facts = replace(facts, norm=(param.local_size, param.alpha, param.beta, param.k))
    return refused(facts, "normalises within channels, expected across them") if param.norm_region else facts


def _relu(param: Any, facts: LayerFacts) -> LayerFacts:
    return replace(facts, slope=param.negative_slope)


def _power(param: Any, facts: LayerFacts) -> LayerFacts:
    return replace(facts, power=(param.power, param.scale, param.shift))


def _reshape(param: Any, facts: LayerFacts) -> LayerFacts:
    facts = replace(facts, shape=tuple(param.shape.dim))
    return _expect(_expect(facts, "axis", param.axis, (0,)), "num_axes", param.num_axes, (-1,))


def _flatten(param: Any, facts: LayerFacts) -> LayerFacts:
    return _expect(_expect(facts, "axis", param.axis, (1,)), "end_axis", param.end_axis, (-1, 3))


def _concat(param: Any, facts: LayerFacts) -> LayerFacts:
    return _expect(_expect(facts, "axis", param.axis, (1,)), "concat_dim", param.concat_dim, (1,))


def _crop(param: Any, facts: LayerFacts) -> LayerFacts:
    return replace(facts, shape=tuple(param.offset))


def _expect(facts: LayerFacts, name: str, value: int, expected: tuple[int, ...]) -> LayerFacts:
    return facts if value in expected else refused(facts, f"{name} {value}, expected {expected[0]}")


_SETTINGS = {
    "Convolution": (_convolution, "convolution_param"),
    "Deconvolution": (_convolution, "convolution_param"),
    "InnerProduct": (_inner_product, "inner_product_param"),
    "Pooling": (_pooling, "pooling_param"),
    "LRN": (_lrn, "lrn_param"),
    "ReLU": (_relu, "relu_param"),
    "Power": (_power, "power_param"),
    "Reshape": (_reshape, "reshape_param"),
    "Flatten": (_flatten, "flatten_param"),
    "Concat": (_concat, "concat_param"),
    "Crop": (_crop, "crop_param"),
}


def inputs_of(net: Any, layers: Iterable[Any], file: str) -> dict[str, Shape]:
    """Return the shapes of a network's inputs without the batch, () where the file does not say one.

    They stand in the message itself (Caffe of 2013 to 2015), in Input layers, or follow from a Data layer's crop.
    Raises CheckpointError for a shape that cannot be one.
    """
    names = [text(name) for name in net.input]
    found = [list(shape.dim) for shape in net.input_shape]
    if not found:
        found = [list(net.input_dim[i : i + 4]) for i in range(0, len(net.input_dim), 4)]
    if found and len(found) != len(names):
        raise CheckpointError(f"{file}: {len(found)} input shapes for {len(names)} inputs, expected as many.")
    inputs = {
        name: _without_batch(name, dims, file) for name, dims in zip(names, found or [[]] * len(names), strict=True)
    }
    for layer in layers:
        inputs |= _made_by(layer, file)
    return inputs


def _made_by(layer: Any, file: str) -> dict[str, Shape]:
    """Return the inputs that a layer of today makes."""
    if "input_param" not in layer.DESCRIPTOR.fields_by_name:
        return {}
    tops, kind = [text(top) for top in layer.top], text(layer.type)
    if kind == "Input" and layer.input_param.shape:
        shapes = [list(shape.dim) for shape in layer.input_param.shape]
        if len(shapes) not in (1, len(tops)):
            raise CheckpointError(f"{file}: layer {text(layer.name)}: {len(shapes)} shapes for {len(tops)} inputs.")
        shapes = shapes * len(tops) if len(shapes) == 1 else shapes
        return {top: _without_batch(top, dims, file) for top, dims in zip(tops, shapes, strict=True)}
    side = layer.transform_param.crop_size
    if kind in ("Data", "ImageData") and tops and 0 < side <= MAX_SIDE:
        return {tops[0]: (3, side, side)}
    return {}


def _without_batch(name: str, dims: list[int], file: str) -> Shape:
    if any(not 0 < extent <= 1 << 24 for extent in dims):
        raise CheckpointError(f"{file}: input {name} has shape {tuple(dims)}, expected positive extents.")
    return tuple(dims[1:])


def in_use(facts: list[LayerFacts], layers: Iterable[Any]) -> tuple[LayerFacts, ...]:
    """Return the layers without those of other phases, where the same name stands for a layer in use as well."""
    used = {fact.name for fact, layer in zip(facts, layers, strict=True) if _is_used(layer)}
    return tuple(fact for fact, layer in zip(facts, layers, strict=True) if _is_used(layer) or fact.name not in used)


def _is_used(layer: Any) -> bool:
    if layer.include:
        return any(_applies(rule) for rule in layer.include)
    return not any(_applies(rule) for rule in layer.exclude)


def _applies(rule: Any) -> bool:
    phase = not rule.HasField("phase") or rule.phase == _TEST
    return phase and rule.min_level <= 0 and rule.max_level >= 0 and not rule.stage
