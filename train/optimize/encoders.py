"""The networks whose features are compared: tables of layers, or any PyTorch module; frozen, and differentiable."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from deepsim.kernels.layers import Layer, Shape
from deepsim.runtime.backends.torch import WEIGHTS, stored_weights, weights_of
from deepsim.runtime.bundle import Bundle
from deepsim.runtime.errors import BundleError, CheckpointError, UsageError
from deepsim.runtime.files import sha256
from deepsim.runtime.geometry import Framing
from deepsim.runtime.networks import ENCODERS, EncoderSpec, encoder_spec
from deepsim.runtime.pixels import CAFFE_PIXELS, IMAGENET_PIXELS, PixelConvention
from deepsim.train.frozen import AddGradient, FrozenTable
from deepsim.train.module_encoders import ModuleEncoder, build_module_encoder
from deepsim.train.module_references import is_module_reference, parse
from deepsim.train.optimize.place import Place
from deepsim.train.weights import read_weights

PIXELS = {"caffe": CAFFE_PIXELS, "imagenet": IMAGENET_PIXELS}
"""Pixel conventions by name: BGR less 104, 117, 123; or RGB normalised by ImageNet's mean and standard deviation."""


class Pass(Protocol):
    """One pass of a batch through an encoder."""

    values: dict[str, Tensor]

    def backward(self, add: AddGradient) -> Tensor:
        """Return the gradient at the input, from what ``add`` adds at each tap."""
        ...


class Encoder(Protocol):
    """A frozen network: its input is (N, 3, side, side) in its own pixel convention; taps name its layers."""

    name: str
    pixels: PixelConvention
    framing: Framing
    identity: str

    def shape_of(self, tap: str) -> Shape:
        """Return the shape of the features at a tap, (C, H, W) or (C,). Raises UsageError naming the layers."""
        ...

    def stride_of(self, tap: str) -> int:
        """Return how many pixels of the input lie between neighbouring places at a tap."""
        ...

    def features(self, x: Tensor, taps: Collection[str]) -> dict[str, Tensor]:
        """Return the features of a batch at the taps."""
        ...

    def run(self, x: Tensor, taps: Collection[str]) -> Pass:
        """Run a batch to the last of the taps, so that gradients can come back."""
        ...


class TableEncoder(FrozenTable):
    """An encoder that is a table of layers. ``identity`` tells its weights from all others."""

    def __init__(self, spec: EncoderSpec, weights: dict[str, Tensor], identity: str, place: Place) -> None:
        super().__init__(spec.name, spec.layers, spec.input_shape, weights, place.put)
        self.pixels, self.framing, self.identity = spec.pixels, spec.framing, identity

    def stride_of(self, tap: str) -> int:
        """Return the product of the strides of the layers up to a tap; behind the last map, of those up to there."""
        self.shape_of(tap)
        names = [layer.name for layer in self.layers]
        before = self.layers[: names.index(tap.partition(":")[0]) + 1]
        return math.prod(layer.stride for layer in before)


class _ModulePass:
    def __init__(self, x: Tensor, values: dict[str, Tensor]) -> None:
        self._x, self._outputs = x, values
        self.values = {name: value.detach() for name, value in values.items()}

    def backward(self, add: AddGradient) -> Tensor:
        """Return the gradient at the input, by autograd."""
        gradients = {name: add(name, value, None) for name, value in self.values.items()}
        known = {name: gradient for name, gradient in gradients.items() if gradient is not None}
        (found,) = torch.autograd.grad([self._outputs[name] for name in known], self._x, list(known.values()))
        return found


class ModuleNetwork:
    """An encoder that is any PyTorch module (see :mod:`deepsim.train.module_encoders`); autograd goes through it."""

    def __init__(self, encoder: ModuleEncoder, identity: str) -> None:
        self._encoder, self.identity = encoder, identity
        self.name, self.pixels = encoder.reference.model, encoder.preprocessing.pixels
        self.framing = encoder.framing

    def shape_of(self, tap: str) -> Shape:
        """Return the shape of the features at a tap. Raises UsageError naming those that the encoder was built for."""
        if tap not in self._encoder.formats:
            raise UsageError(f"{self.name}: no layer {tap!r}, it was built for {', '.join(self._encoder.formats)}.")
        return self._encoder.formats[tap].shape

    def stride_of(self, tap: str) -> int:
        """Return the side of the input over that of the features. Raises UsageError for features without extent."""
        shape = self.shape_of(tap)
        if len(shape) == 1:
            raise UsageError(f"{self.name} {tap}: a vector has no stride, expected a number. Pass --jitter.")
        return round(self.framing.side / shape[-1])

    @torch.no_grad()
    def features(self, x: Tensor, taps: Collection[str]) -> dict[str, Tensor]:
        """Return the features of a batch at the taps."""
        return self._encoder.converted_features(x, taps)

    def run(self, x: Tensor, taps: Collection[str]) -> Pass:
        """Run a batch to the last of the taps."""
        leaf = x.detach().requires_grad_()
        with torch.enable_grad():
            return _ModulePass(leaf, self._encoder.converted_features(leaf, taps))


def open_encoder(
    encoder: str, layers: Sequence[str], weights: Path | None, place: Place, pixels: str | None = None, seed: int = 0
) -> Encoder:
    """Open what ``encoder`` names: a bundle folder with a table, a table by name, or the reference of a module.

    A table by name needs ``weights``, a file; ``pixels`` names its convention where it is not the table's own (bdpy's
    VGG-19 is "caffe", and has the names and shapes of torchvision's). A module without ``weights`` gets what it comes
    with, or random ones from ``seed``. Raises UsageError, BundleError, CheckpointError.
    """
    if pixels is not None and encoder not in ENCODERS:
        raise UsageError(f"pixels {pixels}: {encoder} says its own, expected them with a table's name alone.")
    if encoder in ENCODERS:
        return _table(encoder, layers, weights, place, pixels)
    if is_module_reference(encoder):
        return _module(encoder, layers, weights, place, seed)
    if weights is not None:
        raise UsageError(f"weights {weights}: the bundle {encoder} has its own. Leave them out.")
    return _of_bundle(encoder, place)


def _table(name: str, layers: Sequence[str], weights: Path | None, place: Place, pixels: str | None) -> Encoder:
    spec = encoder_spec(name)
    if weights is None:
        raise UsageError(f"encoder {name}: a table without weights, expected a file. Pass --encoder-weights.")
    if pixels is not None and pixels not in PIXELS:
        raise UsageError(f"pixels {pixels!r}: expected one of {', '.join(PIXELS)}.")
    deepest = max((layer.partition(":")[0] for layer in layers), key=lambda layer: len(spec.up_to(layer)))
    given = _renamed(read_weights(weights))
    table = spec.up_to(deepest)
    found = {key: tensor for layer in table if layer.has_weights for key, tensor in _of(layer, given, weights).items()}
    convention = PIXELS[pixels] if pixels is not None else spec.pixels
    return TableEncoder(EncoderSpec(name, table, convention, spec.framing), found, sha256(weights), place)


def _renamed(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    from deepsim.train.encoders import release_name

    return {release_name(name): tensor for name, tensor in weights.items()}


def _of(layer: Layer, weights: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    found = {}
    for kind, shape in (("weight", layer.weight_shape), ("bias", (layer.outputs,))):
        name = f"{layer.name}.{kind}"
        if name not in weights or weights[name].numel() != math.prod(shape):
            what = tuple(weights[name].shape) if name in weights else "missing"
            raise CheckpointError(f"{path}: {name} is {what}, expected {shape}. Use deepsim import for other layouts.")
        found[name] = weights[name].float().reshape(shape)
        if not bool(found[name].isfinite().all()):
            raise CheckpointError(f"{path}: {name} holds NaN or infinity, expected finite weights.")
    return found


def _module(reference: str, layers: Sequence[str], weights: Path | None, place: Place, seed: int) -> Encoder:
    plain = [layer.partition(":")[0] for layer in layers]
    if plain != list(layers):
        raise UsageError(f"{reference}: a module's layers are its submodules, expected no {':'!r} in {layers[0]!r}.")
    found = build_module_encoder(parse(f"{reference}@{layers[0]}"), layers[1:], weights, seed).to(
        place.device, place.dtype
    )
    return ModuleNetwork(found, f"{reference}, {'seed ' + str(seed) if weights is None else sha256(weights)}")


def _of_bundle(path: str, place: Place) -> Encoder:
    bundle = Bundle.open(path)
    spec = bundle.manifest.encoder
    if spec is None:
        raise BundleError(f"{path}: has no encoder, expected one. Import one with deepsim import --encoder.")
    if not isinstance(spec, EncoderSpec):
        raise BundleError(
            f"{path}: its encoder is a graph of {spec.name}, through which no gradient comes, expected a table. "
            f"Name the module itself: --encoder {spec.name}."
        )
    weights = weights_of(stored_weights(bundle), "encoder", spec.layers)
    return TableEncoder(spec, weights, f"encoder {bundle.manifest.files[WEIGHTS].sha256}", place)
