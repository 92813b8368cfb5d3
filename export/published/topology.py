"""What a Caffe file or prototxt says of its layers, and the chain of our layers that it describes.

Caffe describes a network as a graph: every layer names the blobs that it reads (bottoms) and writes (tops), and an
activation may write over the blob that it reads. The networks of this project are chains, so a chain is read from its
last layer back to its first, and whatever lies on the way must be known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from heapq import heapify, heappop, heappush
from typing import Literal

from deepsim.kernels.activations import LRELU_SLOPE, ActivationName
from deepsim.kernels.layers import LRN_ALPHA, LRN_BETA, LRN_K, LRN_SIZE, Kind, Layer, Shape
from deepsim.runtime.errors import CheckpointError

WITH_WEIGHTS: dict[str, Kind] = {"Convolution": "conv", "Deconvolution": "deconv", "InnerProduct": "fc"}
PASSING = frozenset({"Dropout", "Split"})  # outside training these hand on what they get
_ELEMENTWISE = frozenset(
    (
        "ReLU", "TanH", "Power", "Sigmoid", "AbsVal", "Exp", "Log", "BNLL",
        "ELU", "PReLU", "Scale", "Bias", "BatchNorm", "MVN", "Threshold",
    )
)  # fmt: skip
_INPUTS = frozenset(["Input", "Data", "ImageData", "MemoryData", "DummyData", "HDF5Data", "WindowData", "Python"])
_TOLERANCE = 1e-6  # Caffe keeps its settings in float32


@dataclass(frozen=True)
class LayerFacts:
    """One layer as a Caffe file has it; ``kind`` is Caffe's type, such as "InnerProduct".

    ``kernel``, ``stride`` and ``pad`` hold for both axes. ``pool`` is "MAX" or another method. ``norm`` is an LRN's
    (size, alpha, beta, k), ``power`` a Power's (power, scale, shift), ``shape`` a Reshape's with the batch.
    ``refused`` says, in words, why we cannot compute the layer; it counts where the layer belongs to a network of ours.
    """

    name: str
    kind: str
    bottoms: tuple[str, ...] = ()
    tops: tuple[str, ...] = ()
    outputs: int = 0
    kernel: int = 1
    stride: int = 1
    pad: int = 0
    groups: int = 1
    bias: bool = True
    transpose: bool = False
    slope: float = 0.0
    pool: str = "MAX"
    whole: bool = False
    ceil_mode: bool = True
    norm: tuple[float, ...] = (LRN_SIZE, LRN_ALPHA, LRN_BETA, LRN_K)
    power: tuple[float, float, float] = (1.0, 1.0, 0.0)
    shape: tuple[int, ...] = ()
    refused: str = ""


@dataclass(frozen=True)
class Topology:
    """The layers of a Caffe file in their order, and the shapes of its inputs without the batch.

    ``file`` names the file for messages. ``separate`` tells a prototxt from what a file of weights says of itself.
    """

    file: str
    separate: bool
    layers: tuple[LayerFacts, ...]
    inputs: Mapping[str, Shape] = field(default_factory=dict)

    @cached_property
    def with_weights(self) -> dict[str, int]:
        """Return the indices of the layers that have weights, by name; of a repeated name the last."""
        return {layer.name: index for index, layer in enumerate(self.layers) if layer.kind in WITH_WEIGHTS}

    def find(self, name: str) -> int | None:
        """Return the index of the last layer of a name that has weights, None where there is none."""
        return self.with_weights.get(name)

    def producer(self, blob: str, before: int) -> int | None:
        """Return the index of the layer that last wrote a blob before a layer reads it."""
        return next((i for i in range(before - 1, -1, -1) if blob in self.layers[i].tops), None)

    def readers(self, blob: str, after: int) -> list[int]:
        """Return the indices of the layers that read a blob, also through Split, until another layer writes it."""
        found, blobs = [], {blob}
        for index in range(after + 1, len(self.layers)):
            layer = self.layers[index]
            reads = not blobs.isdisjoint(layer.bottoms)
            if reads and layer.kind != "Split":
                found.append(index)
            blobs = blobs.union(layer.tops) if reads and layer.kind == "Split" else blobs.difference(layer.tops)
        return found

    def refuse(self, layer: LayerFacts, found: str, expected: str) -> CheckpointError:
        """Build the error about one layer."""
        return CheckpointError(f"{self.file}: layer {layer.name} ({layer.kind}): {found}, expected {expected}.")


def in_order(layers: tuple[LayerFacts, ...]) -> tuple[LayerFacts, ...]:
    """Return the layers of a file of weights in the order of their data: in such a file the order means nothing.

    Every blob has one layer that makes it, those that write over it, and then those that read it. Layers that wait for
    each other are left out.
    """
    over = [not set(layer.tops).isdisjoint(layer.bottoms) for layer in layers]
    writers: dict[str, list[int]] = {}
    for index, layer in enumerate(layers):
        for top in layer.tops:
            writers.setdefault(top, []).append(index)
    waiting: dict[int, int] = {}
    followers: dict[int, list[int]] = {}
    for index, layer in enumerate(layers):
        before = {
            i for blob in layer.bottoms for i in writers.get(blob, ()) if i != index and not (over[index] and over[i])
        }
        waiting[index] = len(before)
        for i in before:
            followers.setdefault(i, []).append(index)
    ready = [index for index, count in waiting.items() if not count]
    heapify(ready)
    ordered = []
    while ready:
        index = heappop(ready)
        ordered.append(layers[index])
        for follower in followers.get(index, ()):
            waiting[follower] -= 1
            if not waiting[follower]:
                heappush(ready, follower)
    return tuple(ordered)


@dataclass(frozen=True)
class Chain:
    """Facts from a network's first layer to its last, and the blob that the first one reads."""

    facts: tuple[LayerFacts, ...]
    blob: str
    first: int

    @property
    def names(self) -> list[str]:
        """Return the names of the layers that have weights."""
        return [facts.name for facts in self.facts if facts.kind in WITH_WEIGHTS]


def read_chain(
    topology: Topology, last: str, first: frozenset[str], role: Literal["encoder", "generator"], gaps: Mapping[str, str]
) -> Chain:
    """Read the chain that ends with the layer ``last`` and begins with one of ``first``.

    ``gaps`` says which layer precedes one whose Reshape the format cannot hold (Caffe's of 2014 and before), as
    {"deconv5": "defc5"}. Raises CheckpointError naming the layer where the chain breaks.
    """
    index = topology.find(last)
    if index is None:
        raise CheckpointError(f"{topology.file}: no layer {last} with weights.")
    tail = _tail(topology, index, role)
    back = [topology.layers[index]]
    while back[-1].name not in first:
        layer = topology.layers[index]
        if len(layer.bottoms) != 1:
            raise topology.refuse(layer, f"{len(layer.bottoms)} inputs", "one")
        previous = topology.producer(layer.bottoms[0], index)
        if previous is None and layer.name in gaps:
            previous = _across_a_gap(topology, gaps[layer.name], index)
            back.append(LayerFacts("reshape", "Reshape", shape=(0, -1, 4, 4)))
        if previous is None:
            raise topology.refuse(layer, f"nothing writes its input {layer.bottoms[0]!r}", "a layer before it")
        index = previous
        back.append(topology.layers[index])
    begin = topology.layers[index]
    if len(begin.bottoms) != 1:
        raise topology.refuse(begin, f"{len(begin.bottoms)} inputs", "one")
    return Chain((*reversed(back), *tail), begin.bottoms[0], index)


def _across_a_gap(topology: Topology, name: str, before: int) -> int | None:
    previous = topology.find(name)
    if previous is None or previous >= before or not topology.layers[previous].tops:
        return None
    return topology.producer(topology.layers[previous].tops[0], before)


def _tail(topology: Topology, index: int, role: str) -> list[LayerFacts]:
    """Return what follows the last layer with weights and still belongs to the network."""
    known = {"ReLU", "Pooling", "LRN", "Dropout"} if role == "encoder" else {"ReLU", "TanH", "Power"}
    tail: list[LayerFacts] = []
    while topology.layers[index].tops:
        current = topology.layers[index]
        readers = topology.readers(current.tops[0], index)
        following = [i for i in readers if topology.layers[i].kind in known | _ELEMENTWISE]
        if not following or (current.kind == "Power" and role == "generator"):
            break
        layer = topology.layers[following[0]]
        alone = len(readers) == 1 or layer.tops == layer.bottoms
        if layer.kind not in known or not alone:
            if alone and role == "generator":
                raise topology.refuse(layer, "changes the image", "ReLU, TanH or Power after the last layer")
            break
        tail.append(layer)
        index = following[0]
    return tail


def origin(topology: Topology, chain: Chain) -> LayerFacts | None:
    """Return the layer, past those that change no value, whose output a chain reads; None for an input of the file.

    Raises CheckpointError where the input is scaled or normalised first: no network of ours does that.
    """
    blob, before = chain.blob, chain.first
    while (index := topology.producer(blob, before)) is not None:
        layer = topology.layers[index]
        if layer.kind in _INPUTS:
            return None
        reshapes = layer.kind in ("Reshape", "Flatten") and chain.facts[0].kind == "InnerProduct"
        if layer.kind not in PASSING and not reshapes:
            if layer.kind in _ELEMENTWISE - {"ReLU"} or layer.kind in ("Eltwise", "Concat", "Slice"):
                raise topology.refuse(layer, f"changes the input of {chain.facts[0].name}", "none there")
            return layer
        if not layer.bottoms:
            return None
        blob, before = layer.bottoms[0], index
    return None


def input_shape(topology: Topology, chain: Chain) -> Shape | None:
    """Return the shape of a chain's input without the batch, where the file says it."""
    blob, before = chain.blob, chain.first
    while blob not in topology.inputs:
        index = topology.producer(blob, before)
        if index is None or topology.layers[index].kind not in PASSING or not topology.layers[index].bottoms:
            return None
        blob, before = topology.layers[index].bottoms[0], index
    return topology.inputs[blob] or None


def layers_of(topology: Topology, chain: Chain, weights: Mapping[str, Shape]) -> tuple[Layer, ...]:
    """Turn a chain into our layers; ``weights`` are the shapes of the arrays, which give the channel counts.

    Raises CheckpointError naming the layer, for what no layer of ours computes and for a shape that does not fit.
    """
    layers: list[Layer] = []
    pad = tanh = 0
    for facts in chain.facts:
        if facts.refused:
            raise CheckpointError(f"{topology.file}: layer {facts.name} ({facts.kind}): {facts.refused}.")
        if tanh and facts.kind != "Power":
            raise topology.refuse(facts, "follows a TanH", "Power with scale 255")
        if facts.kind == "Padding":  # of 2013: the padding of the convolution that follows
            pad = facts.pad
        elif facts.kind in ("ReLU", "TanH", "Power"):
            tanh = facts.kind == "TanH"
            _activate(topology, layers, facts)
        elif facts.kind not in PASSING and not _flattens_for_fc(chain, facts):
            layers.append(_layer(topology, replace(facts, pad=facts.pad + pad), weights, layers))
            pad = 0
    if tanh:
        raise topology.refuse(chain.facts[-1], "ends the network", "Power with scale 255 after it")
    return tuple(layers)


def _flattens_for_fc(chain: Chain, facts: LayerFacts) -> bool:
    after = chain.facts[chain.facts.index(facts) + 1 :]
    return facts.kind == "Flatten" and bool(after) and after[0].kind == "InnerProduct"


def _activate(topology: Topology, layers: list[Layer], facts: LayerFacts) -> None:
    """Put an activation into the layer before it; TanH waits for its Power."""
    before = layers[-1] if layers else None
    if facts.kind == "TanH":
        name: ActivationName = "none"
    elif facts.kind == "ReLU":
        name = relu_name(topology, facts)
    elif _close(facts.power, (1.0, 1.0, 0.0)):
        return
    elif _close(facts.power, (1.0, 255.0, 0.0)):
        name = "tanh255"
    else:
        found = "power {:g}, scale {:g}, shift {:g}".format(*facts.power)
        raise topology.refuse(facts, found, "scale 255 after a TanH")
    if before is None or not before.has_weights or before.activation != "none":
        raise topology.refuse(facts, "follows no layer with weights", "one before it")
    layers[-1] = replace(before, activation=name)


def relu_name(topology: Topology, facts: LayerFacts) -> ActivationName:
    """Return our name of a ReLU by its slope. Raises CheckpointError for a slope that no network of ours has."""
    for slope, name in ((0.0, "relu"), (LRELU_SLOPE, "lrelu")):
        if abs(facts.slope - slope) < _TOLERANCE:
            return name  # type: ignore[return-value]
    raise topology.refuse(facts, f"negative_slope {facts.slope:g}", f"0 or {LRELU_SLOPE:g}")


def _layer(topology: Topology, facts: LayerFacts, weights: Mapping[str, Shape], before: list[Layer]) -> Layer:
    if facts.kind in WITH_WEIGHTS:
        return weighted(topology, facts, weights)
    if facts.kind == "Pooling":
        if facts.pool != "MAX" or facts.whole or facts.pad:
            found = f"{facts.pool}{', global' if facts.whole else ''}, pad {facts.pad}"
            raise topology.refuse(facts, found, "MAX without padding")
        return Layer(facts.name, "pool", kernel=facts.kernel, stride=facts.stride, ceil_mode=facts.ceil_mode)
    if facts.kind == "LRN":
        if not _close(facts.norm, (LRN_SIZE, LRN_ALPHA, LRN_BETA, LRN_K)):
            found = "local_size {:g}, alpha {:g}, beta {:g}, k {:g}".format(*facts.norm)
            raise topology.refuse(facts, found, f"{LRN_SIZE}, {LRN_ALPHA:g}, {LRN_BETA:g}, {LRN_K:g}")
        return Layer(facts.name, "lrn")
    if facts.kind == "Reshape":
        return Layer(facts.name, "reshape", shape=_reshaped(topology, facts, before))
    raise topology.refuse(facts, "not known here", "a layer of the networks that are imported")


def weighted(topology: Topology, facts: LayerFacts, weights: Mapping[str, Shape]) -> Layer:
    """Return a layer with weights, its channel counts from its array. Raises CheckpointError naming the layer."""
    kind = WITH_WEIGHTS[facts.kind]
    shape = weights.get(f"{facts.name}.weight")
    if facts.refused:
        raise CheckpointError(f"{topology.file}: layer {facts.name} ({facts.kind}): {facts.refused}.")
    if shape is None:
        raise CheckpointError(f"{topology.file}: layer {facts.name} ({facts.kind}): no weights for it in the source.")
    if len(shape) != (2 if kind == "fc" else 4):
        raise topology.refuse(facts, f"weights of shape {shape}", "two axes" if kind == "fc" else "four axes")
    kernel = facts.kernel if kind != "fc" else 1
    inputs, outputs = shape[0] if kind == "deconv" else shape[1], shape[1] if kind == "deconv" else shape[0]
    if kind == "deconv":
        outputs *= facts.groups
    elif kind == "conv":
        inputs *= facts.groups
    if facts.outputs not in (0, outputs):
        raise topology.refuse(facts, f"num_output {facts.outputs}", f"{outputs} as its weights of shape {shape} have")
    stride, pad = (facts.stride, facts.pad) if kind != "fc" else (1, 0)
    layer = Layer(facts.name, kind, inputs, outputs, kernel, stride, pad, facts.groups if kind != "fc" else 1)
    if layer.weight_shape != shape or min(shape) < 1 or inputs % layer.groups or outputs % layer.groups:
        raise topology.refuse(facts, f"weights of shape {shape}", f"kernel {kernel}x{kernel}, {layer.groups} groups")
    return layer


def _reshaped(topology: Topology, facts: LayerFacts, before: list[Layer]) -> Shape:
    """Return a Reshape's target without the batch, with one extent inferred from the layer before it."""
    target = list(facts.shape[1:])
    units = before[-1].outputs if before and before[-1].kind == "fc" else 0
    if -1 in target and units:
        known = 1
        for extent in target:
            known *= extent if extent != -1 else 1
        target[target.index(-1)] = units // known if known > 0 else 0
    if len(target) != 3 or min(target, default=0) < 1 or (units and target[0] * target[1] * target[2] != units):
        raise topology.refuse(facts, f"shape {facts.shape}", "(0, C, H, W) for the layer before it")
    return tuple(target)


def _close(found: tuple[float, ...], expected: tuple[float, ...]) -> bool:
    return len(found) == len(expected) and all(
        abs(a - b) <= _TOLERANCE * (abs(b) or 1.0) for a, b in zip(found, expected, strict=True)
    )
