"""The networks whose features are inverted: tables of layers, and records of graphs.

Sources: BVLC CaffeNet; torchvision's AlexNet ("one weird trick", arXiv 1404.5997) and VGG (configurations D and E of
arXiv 1409.1556, with the layer names of the authors' Caffe release). The generators are in
:mod:`deepsim.runtime.generators`.
"""

from __future__ import annotations

from dataclasses import dataclass

from deepsim.kernels.activations import ActivationName
from deepsim.kernels.layers import Layer, Shape, shapes
from deepsim.runtime.errors import UsageError
from deepsim.runtime.geometry import CAFFE_FRAMING, IMAGENET_FRAMING, Framing
from deepsim.runtime.pixels import CAFFE_PIXELS, IMAGENET_PIXELS, PixelConvention


@dataclass(frozen=True)
class EncoderSpec:
    """A network whose features are inverted, as a table of layers, which every engine of ours reads.

    Its input is (3, side, side) in its own pixel convention; ``framing`` says how a photograph becomes that.
    """

    name: str
    layers: tuple[Layer, ...]
    pixels: PixelConvention
    framing: Framing

    @property
    def input_shape(self) -> Shape:
        """Return the shape of one input, (3, side, side)."""
        return (3, self.framing.side, self.framing.side)

    def up_to(self, layer: str) -> tuple[Layer, ...]:
        """Return the layers up to and including the named one. Raises UsageError naming the valid ones."""
        names = [entry.name for entry in self.layers]
        if layer not in names:
            raise UsageError(f"{self.name}: no layer {layer!r}, it has {', '.join(names)}.")
        return self.layers[: names.index(layer) + 1]

    def feature_shape(self, layer: str) -> Shape:
        """Return the shape of the named layer's output, (C, H, W) or (C,).

        >>> CAFFENET.feature_shape("pool5"), VGG19.feature_shape("conv5_4")
        ((256, 6, 6), (512, 14, 14))
        """
        return shapes(self.up_to(layer), self.input_shape)[-1]


@dataclass(frozen=True)
class GraphEncoder:
    """A network whose features are inverted, known as a graph: ``encoder.onnx`` of a bundle, run by ONNX Runtime.

    ``name`` is the reference of a PyTorch module, such as "timm:tf_efficientnet_lite0", ``layer`` the submodule whose
    output is inverted; ``feature_shape`` is that output's, (C,) or (C, H, W), for one image. The graph takes uint8 RGB;
    ``pixels`` says what it does to them first.
    """

    name: str
    layer: str
    framing: Framing
    pixels: PixelConvention
    feature_shape: Shape

    @property
    def input_shape(self) -> Shape:
        """Return the shape of one image in the network's own convention, (3, side, side)."""
        return (3, self.framing.side, self.framing.side)


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
    CAFFE_FRAMING,
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
    CAFFE_FRAMING,
)


def _vgg(name: str, convolutions: tuple[int, ...]) -> EncoderSpec:
    """Build a VGG network from the number of 3x3 convolutions in each of its five blocks (arXiv 1409.1556, Table 1)."""
    layers, inputs = [], 3
    for block, (count, outputs) in enumerate(zip(convolutions, (64, 128, 256, 512, 512), strict=True), 1):
        for index in range(1, count + 1):
            layers.append(_conv(f"conv{block}_{index}", inputs, outputs, 3, padding=1))
            inputs = outputs
        layers.append(Layer(f"pool{block}", "pool", kernel=2, stride=2))
    heads = (_fc("fc6", 25088, 4096), _fc("fc7", 4096, 4096), _fc("fc8", 4096, 1000, "none"))
    return EncoderSpec(name, (*layers, *heads), IMAGENET_PIXELS, IMAGENET_FRAMING)


VGG16 = _vgg("vgg16", (2, 2, 3, 3, 3))
VGG19 = _vgg("vgg19", (2, 2, 4, 4, 4))

ENCODERS = {spec.name: spec for spec in (CAFFENET, ALEXNET, VGG16, VGG19)}


def encoder_spec(name: str) -> EncoderSpec:
    """Look an encoder up by name. Raises UsageError naming the valid ones.

    >>> encoder_spec("vgg16").input_shape
    (3, 224, 224)
    """
    if name not in ENCODERS:
        raise UsageError(f"encoder {name!r}: unknown, expected one of {', '.join(ENCODERS)}.")
    return ENCODERS[name]
