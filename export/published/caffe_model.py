"""Read .caffemodel files: protobuf messages NetParameter of any age, without Caffe."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepsim.export.published.caffe_facts import facts_of_layer, facts_of_v1, inputs_of
from deepsim.export.published.caffe_schema import message_class
from deepsim.export.published.topology import LayerFacts
from deepsim.export.published.wire import BYTES, FIXED32, FIXED64, VARINT, Field, fields, split
from deepsim.kernels.layers import Shape
from deepsim.runtime.errors import CheckpointError

LIMIT = 2**31 - 1  # bytes of one protobuf message
MOST_LAYERS = 10_000
_LAYERS, _LAYERS_V1 = 100, 2  # field numbers in a network
_BLOBS, _BLOBS_V1, _V0, _BLOBS_V0 = 7, 6, 1, 50
_DATA, _DIFF, _DOUBLE_DATA, _DOUBLE_DIFF = 5, 6, 8, 9  # in a blob
_DIFFS = (_DOUBLE_DIFF, _DIFF)  # the order in which Caffe looks
_WIDTHS = {_DATA: 4, _DIFF: 4, _DOUBLE_DATA: 8, _DOUBLE_DIFF: 8}
_WIRES = {number: (BYTES, FIXED32 if width == 4 else FIXED64) for number, width in _WIDTHS.items()}
_KNOWN = frozenset({*((number, VARINT) for number in (1, 2, 3, 4)), (7, BYTES)})
_LEGACY = ("num", "channels", "height", "width")
_DEEPEST_SHAPE = 32  # axes, as Caffe


@dataclass(frozen=True)
class Blob:
    """An array of a layer; ``legacy`` tells that its shape is num x channels x height x width, with leading ones."""

    values: NDArray[np.float32]
    legacy: bool = False


@dataclass(frozen=True)
class CaffeModel:
    """What a file of weights holds: blobs by layer, its layers in order, its inputs, and its format in words."""

    format: str
    blobs: dict[str, tuple[Blob, ...]]
    layers: tuple[LayerFacts, ...]
    inputs: dict[str, Shape]


def read_model(data: bytes, file: str) -> CaffeModel:
    """Read the bytes of a .caffemodel; ``file`` is its name for messages.

    Raises CheckpointError that names the layer, for a file that is cut, is none, or that Caffe would refuse, and for
    what Caffe accepts without a word: no layers, no weights.
    """
    if len(data) > LIMIT:
        raise CheckpointError(f"{file}: {len(data):,} bytes, expected at most {LIMIT:,}, the limit of protobuf.")
    try:
        rest, found = split(memoryview(data), frozenset({_LAYERS, _LAYERS_V1}))
        net = _parse("Net", rest)
        found = [field for field in found if field.wire == BYTES]  # a mean image has its channels as field 2
    except ValueError as error:
        raise CheckpointError(f"{file}: no Caffe model ({error}), expected a protobuf of layers. Is it cut?") from error
    kinds = {field.number for field in found}
    if not kinds:
        raise CheckpointError(f"{file}: {_what_else(data)}, expected a Caffe model with layers.")
    if len(found) > MOST_LAYERS:
        raise CheckpointError(f"{file}: {len(found):,} layers, expected at most {MOST_LAYERS:,}.")
    if len(kinds) > 1:
        raise CheckpointError(f"{file}: layers of 2014 and of today in one file, expected one kind, as Caffe does.")
    return _Reader(file, kinds == {_LAYERS}).read(net, found)


def _what_else(data: bytes) -> str:
    """Say what a message without layers may be."""
    try:
        blob = _parse("Blob", split(memoryview(data), frozenset({_DATA, _DOUBLE_DATA}))[0])
        if blob.HasField("channels") or blob.HasField("shape"):
            return "a single blob (a mean image?)"
    except ValueError:
        pass
    return "holds no layers" if data else "is empty"


def _parse(name: str, data: bytes) -> Any:
    """Parse a message. Raises ValueError where the library refuses."""
    message = message_class(name)()
    from google.protobuf.message import DecodeError

    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise ValueError(str(error) or "a message that does not parse") from error
    return message


class _Reader:
    """Reads the layers of one file, one at a time."""

    def __init__(self, file: str, today: bool) -> None:
        self.file, self.today, self.v0 = file, today, False
        self.blobs: dict[str, tuple[Blob, ...]] = {}

    def read(self, net: Any, found: list[Field]) -> CaffeModel:
        """Read every layer; of a repeated name the last counts, as in Caffe."""
        messages, facts = [], []
        for index, field in enumerate(found):
            try:
                message, blobs = self._today(field.content) if self.today else self._earlier(field.content)
            except ValueError as error:
                raise CheckpointError(
                    f"{self.file}: layer {index + 1}: {error}. Is the file damaged or cut?"
                ) from error
            messages.append(message)
            facts.append(facts_of_layer(message) if self.today else facts_of_v1(message))
            self._keep(facts[-1].name, blobs)
        if not any(self.blobs.values()):
            raise CheckpointError(f"{self.file}: {len(found)} layers without weights, expected trained ones.")
        age = "current layers" if self.today else "V0 layers" if self.v0 else "V1 layers"
        inputs = inputs_of(net, messages, self.file)
        return CaffeModel(f"Caffe model ({age})", self.blobs, tuple(facts), inputs)

    def _today(self, content: memoryview) -> tuple[Any, list[Field]]:
        rest, blobs = split(content, frozenset({_BLOBS}))
        return _parse("Layer", rest), blobs

    def _earlier(self, content: memoryview) -> tuple[Any, list[Field]]:
        rest, large = split(content, frozenset({_BLOBS_V1, _V0}))
        layer, blobs = _parse("LayerV1", rest), [field for field in large if field.number == _BLOBS_V1]
        inner = [field for field in large if field.number == _V0]
        if len(inner) > 1 or (inner and blobs) or any(field.wire != BYTES for field in inner):
            raise ValueError("a layer of 2013 and one of 2014 in one")
        if inner:
            self.v0 = True
            rest, blobs = split(inner[0].content, frozenset({_BLOBS_V0}))
            layer.layer.CopyFrom(_parse("LayerV0", rest))
        return layer, blobs

    def _keep(self, name: str, found: list[Field]) -> None:
        blobs = []
        for index, field in enumerate(found):
            try:
                if field.wire != BYTES:
                    raise ValueError("is no message")
                blobs.append(read_blob(field.content))
            except ValueError as error:
                raise CheckpointError(f"{self.file}: layer {name}, blob {index}: {error}.") from error
        if name in self.blobs and len(self.blobs[name]) != len(blobs):
            before = len(self.blobs[name])
            raise CheckpointError(f"{self.file}: layer {name} has {before} blobs and {len(blobs)}, expected as many.")
        self.blobs[name] = tuple(blobs)


def read_blob(content: memoryview) -> Blob:
    """Read a message BlobProto: double_data before data, legacy extents before a shape; diff is counted, not read.

    Raises ValueError for one that is cut, whose shape is absent or not that of its numbers, and for unknown fields
    among the numbers: no program writes them there, but a changed byte in numbers that are not packed looks so.
    """
    rest, large = split(content, frozenset(_WIRES))
    _check_between(content, large)
    message = _parse("Blob", rest)
    doubles = _numbers(large, _DOUBLE_DATA, "<f8")
    values = doubles if len(doubles) else _numbers(large, _DATA, "<f4")
    legacy = any(message.HasField(name) for name in _LEGACY)
    if not legacy and not message.HasField("shape"):
        raise ValueError("has no shape")
    shape = tuple(getattr(message, name) for name in _LEGACY) if legacy else tuple(message.shape.dim)
    if min(shape, default=1) < 1 or len(shape) > _DEEPEST_SHAPE or math.prod(shape) != len(values):
        raise ValueError(f"shape {shape} for {len(values)} numbers, expected as many")
    gradients = [sum(field.length(_WIDTHS[number]) for field in large if field.number == number) for number in _DIFFS]
    if (gradients[0] or gradients[1]) not in (0, len(values)):
        raise ValueError(f"{gradients[0] or gradients[1]} numbers in diff for {len(values)}, expected as many")
    return Blob(values.reshape(shape), legacy)


def _check_between(content: memoryview, large: list[Field]) -> None:
    """Raise ValueError for numbers of a wrong wire type, and for fields that are not known between them."""
    for field in large:
        if field.wire not in _WIRES[field.number]:
            raise ValueError(f"field {field.number} has wire type {field.wire}")
    for before, after in pairwise(large):
        for field in fields(content[before.end : after.start]) if after.start > before.end else ():
            if (field.number, field.wire) not in _KNOWN:
                raise ValueError(f"field {field.number}, of wire type {field.wire}, among its numbers")


def _numbers(large: list[Field], number: int, dtype: str) -> NDArray[np.float32]:
    parts = [field.numbers(dtype) for field in large if field.number == number]
    with np.errstate(over="ignore"):  # what is too large becomes infinite and is refused with its layer's name
        if len(parts) == 1:
            return parts[0].astype(np.float32, copy=not parts[0].flags.writeable)  # a view of the file, or our own
        joined = np.empty(sum(map(len, parts)), np.float32)
        start = 0
        for part in parts:
            joined[start : start + len(part)] = part
            start += len(part)
    return joined


def looks_like_model(data: bytes) -> bool:
    """Tell whether bytes are a protobuf that has layers, whatever is in them."""
    try:
        return any(field.number in (_LAYERS, _LAYERS_V1) and field.wire == BYTES for field in fields(memoryview(data)))
    except ValueError:
        return False
