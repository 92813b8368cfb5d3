"""The published networks that are known, as tables of layers whose channel counts a file's own arrays replace."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from deepsim.kernels.layers import Layer, Shape, shapes
from deepsim.runtime.errors import CheckpointError
from deepsim.runtime.generators import generator_spec
from deepsim.runtime.networks import ALEXNET, CAFFENET, VGG16, VGG19, EncoderSpec
from deepsim.runtime.pixels import CAFFE_PIXELS, PixelConvention

Role = Literal["encoder", "generator", "discriminator"]
Shapes = Mapping[str, Shape]


@dataclass(frozen=True)
class Layout:
    """One known network: its layers by release names, with the published channel counts.

    ``name`` is an encoder's name or the layer that a generator inverts; "fc6" stands for fc6, fc7 and fc8, whose
    generators have the same layers, "conv4" for conv3 and conv4.
    """

    role: Role
    name: str
    layers: tuple[Layer, ...]
    input_shape: Shape
    pixels: PixelConvention = CAFFE_PIXELS

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the layers that have weights, in order."""
        return tuple(layer.name for layer in self.layers if layer.has_weights)

    @property
    def title(self) -> str:
        """Return the layout's name in words."""
        return {"encoder": self.name, "generator": f"the {self.name} generator"}.get(self.role, self.name)


def _original_alexnet() -> EncoderSpec:
    """Build BVLC AlexNet: CaffeNet with each normalisation before its pooling (Krizhevsky et al. 2012, 3.5)."""
    layers = list(CAFFENET.layers)
    for pool in ("pool1", "pool2"):
        index = next(i for i, layer in enumerate(layers) if layer.name == pool)
        layers[index], layers[index + 1] = layers[index + 1], layers[index]
    return replace(CAFFENET, name="bvlc-alexnet", layers=tuple(layers))


def _conv(name: str, inputs: int, outputs: int, kernel: int, stride: int) -> Layer:
    return Layer(name, "conv", inputs, outputs, kernel, stride, activation="relu")


_JUDGES = (
    _conv("Dconv1", 3, 32, 7, 4),
    _conv("Dconv2", 32, 64, 5, 1),
    _conv("Dconv3", 64, 128, 3, 2),
    _conv("Dconv4", 128, 256, 3, 1),
    _conv("Dconv5", 256, 256, 3, 2),
)
_CONDITION = (
    Layer("Dfeat1", "fc", 4096, 1024, activation="relu"),
    Layer("Dfeat2", "fc", 1024, 512, activation="relu"),
)


def _discriminator(condition: tuple[Layer, ...], hidden: int) -> Layout:
    joined = 256 + (condition[-1].outputs if condition else 0)
    verdict = (Layer("Dfc6", "fc", joined, hidden, activation="relu"), Layer("Dfc7", "fc", hidden, 2))
    return Layout("discriminator", "discriminator", (*_JUDGES, *condition, *verdict), CAFFENET.input_shape)


def _encoder(spec: EncoderSpec) -> Layout:
    return Layout("encoder", spec.name, spec.layers, spec.input_shape, spec.pixels)


def _generator(layer: str) -> Layout:
    spec = generator_spec(layer)
    return Layout("generator", layer, spec.layers, spec.input_shape)


BVLC_ALEXNET = _original_alexnet()
ENCODERS = tuple(_encoder(spec) for spec in (CAFFENET, BVLC_ALEXNET, ALEXNET, VGG16, VGG19))
GENERATORS = tuple(_generator(layer) for layer in ("fc6", "pool5", "conv4", "norm2", "norm1"))
DISCRIMINATORS = (_discriminator(_CONDITION, 512), _discriminator((), 256))
LAYOUTS = {"encoder": ENCODERS, "generator": GENERATORS, "discriminator": DISCRIMINATORS}
SAME_LAYERS = {"fc6": ("fc6", "fc7", "fc8"), "conv4": ("conv3", "conv4")}
"""Layers whose generators have the same layers, by the name of their layout."""


def roles_in(names: Collection[str]) -> list[Role]:
    """Return which kinds of networks the names of layers belong to, even to a part of one.

    VGG and the generators share the names conv1_1 to conv5_1, so these alone decide nothing.
    """
    found: list[Role] = []
    generator = any(name.startswith(("deconv", "defc", "Rconv")) for name in names)
    own = {name for layout in ENCODERS for name in layout.names}
    if generator:
        own -= {name for layout in GENERATORS for name in layout.names}
    if not own.isdisjoint(names):
        found.append("encoder")
    if generator:
        found.append("generator")
    if any(name.startswith(("Dconv", "Dfc", "Dfeat")) for name in names):
        found.append("discriminator")
    return found


def nearest(role: Role, arrays: Shapes) -> Layout:
    """Return the layout of a role with the most names, then kernels, then channels of the input in common."""
    names = {name.removesuffix(".weight") for name in arrays if name.endswith(".weight")}
    family = {name for layout in LAYOUTS[role] for name in layout.names if name in names}

    def distance(layout: Layout) -> tuple[int, int, bool]:
        own, first = set(layout.names), layout.layers[0]
        differing = sum(not _similar(layer, arrays) for layer in layout.layers if layer.name in names)
        inputs = arrays.get(f"{first.name}.weight", ())[1:2] != first.weight_shape[1:2]
        return len(own - names) + len(family - own), differing, inputs

    return min(LAYOUTS[role], key=distance)


def missing(layout: Layout, name: str, source: str) -> CheckpointError:
    """Build the error about a layer whose weights are not there."""
    return CheckpointError(f"{source}: no {name}.weight, which {layout.title}, the nearest known network, has.")


def _similar(layer: Layer, arrays: Shapes) -> bool:
    """Tell whether an array has a layer's rank and kernel."""
    shape = arrays.get(f"{layer.name}.weight", ())
    return len(shape) == len(layer.weight_shape) and shape[2:] == layer.weight_shape[2:]


def widened(layout: Layout, arrays: Shapes, source: str) -> tuple[Layer, ...]:
    """Return the layout's layers with the channel counts of the arrays.

    Raises CheckpointError that names ``source``, the layout and the first name or kernel that differs.
    """
    layers: list[Layer] = []
    for layer in layout.layers:
        if layer.has_weights:
            layers.append(_counted(layout, layer, arrays, source))
        elif layer.kind == "reshape":
            units, extent = layers[-1].outputs, math.prod(layer.shape[1:])
            layers.append(replace(layer, shape=(units // extent, *layer.shape[1:])))
        else:
            layers.append(layer)
    return tuple(layers)


def _counted(layout: Layout, layer: Layer, arrays: Shapes, source: str) -> Layer:
    shape = arrays.get(f"{layer.name}.weight")
    like = f"as in {layout.title}, the nearest known network"
    if shape is None:
        raise missing(layout, layer.name, source)
    expected = layer.weight_shape
    if len(shape) != len(expected) or shape[2:] != expected[2:] or min(shape, default=0) < 1:
        raise CheckpointError(f"{source}: {layer.name}.weight has shape {shape}, expected {expected} {like}.")
    first, second = (shape[1], shape[0]) if layer.kind != "deconv" else shape[:2]
    inputs, outputs = (first * layer.groups, second) if layer.kind != "deconv" else (first, second * layer.groups)
    if outputs % layer.groups:
        raise CheckpointError(
            f"{source}: {layer.name}.weight has shape {shape}, expected {layer.groups} groups {like}."
        )
    return replace(layer, inputs=inputs, outputs=outputs)


def check_chain(layers: tuple[Layer, ...], input_shape: Shape, source: str) -> list[Shape]:
    """Return the shapes of all outputs. Raises CheckpointError naming the layer whose input does not fit."""
    try:
        found = shapes(layers, input_shape)
    except ValueError as error:
        raise CheckpointError(f"{source}: {error}") from error
    if not found or min(min(shape) for shape in found) < 1:
        raise CheckpointError(f"{source}: an input of shape {input_shape} is too small for the layers.")
    return found
