"""The networks that published weights hold, found by the names and shapes of their arrays.

A PyTorch state dict brings its arrays by release names; a Caffe file brings them with its topology as well. Both end in
:func:`find_networks`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepsim.export.published.discriminators import check_counts, check_discriminator
from deepsim.export.published.layouts import Role, nearest, roles_in, widened
from deepsim.export.published.matching import Match, Question, check_output, inverted_layer, match
from deepsim.export.published.topology import Topology
from deepsim.kernels.layers import Layer, Shape
from deepsim.runtime.errors import CheckpointError, UsageError
from deepsim.runtime.pixels import CAFFE_PIXELS, PixelConvention

Weights = dict[str, NDArray[np.float32]]
CAFFE = "-caffe"  # after the name of a VGG: with the pixels of its Caffe release, not torchvision's


@dataclass(frozen=True)
class SourceFile:
    """A file that weights came from; ``format`` in words, such as "Caffe model (current layers)"."""

    name: str
    size: int
    sha256: str
    format: str


@dataclass(frozen=True)
class PublishedNetwork:
    """One network of a published file, complete and checked.

    ``name``: an encoder's ("caffenet", "bvlc-alexnet", "alexnet", "vgg16", "vgg19"), the layer that a generator
    inverts ("fc6"), or "discriminator". ``layers`` have the file's channel counts; a discriminator's are its
    convolutions, then its fully connected layers (see :mod:`deepsim.export.published.discriminators`).
    ``input_shape`` is without the batch. ``weights`` are "<layer>.weight" and "<layer>.bias", float32, finite, of the
    layers' shapes. ``notes`` say in words what was assumed, told by the user, or differs from the release. ``pixels``
    is what the network means by an image.
    """

    role: Role
    name: str
    layers: tuple[Layer, ...]
    input_shape: Shape
    weights: Weights
    sources: tuple[SourceFile, ...]
    notes: tuple[str, ...] = ()
    pixels: PixelConvention = CAFFE_PIXELS


def find_networks(
    weights: Mapping[str, NDArray[Any]],
    sources: Sequence[SourceFile],
    topology: Topology | None = None,
    layer: str | None = None,
    encoder: str | None = None,
) -> list[PublishedNetwork]:
    """Return the encoder, generator and discriminator that arrays by release names make up, those that are there.

    ``topology`` is what a Caffe file or prototxt says of the layers; without one they come from the known tables.
    Channel counts always come from the arrays. A layer without a bias gets zeros only where the topology says so.
    ``layer`` and ``encoder`` decide what the file cannot tell: fc6 or fc7, conv3 or conv4; "bvlc-alexnet" for a
    CaffeNet with its normalisation before its pooling; "vgg19" (torchvision's: RGB, normalised) or "vgg19-caffe" (BGR,
    0-255). A prototxt decides which networks there are; without one, every network must be whole.

    Raises CheckpointError with the nearest known network and the first name or shape that differs; UsageError that
    names --layer or --encoder where the file cannot tell, or contradicts.
    """
    question = Question(weights, tuple(sources), topology, layer, encoder)
    names = {name.rpartition(".")[0] for name in weights}
    if topology is not None and topology.separate:
        names = set(topology.with_weights)
    roles = roles_in(names)
    if not roles:
        listed = ", ".join(sorted(names)[:3]) or "none"
        known = "CaffeNet, AlexNet, VGG, a released generator or discriminator"
        raise CheckpointError(f"{question.source}: layers {listed}, expected those of {known}.")
    try:
        return _with_leftovers([_FIND[role](question) for role in roles], question)
    except CheckpointError as error:
        if len(roles) == 1 or (topology is not None and topology.separate):
            raise
        raise CheckpointError(f"{error} A prototxt of one network alone leaves the others out.") from error


def _with_leftovers(found: list[PublishedNetwork], question: Question) -> list[PublishedNetwork]:
    """Note which arrays belong to no network."""
    used = {name for network in found for name in network.weights}
    left = sorted({name.rpartition(".")[0] for name in set(question.arrays) - used})
    if not left:
        return found
    some = ", ".join(left[:5]) + (", ..." if len(left) > 5 else "")
    note = f"{len(left)} layers with weights belong to none of these networks: {some}"
    return [replace(network, notes=(*network.notes, note)) for network in found]


def _find_encoder(question: Question) -> PublishedNetwork:
    found = match("encoder", question)
    name, pixels, notes, told = found.layout.name, found.layout.pixels, found.notes, question.encoder
    if told is not None and told.removesuffix(CAFFE) != name:
        raise UsageError(f"--encoder {told}: {question.source} holds {name}.")
    if question.is_caffe:
        pixels = CAFFE_PIXELS
    elif name.startswith("vgg"):
        if told is None:
            raise UsageError(
                f"--encoder: missing, expected {name} (torchvision's: RGB, normalised) or {name}{CAFFE} (BGR, 0-255): "
                f"the arrays of {question.source} are the same for both."
            )
        pixels = CAFFE_PIXELS if told.endswith(CAFFE) else pixels
        notes = (*notes, f"{told}, as told: the file holds no pixel convention")
    return _checked(name, replace(found, notes=notes), question, pixels)


def _find_generator(question: Question) -> PublishedNetwork:
    found = match("generator", question)
    name, notes = inverted_layer(found, question)
    return _checked(name, replace(found, notes=(*found.notes, *notes)), question)


def _find_discriminator(question: Question) -> PublishedNetwork:
    layout = nearest("discriminator", question.shapes)
    layers = widened(layout, question.shapes, question.source)
    check_counts(layers, question.source)
    if question.topology is not None:
        check_discriminator(question.topology, layers)
    weights = _weights(layers, question)
    return PublishedNetwork("discriminator", layout.name, layers, layout.input_shape, weights, question.sources)


_FIND = {"encoder": _find_encoder, "generator": _find_generator, "discriminator": _find_discriminator}


def _checked(name: str, found: Match, question: Question, pixels: PixelConvention = CAFFE_PIXELS) -> PublishedNetwork:
    check_output(found, question.source)
    weights = _weights(found.layers, question)
    role, shape = found.layout.role, found.input_shape
    return PublishedNetwork(role, name, found.layers, shape, weights, question.sources, found.notes, pixels)


def _weights(layers: tuple[Layer, ...], question: Question) -> Weights:
    """Return the arrays of some layers as float32, with zeros for a bias that the topology does not have.

    Raises CheckpointError naming the array that is missing, has another shape or type, or is not finite.
    """
    weights: Weights = {}
    for layer in layers:
        if layer.has_weights:
            weights[f"{layer.name}.weight"] = _array(f"{layer.name}.weight", layer.weight_shape, question)
            weights[f"{layer.name}.bias"] = _bias(layer, question)
    return weights


def _bias(layer: Layer, question: Question) -> NDArray[np.float32]:
    name = f"{layer.name}.bias"
    index = None if question.topology is None else question.topology.find(layer.name)
    biased = index is None or question.topology is None or question.topology.layers[index].bias
    if biased:
        return _array(name, (layer.outputs,), question)
    if name in question.arrays:
        raise CheckpointError(f"{question.source}: {layer.name} has a bias, expected none: its bias_term is false.")
    return np.zeros(layer.outputs, np.float32)


def _array(name: str, shape: Shape, question: Question) -> NDArray[np.float32]:
    array = question.arrays.get(name)
    if array is None:
        raise CheckpointError(f"{question.source}: no {name}, expected shape {shape}.")
    if tuple(array.shape) != shape:
        raise CheckpointError(f"{question.source}: {name} has shape {tuple(array.shape)}, expected {shape}.")
    if array.dtype.kind != "f":
        raise CheckpointError(f"{question.source}: {name} holds {array.dtype}, expected floating-point numbers.")
    with np.errstate(over="ignore"):
        found = np.ascontiguousarray(array, np.float32)
    if not np.isfinite(found).all():
        raise CheckpointError(f"{question.source}: {name} is not finite in float32, expected finite numbers.")
    return found
