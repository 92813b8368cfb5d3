"""The networks of :mod:`deepsim.runtime.networks` as PyTorch modules: one class reads every table.

State dicts carry the release layer names (``defc7.weight``, ``deconv5.bias``, ``conv1.weight`` ...).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from deepsim.kernels.activations import LRELU_SLOPE, refuse_activation
from deepsim.kernels.layers import Layer, refuse_kind
from deepsim.kernels.torch_layers import apply_layer
from deepsim.runtime.generators import GeneratorSpec
from deepsim.runtime.geometry import Framing, Geometry
from deepsim.runtime.networks import EncoderSpec
from deepsim.runtime.pixels import CAFFE_PIXELS, PixelConvention
from deepsim.train.frozen_layers import wide


class LayerWeights(nn.Module):
    """Hold one layer's weight and bias, in the layouts of :attr:`Layer.weight_shape`."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(layer.weight_shape))
        self.bias = nn.Parameter(torch.zeros(layer.outputs))


class LayerStack(nn.Module):
    """Run a table of layers; each layer with weights is a child module under its own name.

    ``heads`` are layers beside the table, of which the class that has them makes use.
    """

    heads: tuple[Layer, ...] = ()

    def __init__(self, layers: tuple[Layer, ...]) -> None:
        super().__init__()
        self.layers = layers
        for layer in layers:
            if layer.has_weights:
                self.add_module(layer.name, LayerWeights(layer))

    def weights_of(self, layer: Layer) -> LayerWeights:
        """Return the weight and bias of a layer of the table."""
        return cast(LayerWeights, self._modules[layer.name])

    def run_layer(self, layer: Layer, x: Tensor) -> Tensor:
        """Run one layer of the table on a batch."""
        if not layer.has_weights:
            return apply_layer(layer, x, None, None)
        own = self.weights_of(layer)
        return apply_layer(layer, x, own.weight, own.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Run all layers: a batch in the first layer's convention to a batch in the last's."""
        for layer in self.layers:
            x = self.run_layer(layer, x)
        return x


class Generator(LayerStack):
    """Turn features into images: (N, *spec.input_shape) -> (N, 3, S, S), mean-subtracted BGR in 0-255 units.

    Architecture: Dosovitskiy & Brox 2016, Table 1 and supplement, or 2015. The outer ring of the output never
    receives a loss; see :func:`scored`.
    """

    def __init__(self, spec: GeneratorSpec) -> None:
        super().__init__(spec.layers)
        self.spec = spec


class FromImageSpace(nn.Module):
    """Convert images (N, 3, H, W) from the generators' image space to an encoder's own pixel convention."""

    pixel_scale: Tensor
    pixel_offset: Tensor

    def __init__(self, pixels: PixelConvention) -> None:
        super().__init__()
        self.pixels = pixels
        own, caffe = torch.tensor(pixels.mean), torch.tensor(CAFFE_PIXELS.mean)
        offset = (caffe if pixels.order == "BGR" else caffe.flip(0)) - own
        self.register_buffer("pixel_scale", torch.tensor(pixels.scale).view(3, 1, 1), persistent=False)
        self.register_buffer("pixel_offset", offset.view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return the images in the encoder's channel order, mean and scale; the generators' own are left alone."""
        if self.pixels == CAFFE_PIXELS:
            return images
        ordered = images if self.pixels.order == "BGR" else images.flip(1)
        return (ordered + self.pixel_offset) * self.pixel_scale


class Encoder(LayerStack):
    """Compute features of images: (N, 3, side, side) mean-subtracted BGR in 0-255 units -> (N, C, H, W) or (N, C).

    The generators' image space is also every encoder's input here; an encoder with another pixel convention
    (torchvision's AlexNet) converts inside. Weights are frozen, until a task lets them learn.
    """

    def __init__(self, spec: EncoderSpec, layer: str) -> None:
        super().__init__(spec.up_to(layer))
        self.spec, self.layer = spec, layer
        self.requires_grad_(False)
        self.convert = FromImageSpace(spec.pixels)

    @property
    def framing(self) -> Framing:
        """Return how photographs become this encoder's input."""
        return self.spec.framing

    def features(self, images: Tensor, names: Iterable[str]) -> dict[str, Tensor]:
        """Return the outputs of the named layers from one pass that stops after the last of them."""
        wanted, found, x = set(names), {}, self.convert(images)
        for layer in self.layers:
            x = self.run_layer(layer, x)
            if layer.name in wanted:
                found[layer.name] = x
            if len(found) == len(wanted):
                break
        return found

    def forward(self, images: Tensor) -> Tensor:
        """Return the last layer's features."""
        return super().forward(self.convert(images))


def scored(images: Tensor, geometry: Geometry) -> Tensor:
    """Cut what the losses score out of whole generated images (N, 3, S, S) (paper, section 4).

    That is (N, 3, side, side), or less where the generator gives less (see :class:`Geometry`).
    """
    end = geometry.offset + geometry.generated_side
    return images[..., geometry.offset : end, geometry.offset : end]


def resized(images: Tensor, side: int) -> Tensor:
    """Resize images (N, 3, S, S) to (N, 3, side, side), bilinear and antialiased; what has the side stays as it is.

    This makes a photograph the target of a smaller generator, and its image what comparator and discriminator see. How
    Dosovitskiy & Brox 2015 resized is not known: this is our rule. Images of 16 bits come out as float32: PyTorch's
    antialiasing on a CPU has no other.
    """
    if images.shape[-1] == side:
        return images
    return functional.interpolate(wide(images), (side, side), mode="bilinear", antialias=True, align_corners=False)


def to_image_space(photos: Tensor) -> Tensor:
    """Convert uint8 RGB (N, H, W, 3) to the generators' image space: float32 (N, 3, H, W), BGR minus mean."""
    mean = torch.tensor(CAFFE_PIXELS.mean, device=photos.device)
    return (photos.flip(-1).float() - mean).permute(0, 3, 1, 2)


def to_pixels(images: Tensor) -> Tensor:
    """Convert images (N, 3, H, W) of the generators' image space to uint8 RGB (N, H, W, 3), rounded and clipped."""
    mean = torch.tensor(CAFFE_PIXELS.mean, device=images.device)
    return (images.permute(0, 2, 3, 1).float() + mean).round().clamp(0, 255).byte().flip(-1)


def initialise_generator(generator: Generator, generator_rng: torch.Generator, even: bool = False) -> None:
    """Draw He-normal weights that keep the variance through LeakyReLU(0.3); biases are 0.

    Convolutions and fully connected layers: variance 2 / ((1 + 0.3^2) fan_in). Deconvolutions as in the release:
    fan_in = out k^2 and the variance 2 / fan_in scaled by 1.8 (k4 s2) or 0.9 (k3 s1); read as factors on the variance
    these keep it constant where channels halve with each up-convolution (1.8 * (1 + 0.3^2) / 2 = 0.98). The last
    layer of a tanh generator starts at a tenth, so that no pixel starts saturated.

    With ``even``, all outputs of an up-convolution that one input reaches begin equal: images begin without the pattern
    of a checkerboard (Aitken et al. 2017, arXiv 1707.02937). Raises UnknownLayerError.
    """
    for layer in generator.layers:
        if not layer.has_weights:
            continue
        own = generator.weights_of(layer)
        nn.init.normal_(own.weight, std=math.sqrt(_variance(layer)), generator=generator_rng)
        nn.init.zeros_(own.bias)
        if even and layer.kind == "deconv" and layer.stride > 1 and layer.kernel % layer.stride == 0:
            with torch.no_grad():
                own.weight.copy_(_evened(own.weight, layer.stride))


def _evened(weight: Tensor, stride: int) -> Tensor:
    """Repeat every stride-th tap of a weight (C, D, k, k) over the taps that fall on the same input."""
    return weight[:, :, ::stride, ::stride].repeat_interleave(stride, 2).repeat_interleave(stride, 3)


def _variance(layer: Layer) -> float:
    """Return the variance of a generator layer's initial weights."""
    fan_in = math.prod(layer.weight_shape[1:])
    if layer.kind == "deconv":
        variance = (1.8 if layer.stride == 2 else 0.9) * 2 / fan_in
    elif layer.kind in ("fc", "conv"):
        variance = 2 / (1 + LRELU_SLOPE**2) / fan_in
    else:
        raise refuse_kind(layer, "the initialisation of generators")
    record = layer.activates
    if record.slope is None and record.scale is None:
        raise refuse_activation(record, "the initialisation of generators")
    return variance if record.scale is None else variance * 0.1**2
