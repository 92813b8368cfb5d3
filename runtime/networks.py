"""The networks as tables of layers: two encoders and the generators for every layer that is inverted.

Sources: Dosovitskiy & Brox 2016 (arXiv 1602.02644), Table 1 and supplementary tables, with the layer names of the
authors' model release; BVLC CaffeNet; torchvision's AlexNet ("one weird trick", arXiv 1404.5997).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from deepsim.kernels.activations import ActivationName
from deepsim.kernels.layers import Layer, Shape, shapes
from deepsim.runtime.errors import UsageError
from deepsim.runtime.pixels import CAFFE_PIXELS, CROP, IMAGENET_PIXELS, PixelConvention

FC_LAYERS = ("fc6", "fc7", "fc8")
WIDTHS = tuple(2.0**-power for power in range(7))
LATENT = "latent"  # the "layer" that the VAE decoder inverts


@dataclass(frozen=True)
class EncoderSpec:
    """A convolutional network whose features are inverted: input (3, 227, 227) in its own pixel convention."""

    name: str
    layers: tuple[Layer, ...]
    pixels: PixelConvention
    input_shape: Shape = (3, CROP, CROP)

    def up_to(self, layer: str) -> tuple[Layer, ...]:
        """Return the layers up to and including the named one. Raises UsageError naming the valid ones."""
        names = [entry.name for entry in self.layers]
        if layer not in names:
            raise UsageError(f"{self.name}: no layer {layer!r}, it has {', '.join(names)}. Choose one of these.")
        return self.layers[: names.index(layer) + 1]

    def feature_shape(self, layer: str) -> Shape:
        """Return the shape of the named layer's output, (C, H, W) or (C,)."""
        return shapes(self.up_to(layer), self.input_shape)[-1]


@dataclass(frozen=True)
class GeneratorSpec:
    """A network from features back to an image (3, S, S), S = 256 or 240, in mean-subtracted BGR (0-255 units)."""

    layer: str
    input_shape: Shape
    layers: tuple[Layer, ...]
    pixels: PixelConvention = CAFFE_PIXELS

    @property
    def output_size(self) -> int:
        """Return the side of the square output in pixels."""
        return shapes(self.layers, self.input_shape)[-1][-1]


def _conv(
    name: str, inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int = 0, groups: int = 1
) -> Layer:
    return Layer(name, "conv", inputs, outputs, kernel, stride, padding, groups, activation="relu")


def _pool(name: str) -> Layer:
    return Layer(name, "pool", kernel=3, stride=2, ceil_mode=True)


def _fc(name: str, inputs: int, outputs: int, activation: ActivationName = "relu") -> Layer:
    return Layer(name, "fc", inputs, outputs, activation=activation)


CAFFENET = EncoderSpec(
    "caffenet",
    (
        _conv("conv1", 3, 96, 11, stride=4),
        _pool("pool1"),
        Layer("norm1", "lrn"),
        _conv("conv2", 96, 256, 5, padding=2, groups=2),
        _pool("pool2"),
        Layer("norm2", "lrn"),
        _conv("conv3", 256, 384, 3, padding=1),
        _conv("conv4", 384, 384, 3, padding=1, groups=2),
        _conv("conv5", 384, 256, 3, padding=1, groups=2),
        _pool("pool5"),
        _fc("fc6", 9216, 4096),
        _fc("fc7", 4096, 4096),
        _fc("fc8", 4096, 1000, "none"),
    ),
    CAFFE_PIXELS,
)

ALEXNET = EncoderSpec(
    "alexnet",
    (
        _conv("conv1", 3, 64, 11, stride=4, padding=2),
        Layer("pool1", "pool", kernel=3, stride=2),
        _conv("conv2", 64, 192, 5, padding=2),
        Layer("pool2", "pool", kernel=3, stride=2),
        _conv("conv3", 192, 384, 3, padding=1),
        _conv("conv4", 384, 256, 3, padding=1),
        _conv("conv5", 256, 256, 3, padding=1),
        Layer("pool5", "pool", kernel=3, stride=2),
        _fc("fc6", 9216, 4096),
        _fc("fc7", 4096, 4096),
        _fc("fc8", 4096, 1000, "none"),
    ),
    IMAGENET_PIXELS,
)

ENCODERS = {spec.name: spec for spec in (CAFFENET, ALEXNET)}


def encoder_spec(name: str) -> EncoderSpec:
    """Look an encoder up by name. Raises UsageError naming the valid ones."""
    if name not in ENCODERS:
        raise UsageError(f"encoder {name!r}: unknown, expected one of {', '.join(ENCODERS)}. Choose one of these.")
    return ENCODERS[name]


def _lrelu_conv(name: str, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, padding: int = 1) -> Layer:
    return Layer(name, "conv", inputs, outputs, kernel, stride, padding, activation="lrelu")


def _upconv(name: str, inputs: int, outputs: int, activation: ActivationName = "lrelu") -> Layer:
    return Layer(name, "deconv", inputs, outputs, 4, 2, 1, activation=activation)


def _deconv3(name: str, inputs: int, outputs: int) -> Layer:
    """Build the release's stride-1 Deconvolution: a 3x3 convolution with its kernel rotated by 180 degrees."""
    return Layer(name, "deconv", inputs, outputs, 3, 1, 1, activation="lrelu")


def _image(name: str, inputs: int) -> Layer:
    return Layer(name, "conv", inputs, 3, 3, 1, 1, activation="tanh255")


def _table1_trunk(inputs: int) -> tuple[Layer, ...]:
    """Build the up-convolutional part of the paper's Table 1: (inputs, 4, 4) -> (3, 256, 256), linear output."""
    return (
        _upconv("deconv5", inputs, 256),
        _deconv3("conv5_1", 256, 512),
        _upconv("deconv4", 512, 256),
        _deconv3("conv4_1", 256, 256),
        _upconv("deconv3", 256, 128),
        _deconv3("conv3_1", 128, 128),
        _upconv("deconv2", 128, 64),
        _upconv("deconv1", 64, 32),
        _upconv("deconv0", 32, 3, activation="none"),
    )


def _from_vector(inputs: int) -> tuple[Layer, ...]:
    return (
        _fc("defc7", inputs, 4096, "lrelu"),
        _fc("defc6", 4096, 4096, "lrelu"),
        _fc("defc5", 4096, 4096, "lrelu"),
        Layer("reshape", "reshape", shape=(256, 4, 4)),
        *_table1_trunk(256),
    )


def _from_pool5(inputs: int) -> tuple[Layer, ...]:
    return (
        _lrelu_conv("Rconv6", inputs, 512),
        _lrelu_conv("Rconv7", 512, 512),
        _lrelu_conv("Rconv8", 512, 512, padding=0),
        *_table1_trunk(512),
    )


def _from_conv(inputs: int) -> tuple[Layer, ...]:
    return (
        _lrelu_conv("Rconv6", inputs, 384, padding=0),
        _lrelu_conv("Rconv7", 384, 512, padding=0),
        _lrelu_conv("Rconv8", 512, 512, kernel=2, padding=0),
        _upconv("deconv5", 512, 256),
        _deconv3("conv5_1", 256, 256),
        _upconv("deconv4", 256, 128),
        _deconv3("conv4_1", 128, 128),
        _upconv("deconv3", 128, 128),
        _deconv3("conv3_1", 128, 128),
        _upconv("deconv2", 128, 64),
        _lrelu_conv("conv2_1", 64, 32),
        _upconv("deconv1", 32, 16),
        _image("conv1_1", 16),
    )


def _norm_trunk() -> tuple[Layer, ...]:
    """Build what norm1 and norm2 share: (128, 15, 15) -> (3, 240, 240)."""
    return (
        _lrelu_conv("Rconv8", 128, 128),
        _upconv("deconv4", 128, 128),
        _lrelu_conv("conv4_1", 128, 128),
        _upconv("deconv3", 128, 64),
        _lrelu_conv("conv3_1", 64, 64),
        _upconv("deconv2", 64, 32),
        _lrelu_conv("conv2_1", 32, 32),
        _upconv("deconv1", 32, 16, activation="none"),
        _image("conv1_1", 16),
    )


def _from_norm2(inputs: int) -> tuple[Layer, ...]:
    return (_lrelu_conv("Rconv6", inputs, 256, padding=2), _lrelu_conv("Rconv7", 256, 128), *_norm_trunk())


def _from_norm1(inputs: int) -> tuple[Layer, ...]:
    return (_lrelu_conv("Rconv6", inputs, 128, stride=2, padding=2), _lrelu_conv("Rconv7", 128, 128), *_norm_trunk())


# The block outputs of torchvision's AlexNet (no LRN) have the extents of CaffeNet's, so the same generators fit.
_FAMILIES = {
    "norm1": _from_norm1,
    "pool1": _from_norm1,
    "norm2": _from_norm2,
    "pool2": _from_norm2,
    "conv3": _from_conv,
    "conv4": _from_conv,
    "pool5": _from_pool5,
    **dict.fromkeys((*FC_LAYERS, LATENT), _from_vector),
}


def invertible_layers(encoder: EncoderSpec) -> list[str]:
    """List the encoder's layers that a generator exists for, in order."""
    return [entry.name for entry in encoder.layers if entry.name in _FAMILIES and not _before_norm(encoder, entry.name)]


def _before_norm(encoder: EncoderSpec, layer: str) -> bool:
    """Tell whether the layer is a pool that the encoder normalises next (there the LRN's output is inverted)."""
    return layer.replace("pool", "norm") in (entry.name for entry in encoder.layers) and layer.startswith("pool")


def _narrow(layers: tuple[Layer, ...], width: float) -> tuple[Layer, ...]:
    """Multiply every hidden channel count by ``width``; the network's input and output keep theirs."""

    def scaled(channels: int) -> int:
        return max(1, round(channels * width))

    last = len(layers) - 1
    return tuple(
        replace(
            layer,
            inputs=layer.inputs if index == 0 else scaled(layer.inputs) if layer.has_weights else 0,
            outputs=layer.outputs if index == last else scaled(layer.outputs) if layer.has_weights else 0,
            shape=(scaled(layer.shape[0]), *layer.shape[1:]) if layer.shape else (),
        )
        for index, layer in enumerate(layers)
    )


def generator_spec(layer: str, encoder: EncoderSpec = CAFFENET, width: float = 1.0) -> GeneratorSpec:
    """Return the generator that inverts ``layer`` of ``encoder``.

    ``width`` is 1 for the paper's network, or a power of two below it (down to 1/64) for a narrower one with the same
    layers. Raises UsageError naming the valid values.
    """
    if width not in WIDTHS:
        raise UsageError(f"width {width}: expected one of {', '.join(f'{w:g}' for w in WIDTHS)}. Choose one of these.")
    valid = invertible_layers(encoder)
    if layer not in valid:
        raise UsageError(f"layer {layer!r}: no generator for it, {encoder.name} has {', '.join(valid)}. Choose one.")
    shape = encoder.feature_shape(layer)
    return GeneratorSpec(layer, shape, _narrow(_FAMILIES[layer](shape[0]), width))


def vae_decoder_spec(latent: int = 4096) -> GeneratorSpec:
    """Return the decoder of the variational autoencoder (paper, section 4.2): Table 1 on a (latent,) code."""
    return GeneratorSpec(LATENT, (latent,), _from_vector(latent))
