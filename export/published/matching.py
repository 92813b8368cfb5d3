"""Which known network a set of arrays is, by its names and shapes alone or by a topology as well."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from numpy.typing import NDArray

from deepsim.export.published.layouts import (
    ENCODERS,
    GENERATORS,
    LAYOUTS,
    SAME_LAYERS,
    Layout,
    check_chain,
    missing,
    nearest,
    widened,
)
from deepsim.export.published.topology import Chain, Topology, input_shape, layers_of, origin, read_chain
from deepsim.kernels.layers import Layer, Shape, shapes
from deepsim.runtime.errors import CheckpointError, UsageError
from deepsim.runtime.geometry import CAFFE_FRAMING

if TYPE_CHECKING:
    from deepsim.export.published.networks import SourceFile

_GAPS = {"deconv5": "defc5"}  # Caffe's layers of 2014 have no Reshape
VARIANTS = {"fc6_eucl": "fc6", "fc6-places365": "fc6"}  # generators of a layer that were trained otherwise
_CHANNELS = {"norm1": 96, "norm2": 256}  # of the features, which the two generators differ in


@dataclass(frozen=True)
class Question:
    """What networks are looked for in, and what the user told."""

    arrays: Mapping[str, NDArray[Any]]
    sources: tuple[SourceFile, ...]
    topology: Topology | None
    layer: str | None
    encoder: str | None

    @property
    def source(self) -> str:
        """Name the file for messages."""
        return self.sources[0].name if self.sources else "weights"

    @property
    def is_caffe(self) -> bool:
        """Tell whether the weights come from Caffe, so that images are BGR in 0-255 units."""
        return any(source.format.startswith("Caffe") for source in self.sources)

    @property
    def shapes(self) -> dict[str, Shape]:
        """Return the shapes of the arrays."""
        return {name: tuple(array.shape) for name, array in self.arrays.items()}


@dataclass(frozen=True)
class Match:
    """Layers of one network, the layout that they are nearest to, and the layer that a generator reads in the file."""

    layout: Layout
    layers: tuple[Layer, ...]
    input_shape: Shape
    notes: tuple[str, ...] = ()
    reads: str | None = None


def match(role: Literal["encoder", "generator"], question: Question) -> Match:
    """Find a network's layers, from the topology where there is one, else from the table of the nearest layout.

    Raises CheckpointError with the nearest layout and the first difference, UsageError where the user must tell.
    """
    if question.topology is not None:
        return _by_topology(role, question, question.topology)
    layout, notes = _decided(nearest(role, question.shapes), question)
    layers = widened(layout, question.shapes, question.source)
    return Match(layout, layers, _default_input(layout, layers), notes)


def _default_input(layout: Layout, layers: tuple[Layer, ...]) -> Shape:
    """Return the layout's input shape with the channel count of the first layer."""
    return (layers[0].inputs, *layout.input_shape[1:])


def _decided(layout: Layout, question: Question) -> tuple[Layout, tuple[str, ...]]:
    """Choose among layouts whose names and kernels are the same, by channel counts or by what the user told."""
    arrays, by_name = question.shapes, {known.name: known for known in LAYOUTS[layout.role]}
    if layout.name == "caffenet" and "conv2.weight" in arrays and "conv1.weight" in arrays:
        if arrays["conv2.weight"][1:2] == arrays["conv1.weight"][:1]:
            return by_name["alexnet"], ()
        if question.encoder in ("caffenet", "bvlc-alexnet"):
            return by_name[question.encoder], (f"{question.encoder}, as told: the arrays do not say it",)
        note = "taken for CaffeNet, which pools before it normalises; BVLC AlexNet has the same arrays"
        return layout, (f"{note} (--encoder bvlc-alexnet)",)
    if layout.name in _CHANNELS and "Rconv6.weight" in arrays:
        inputs = arrays["Rconv6.weight"][1:2]
        fitting = [name for name, channels in _CHANNELS.items() if inputs == (channels,)]
        name = fitting[0] if fitting else question.layer
        if name not in _CHANNELS:
            raise UsageError(f"--layer: {question.layer!r}, expected norm1 or norm2: {question.source} fits both.")
        return by_name[name], () if fitting else (f"{name}, as told: the channel counts are others",)
    return layout, ()


def _by_topology(role: Literal["encoder", "generator"], question: Question, topology: Topology) -> Match:
    arrays = question.shapes
    if topology.separate:
        arrays = {name: shape for name, shape in arrays.items() if topology.find(name.rpartition(".")[0]) is not None}
    layout = nearest(role, arrays)
    present = [name for name in layout.names if topology.find(name) is not None]
    early = topology.separate or (role == "encoder" and _goes_on(topology, layout, present))
    if not early:  # a file of weights that is cut has fewer layers
        for name in layout.names:
            if f"{name}.weight" not in arrays:
                raise missing(layout, name, question.source)
    if not present:
        raise CheckpointError(f"{topology.file}: no layers of {layout.title}, the nearest known network.")
    first = frozenset(known.names[0] for known in LAYOUTS[role])
    chain = read_chain(topology, present[-1], first, role, _GAPS)
    layers = layers_of(topology, chain, arrays)
    layout, notes = _same_layout(layout, layers, topology, early)
    notes += _crop_note(topology, chain, layers, layout) if role == "generator" else ()
    shape = input_shape(topology, chain) or _default_input(layout, layers)
    if layers[0].kind == "fc":
        shape = (math.prod(shape),)
    layers = _as_known(layers, layout, shape)
    return Match(layout, layers, shape, notes, _read_layer(topology, chain) if role == "generator" else None)


def _goes_on(topology: Topology, layout: Layout, present: list[str]) -> bool:
    """Tell whether a file has other networks after an encoder that ends early, so that it cannot have been cut there.

    A training needs no more of its encoder than the inverted and the compared layers.
    """
    last = max((topology.with_weights[name] for name in present), default=-1)
    others = {name for role in LAYOUTS if role != layout.role for known in LAYOUTS[role] for name in known.names}
    after = any(index > last for name, index in topology.with_weights.items() if name in others - set(layout.names))
    return after and tuple(present) == layout.names[: len(present)]


def _crop_note(topology: Topology, chain: Chain, layers: tuple[Layer, ...], layout: Layout) -> tuple[str, ...]:
    """Note where a training cut its images, if that is not the middle, where a bundle takes its pixels from."""
    end = chain.facts[-1]
    last = next(index for index, facts in enumerate(topology.layers) if facts is end)
    readers = topology.readers(end.tops[0], last) if end.tops else []
    side = check_chain(layers, _default_input(layout, layers), topology.file)[-1][-1]
    middle = (side - CAFFE_FRAMING.side) // 2
    crops = [topology.layers[index] for index in readers if topology.layers[index].kind == "Crop"]
    offsets = {offset for facts in crops for offset in facts.shape} - {middle}
    note = f"its training cut images at offset {min(offsets, default=0)}, a bundle takes the middle, {middle}"
    return (note,) if offsets else ()


def _same_layout(
    guess: Layout, layers: tuple[Layer, ...], topology: Topology, early: bool
) -> tuple[Layout, tuple[str, ...]]:
    """Return the layout that has the same layers, and notes on what differs from the release.

    What a file of weights says of itself must agree in kinds and activations; a prototxt may differ. With ``early``
    the network may end before the layout does.
    """

    def cut(layout: Layout) -> tuple[Layer, ...]:
        return layout.layers[: len(layers)] if early else layout.layers

    same = [known for known in LAYOUTS[guess.role] if _kinds(cut(known)) == _kinds(layers)]
    if same:
        layout = min(same, key=lambda known: len(_differences(layers, known)))
        short = len(layers) < len(layout.layers)
        end = (f"ends at {layout.layers[len(layers) - 1].name}, as {topology.file} says",) if short else ()
        return layout, (*_differences(layers, layout), *end)
    found, expected = next(
        ((a, b) for a, b in zip(_kinds(layers), _kinds(guess.layers), strict=False) if a != b),
        ("its end", "more layers"),
    )
    difference = f"{_said(found)} where {guess.title} has {_said(expected)}"
    if not topology.separate:
        raise CheckpointError(
            f"{topology.file}: {difference}, expected a known network. Pass the prototxt of another one."
        )
    return guess, (f"{difference}, as {topology.file} says",)


def _as_known(layers: tuple[Layer, ...], layout: Layout, input_shape: Shape) -> tuple[Layer, ...]:
    """Give layers without weights the layout's names, by which their outputs are asked for.

    Caffe's pooling rounds up; where rounding down gives the same sizes and the layout has it so, it is written so.
    """
    if _kinds(layers) != _kinds(layout.layers[: len(layers)]):
        return layers
    pairs = list(zip(layers, layout.layers, strict=False))
    named = tuple(replace(layer, name=known.name) for layer, known in pairs)
    rounded = tuple(replace(layer, name=known.name, ceil_mode=known.ceil_mode) for layer, known in pairs)
    try:
        return rounded if shapes(rounded, input_shape) == shapes(named, input_shape) else named
    except ValueError:  # layers that do not fit each other are refused where their weights are checked
        return named


def _kinds(layers: tuple[Layer, ...]) -> list[tuple[str, str, str]]:
    return [(layer.kind, layer.name if layer.has_weights else "", layer.activation) for layer in layers]


def _said(kinds: tuple[str, str, str] | str) -> str:
    return kinds if isinstance(kinds, str) else f"{kinds[1] or 'a layer'} ({kinds[0]}, activation {kinds[2]})"


def _differences(layers: tuple[Layer, ...], layout: Layout) -> tuple[str, ...]:
    """Return in words how kernels, strides, paddings and groups differ from the release's."""
    found = []
    for layer, known in zip(layers, layout.layers, strict=False):
        for name in ("kernel", "stride", "padding", "groups"):
            if getattr(layer, name) != getattr(known, name):
                found.append(f"{layer.name}: {name} {getattr(layer, name)}, the release has {getattr(known, name)}")
    return tuple(found)


def _read_layer(topology: Topology, chain: Chain) -> str | None:
    """Return which encoder's layer a generator reads within one file, as in a training snapshot."""
    source = origin(topology, chain)
    if source is None:
        return None
    known = {layer.name for layout in ENCODERS for layer in layout.layers}
    name = next((name for name in (*source.tops[:1], source.name, *source.bottoms[:1]) if name in known), None)
    if name is not None and source.kind in ("Convolution", "InnerProduct") and name != "fc8":
        raise topology.refuse(source, f"is read by {chain.facts[0].name} before its ReLU", "after it")
    return name


def inverted_layer(found: Match, question: Question) -> tuple[str, tuple[str, ...]]:
    """Return the layer that a generator inverts and notes on how that is known. Raises UsageError to ask for it."""
    choices = SAME_LAYERS.get(found.layout.name, (found.layout.name,))
    told = question.layer
    base = VARIANTS.get(told or "", told)
    inputs = found.layers[0].inputs
    if found.layout.name == "fc6" and inputs in (1000, 4096):
        choices = ("fc8",) if inputs == 1000 else ("fc6", "fc7")
    if found.reads is not None:
        if base not in (None, found.reads):
            raise UsageError(f"--layer {told}: the generator in {question.source} reads {found.reads}.")
        return found.reads, (f"inverts {found.reads}, which it reads in the file",)
    if base is None:
        if len(choices) == 1:
            return choices[0], ()
        raise UsageError(f"--layer: missing, expected {' or '.join(choices)}: {question.source} fits each of them.")
    others = {name for layout in GENERATORS for name in (layout.name, *SAME_LAYERS.get(layout.name, ()))}
    free = found.layout.name == "fc6" and inputs not in (1000, 4096) and base not in others - set(choices)
    if base not in choices and not free:
        raise UsageError(f"--layer {told}: {question.source} holds a generator for {' or '.join(choices)}.")
    if len(choices) == 1 and not free:
        return base, ()
    variant = f" ({told}, a generator of {base})" if told != base else ""
    return base, (f"inverts {base}, as told{variant}: the file does not say it",)


def check_output(match: Match, source: str) -> None:
    """Raise CheckpointError when layers do not fit each other, or a generator's output is no square image."""
    output = check_chain(match.layers, match.input_shape, source)[-1]
    if match.layout.role == "generator" and (len(output) != 3 or output[0] != 3 or output[1] != output[2]):
        raise CheckpointError(f"{source}: the generator's output has shape {output}, expected (3, S, S).")
