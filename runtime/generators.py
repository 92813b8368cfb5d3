"""The generators: tables of layers from a feature back to an image, for every shape that a feature can have.

Where a feature has the extents of CaffeNet's, the table is the released one: Dosovitskiy & Brox 2016 (arXiv
1602.02644), Table 1 and supplementary tables, with the layer names of the authors' model release. Any other feature
gets a generator of the same family by the rule of :func:`generator_for`, which is ours.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from deepsim.kernels.activations import ActivationName
from deepsim.kernels.layers import Layer, Shape, shapes
from deepsim.runtime.errors import UsageError
from deepsim.runtime.geometry import CAFFE_FRAMING, MAX_SIDE
from deepsim.runtime.networks import CAFFENET, EncoderSpec, GraphEncoder
from deepsim.runtime.pixels import CAFFE_PIXELS, PixelConvention

Family = Literal["deepsim", "dosovitskiy2015"]
WIDTHS = tuple(2.0**-power for power in range(7))
LATENT = "latent"  # the "layer" that the decoder of an autoencoder inverts
TABLE1_UPS = 6  # from 4 to 256 pixels
MOST_CHANNELS, FEWEST_CHANNELS = 512, 16  # of a generator by the rule, at its coarsest and at its finest


@dataclass(frozen=True)
class GeneratorSpec:
    """A network from features back to an image (3, S, S) in mean-subtracted BGR (0-255 units)."""

    layer: str
    input_shape: Shape
    layers: tuple[Layer, ...]
    pixels: PixelConvention = CAFFE_PIXELS

    @property
    def output_size(self) -> int:
        """Return the side of the square output in pixels."""
        return shapes(self.layers, self.input_shape)[-1][-1]


def _fc(name: str, inputs: int, outputs: int) -> Layer:
    return Layer(name, "fc", inputs, outputs, activation="lrelu")


def _lrelu_conv(name: str, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, padding: int = 1) -> Layer:
    return Layer(name, "conv", inputs, outputs, kernel, stride, padding, activation="lrelu", role="upconv")


def _rconv(name: str, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, padding: int = 1) -> Layer:
    """Build one of the convolutions that a generator begins with, at the features' resolution."""
    return Layer(name, "conv", inputs, outputs, kernel, stride, padding, activation="lrelu", role="feature")


def _upconv(name: str, inputs: int, outputs: int, activation: ActivationName = "lrelu") -> Layer:
    return Layer(name, "deconv", inputs, outputs, 4, 2, 1, activation=activation, role="upconv")


def _deconv3(name: str, inputs: int, outputs: int) -> Layer:
    """Build the release's stride-1 Deconvolution: a 3x3 convolution with its kernel rotated by 180 degrees."""
    return Layer(name, "deconv", inputs, outputs, 3, 1, 1, activation="lrelu", role="upconv")


def _image(name: str, inputs: int) -> Layer:
    return Layer(name, "conv", inputs, 3, 3, 1, 1, activation="tanh255", role="upconv")


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


def _from_vector(inputs: int, side: int) -> tuple[Layer, ...]:
    """Build Table 1, whose images have 256 pixels; for sides above and up to a half of that, its like."""
    grid, ups = (4, TABLE1_UPS) if 128 < side <= 256 else _smallest(range(4, 8), 4, side)
    return (
        _fc("defc7", inputs, 4096),
        _fc("defc6", 4096, 4096),
        _fc("defc5", 4096, 256 * grid**2),
        Layer("reshape", "reshape", shape=(256, grid, grid)),
        *(_table1_trunk(256) if ups == TABLE1_UPS and grid == 4 else _trunk(256, ups)),
    )


def _from_pool5(inputs: int) -> tuple[Layer, ...]:
    return (
        _rconv("Rconv6", inputs, 512),
        _rconv("Rconv7", 512, 512),
        _rconv("Rconv8", 512, 512, padding=0),
        *_table1_trunk(512),
    )


def _from_conv(inputs: int) -> tuple[Layer, ...]:
    return (
        _rconv("Rconv6", inputs, 384, padding=0),
        _rconv("Rconv7", 384, 512, padding=0),
        _rconv("Rconv8", 512, 512, kernel=2, padding=0),
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
        _rconv("Rconv8", 128, 128),
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
    return (_rconv("Rconv6", inputs, 256, padding=2), _rconv("Rconv7", 256, 128), *_norm_trunk())


def _from_norm1(inputs: int) -> tuple[Layer, ...]:
    return (_rconv("Rconv6", inputs, 128, stride=2, padding=2), _rconv("Rconv7", 128, 128), *_norm_trunk())


# By layer and the extent of its feature: torchvision's AlexNet has no LRN, and the same extents.
_RELEASED = {
    ("norm1", 27): _from_norm1,
    ("pool1", 27): _from_norm1,
    ("norm2", 13): _from_norm2,
    ("pool2", 13): _from_norm2,
    ("conv3", 13): _from_conv,
    ("conv4", 13): _from_conv,
    ("pool5", 6): _from_pool5,
}


def _trunk(inputs: int, ups: int) -> tuple[Layer, ...]:
    """Build ``ups`` up-convolutions, a 3x3 convolution after each but the last, and the convolution to the image.

    Each up-convolution halves the channels, but for those that the ones left bring down to the fewest anyway.
    """
    layers: list[Layer] = []
    channels = inputs
    for left in range(ups, 0, -1):
        halved = max(channels // 2, min(channels, FEWEST_CHANNELS << (left - 1)))
        layers.append(_upconv(f"deconv{left}", channels, halved))
        if left > 1:
            layers.append(_lrelu_conv(f"conv{left}_1", halved, halved))
        channels = halved
    return (*layers, _image("conv1_1", channels))


def _grid(extent: int, side: int) -> tuple[int, int]:
    """Return the extent that two 3x3 convolutions bring a feature to, and how often it is doubled to reach ``side``.

    Each convolution, with a padding of 0 to 2, changes the extent by -2, 0 or 2. Of all that reach the side, the
    smallest output is taken, and of these the extent nearest to the feature's.
    """
    return _smallest(range(extent - 4, extent + 5, 2), extent, side)


def _smallest(grids: Iterable[int], wanted: int, side: int) -> tuple[int, int]:
    """Return the grid and the doublings that reach ``side`` with the smallest output, the nearest to ``wanted``."""
    found = [(grid << ups, abs(grid - wanted), grid, ups) for grid in grids if grid > 0 for ups in range(13)]
    return min(entry for entry in found if entry[0] >= side)[2:]


def _from_feature(shape: Shape, side: int) -> tuple[Layer, ...]:
    """Build a generator for (C, H, H) by the rule (see :func:`generator_for`)."""
    grid, ups = _grid(shape[1], side)
    steps = (grid - shape[1]) // 2  # -2 to 2
    first = max(-1, min(1, steps))
    channels = min(MOST_CHANNELS, max(2 * FEWEST_CHANNELS, FEWEST_CHANNELS << ups))
    return (
        _rconv("Rconv6", shape[0], channels, padding=1 + first),
        _rconv("Rconv7", channels, channels, padding=1 + steps - first),
        *_trunk(channels, ups),
    )


def _upconv5(name: str, inputs: int, outputs: int, activation: ActivationName = "lrelu0.2") -> Layer:
    """Build an up-convolution of Dosovitskiy & Brox 2015: 5x5, doubles the extent."""
    return Layer(name, "deconv", inputs, outputs, 5, 2, 2, output_padding=1, activation=activation, role="upconv")


def _from_2015(layer: str, shape: Shape) -> tuple[Layer, ...]:
    """Build a generator of Dosovitskiy & Brox 2015 (arXiv 1506.02753), by two reimplementations of their tables.

    Vectors: three fully connected layers to (256, 4, 4), and an image of 128 pixels. Their CONV5, which is our pool5
    (C, 6, 6): three 3x3 convolutions, and one of 192. LeakyReLU(0.2), and a linear output. Raises UsageError for other
    features, whose tables are not known.
    """
    if len(shape) == 1:
        sizes = {"defc7": (shape[0], 4096), "defc6": (4096, 4096), "defc5": (4096, 4096)}
        first = tuple(Layer(name, "fc", *size, activation="lrelu0.2") for name, size in sizes.items())
        first = (*first, Layer("reshape", "reshape", shape=(256, 4, 4)))
    elif shape[1:] == (6, 6):
        names = {"Rconv6": shape[0], "Rconv7": 256, "Rconv8": 256}
        first = tuple(replace(_rconv(name, size, 256), activation="lrelu0.2") for name, size in names.items())
    else:
        raise UsageError(
            f"layer {layer}: features of shape {shape}, expected (C,) or (C, 6, 6) for a generator of dosovitskiy2015."
        )
    channels = (256, 256, 128, 64, 32)
    ups = (_upconv5(f"deconv{5 - step}", channels[step], channels[step + 1]) for step in range(4))
    return (*first, *ups, _upconv5("deconv1", channels[-1], 3, activation="none"))


def narrowed(layers: tuple[Layer, ...], width: float) -> tuple[Layer, ...]:
    """Return a network with every hidden channel count times ``width``; its input and output keep theirs.

    Raises UsageError for a width that no network has.
    """
    check_width(width)

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


def check_width(width: float) -> None:
    """Raise UsageError for a width that no network has."""
    if width not in WIDTHS:
        raise UsageError(f"width {width}: expected one of {', '.join(f'{w:g}' for w in WIDTHS)}.")


def generator_for(layer: str, shape: Shape, side: int, width: float = 1.0, family: Family = "deepsim") -> GeneratorSpec:
    """Return the generator that turns a feature of ``shape`` into an image of at least ``side`` x ``side`` pixels.

    ``layer`` is the feature's name. Features with the extents of CaffeNet's, at its 227 pixels, get the released
    tables. Any other gets one by this rule, of the same family:

    * (C,): three fully connected layers to (256, 4, 4), then up-convolutions: Table 1 itself for sides of 129 to 256
      pixels. For other sides the grid is 4 to 7, whatever reaches the side with the smallest image;
    * (C, H, H): two 3x3 convolutions, then up-convolutions. The convolutions' paddings (0 to 2) are chosen so that
      doubling their output's extent reaches the side with the smallest image.

    An up-convolution (4x4, stride 2) doubles the extent and halves the channels, which begin with at most 512 and end
    with 16 or more; a 3x3 convolution follows each but the last, and one to 255 tanh ends the network. ``width`` is 1,
    or a power of two below it (down to 1/64) for a narrower network with the same layers. Raises UsageError for another
    width, and for features that are neither vectors nor square maps.

    ``family`` "dosovitskiy2015" is the earlier paper's instead, whatever the side: 128 pixels from vectors, 192 from
    (C, 6, 6). Raises UsageError for features that it has no table for.

    >>> generator_for("layer3", (1024, 14, 14), 224).output_size
    224
    """
    if len(shape) not in (1, 3) or (len(shape) == 3 and shape[1] != shape[2]) or max(shape) > 1 << 20:
        raise UsageError(f"layer {layer}: features of shape {shape}, expected (C,) or a square map (C, H, H).")
    if not 1 <= side <= MAX_SIDE:
        raise UsageError(f"layer {layer}: images of side {side}, expected 1 to {MAX_SIDE}.")
    if family == "dosovitskiy2015":
        return GeneratorSpec(layer, shape, narrowed(_from_2015(layer, shape), width))
    released = _RELEASED.get((layer, shape[-1])) if side == CAFFE_FRAMING.side and len(shape) == 3 else None
    if released is not None:
        layers = released(shape[0])
    else:
        layers = _from_vector(shape[0], side) if len(shape) == 1 else _from_feature(shape, side)
    return GeneratorSpec(layer, shape, narrowed(layers, width))


def generator_spec(
    layer: str,
    encoder: EncoderSpec | GraphEncoder = CAFFENET,
    width: float = 1.0,
    family: Family = "deepsim",
) -> GeneratorSpec:
    """Return the generator that inverts ``layer`` of ``encoder`` (see :func:`generator_for`).

    Raises UsageError naming the valid values.

    >>> spec = generator_spec("fc6", width=0.5)
    >>> spec.input_shape, spec.output_size
    ((4096,), 256)
    """
    if isinstance(encoder, GraphEncoder):
        if layer != encoder.layer:
            raise UsageError(f"{encoder.name}: layer {layer!r}, expected {encoder.layer!r}, which it was read for.")
        return generator_for(layer, encoder.feature_shape, encoder.framing.side, width, family)
    return generator_for(layer, encoder.feature_shape(layer), encoder.framing.side, width, family)


def released_layers(encoder: EncoderSpec = CAFFENET) -> list[str]:
    """List the encoder's layers that the authors released a generator for, in order.

    >>> released_layers()
    ['norm1', 'norm2', 'conv3', 'conv4', 'pool5', 'fc6', 'fc7', 'fc8']
    """
    normalised = {entry.name.replace("norm", "pool") for entry in encoder.layers if entry.kind == "lrn"}
    names = {name for name, _ in _RELEASED} | {"fc6", "fc7", "fc8"}
    return [entry.name for entry in encoder.layers if entry.name in names - normalised]
