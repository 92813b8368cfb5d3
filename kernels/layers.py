"""The vocabulary in which every network of this project is written down: one frozen record per layer.

A network is a tuple of :class:`Layer`; the tables stand in ``runtime/networks.py``, the manifest of a bundle
carries them as JSON, and PyTorch, ONNX and the numpy reference each read the same records.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from deepsim.kernels.activations import Activation, ActivationName, UnknownLayerError, activation

Kind = Literal["fc", "conv", "deconv", "pool", "lrn", "reshape"]
KINDS: dict[str, bool] = {"fc": True, "conv": True, "deconv": True, "pool": False, "lrn": False, "reshape": False}
"""The kinds of layers, and whether such a layer has a weight and a bias."""

Role = Literal["plain", "feature", "upconv"]

Shape = tuple[int, ...]  # without the batch: (C, H, W) or (C,)

LRN_SIZE, LRN_ALPHA, LRN_BETA, LRN_K = 5, 1e-4, 0.75, 1.0  # CaffeNet, both norm layers


@dataclass(frozen=True)
class Layer:
    """Describe one layer; ``name`` is the release layer name and the prefix of its weights.

    ``inputs`` and ``outputs`` count channels (for ``fc``: units). ``kernel``, ``stride`` and ``padding`` apply to
    both spatial axes. ``shape`` is the target of ``reshape``, (C, H, W) in row-major order. Fields that a kind does
    not use stay at their defaults. ``output_padding`` adds rows and columns to the lower and right ends of a ``deconv``
    that strides, as in ConvTranspose2d: k5 s2 p2 with 1 of them doubles the extents. It is below the stride.

    Kinds: ``fc`` y = W x + b; ``conv`` cross-correlation; ``deconv`` transposed convolution (Caffe Deconvolution);
    ``pool`` max-pooling without padding, its extent rounded up with ``ceil_mode`` (Caffe) and down without; ``lrn``
    across-channel local response normalisation; ``reshape``. The activation follows the layer: ``lrelu`` has slope
    0.3, ``lrelu0.2`` slope 0.2, ``tanh255`` is 255 tanh(x).

    ``role`` says what training does to a generator's layer beyond its gradient, as in the authors' release: the weight
    of a ``feature`` layer (convolutions at the features' resolution, Rconv) gets the L2 term, the bias of an
    ``upconv`` layer (the up-convolutional part) may be kept at 0, a ``plain`` layer has neither. It changes no output,
    so it does not count in comparisons and is not in :meth:`to_json`.

    >>> Layer("deconv5", "deconv", 512, 256, 4, 2, 1, activation="lrelu").output_shape((512, 4, 4))
    (256, 8, 8)
    """

    name: str
    kind: Kind
    inputs: int = 0
    outputs: int = 0
    kernel: int = 1
    stride: int = 1
    padding: int = 0
    groups: int = 1
    activation: ActivationName = "none"
    shape: Shape = ()
    ceil_mode: bool = False
    output_padding: int = 0
    role: Role = field(default="plain", compare=False)

    def __post_init__(self) -> None:
        self.check()

    def check(self) -> None:
        """Raise UnknownLayerError when the kind, the activation, the role or a padding of the output is not known."""
        if self.kind not in KINDS:
            raise UnknownLayerError(f"layer {self.name}: kind {self.kind!r}, expected one of {', '.join(KINDS)}.")
        if self.role not in get_args(Role):
            known = ", ".join(get_args(Role))
            raise UnknownLayerError(f"layer {self.name}: role {self.role!r}, expected one of {known}.")
        most = self.stride - 1 if self.kind == "deconv" else 0
        if self.output_padding and not 0 < self.output_padding <= most:
            found = f"layer {self.name}: output_padding {self.output_padding!r} of kind {self.kind}"
            raise UnknownLayerError(f"{found} with stride {self.stride}, expected at most {most}.")
        try:
            activation(self.activation)
        except UnknownLayerError as error:
            raise UnknownLayerError(f"layer {self.name}: {error}") from error

    @property
    def activates(self) -> Activation:
        """Return the record of the layer's activation. Raises UnknownLayerError."""
        return activation(self.activation)

    @property
    def has_weights(self) -> bool:
        """Tell whether the layer owns a weight and a bias. Raises UnknownLayerError for an unknown kind."""
        if self.kind not in KINDS:
            raise refuse_kind(self, "the table of kinds")
        return KINDS[self.kind]

    @property
    def weight_shape(self) -> Shape:
        """Return the weight's shape: fc (out, in), conv (out, in/g, k, k), deconv (in, out/g, k, k); no weight: ().

        Raises UnknownLayerError for an unknown kind.
        """
        if not self.has_weights:
            return ()
        if self.kind == "fc":
            return (self.outputs, self.inputs)
        if self.kind == "conv":
            return (self.outputs, self.inputs // self.groups, self.kernel, self.kernel)
        if self.kind == "deconv":
            return (self.inputs, self.outputs // self.groups, self.kernel, self.kernel)
        raise refuse_kind(self, "weight_shape")

    @property
    def parameters(self) -> int:
        """Count weights and biases."""
        return math.prod(self.weight_shape) + self.outputs if self.has_weights else 0

    def output_shape(self, shape: Shape) -> Shape:
        """Return the output's shape for an input of ``shape``, both without the batch.

        Raises ValueError naming the layer when the input does not fit, UnknownLayerError for an unknown kind.
        """
        if self.kind == "reshape":
            self._expect(math.prod(shape) == math.prod(self.shape), shape)
            return self.shape
        if self.kind == "fc":
            self._expect(math.prod(shape) == self.inputs, shape)
            return (self.outputs,)
        self._expect(len(shape) == 3 and (not self.has_weights or shape[0] == self.inputs), shape)
        channels = self.outputs if self.has_weights else shape[0]
        return (channels, self._extent(shape[1]), self._extent(shape[2]))

    def macs(self, shape: Shape) -> int:
        """Count the effective multiply-accumulates of one image for an input of ``shape``.

        Only products with a real input and a kept output count: taps on padding are counted as the convention has it
        (dense), the zeros that bed-of-nails upsampling inserts are not.
        """
        if self.kind == "fc":
            return self.inputs * self.outputs
        if self.kind == "conv":
            height, width = self.output_shape(shape)[1:]
            return math.prod(self.weight_shape) * height * width
        if self.kind == "deconv":
            return math.prod(self.weight_shape) * shape[1] * shape[2]
        if self.has_weights:
            raise refuse_kind(self, "macs")
        return 0

    def to_json(self) -> dict[str, Any]:
        """Return what decides the layer's output, as plain JSON values; ``output_padding`` where there is one."""
        record = {**asdict(self), "shape": list(self.shape)}
        del record["role"]
        if not self.output_padding:
            del record["output_padding"]  # tables without one keep the bytes that they always had
        return record

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Layer:
        """Rebuild a plain layer from :meth:`to_json`. Raises ValueError or TypeError on unknown or missing fields."""
        if "role" in record:
            raise TypeError("role: belongs to training, expected no such field")
        return cls(**{**record, "shape": tuple(record.get("shape", ()))})

    def _extent(self, size: int) -> int:
        if self.kind == "lrn":
            return size
        if self.kind == "pool":
            steps = size - self.kernel + (self.stride - 1 if self.ceil_mode else 0)
            return steps // self.stride + 1
        if self.kind == "deconv":
            return (size - 1) * self.stride - 2 * self.padding + self.kernel + self.output_padding
        if self.kind == "conv":
            return (size + 2 * self.padding - self.kernel) // self.stride + 1
        raise refuse_kind(self, "output_shape")

    def _expect(self, fits: bool, shape: Shape) -> None:
        if not fits:
            wanted = self.shape or self.inputs or "(C, H, W)"
            raise ValueError(f"layer {self.name} ({self.kind}): input of shape {shape}, expected {wanted}.")


def refuse_kind(layer: Layer, reader: str) -> UnknownLayerError:
    """Build the error of a reader, named in words, that does not know a layer's kind."""
    return UnknownLayerError(f"layer {layer.name}: {reader} does not know kind {layer.kind!r}, expected a known one.")


def shapes(layers: tuple[Layer, ...], input_shape: Shape) -> list[Shape]:
    """Return the output shape of every layer in order, without the batch. Raises ValueError where one does not fit.

    >>> shapes((Layer("pool", "pool", kernel=3, stride=2), Layer("flat", "reshape", shape=(9,))), (1, 7, 7))
    [(1, 3, 3), (9,)]
    """
    found: list[Shape] = []
    for layer in layers:
        input_shape = layer.output_shape(input_shape)
        found.append(input_shape)
    return found


def parameters(layers: tuple[Layer, ...]) -> int:
    """Count the weights and biases of a network.

    >>> parameters((Layer("fc6", "fc", 9216, 4096),))
    37752832
    """
    return sum(layer.parameters for layer in layers)


def macs(layers: tuple[Layer, ...], input_shape: Shape) -> int:
    """Count the effective multiply-accumulates of one image through a network (see :meth:`Layer.macs`).

    >>> macs((Layer("conv1", "conv", 3, 96, 11, 4),), (3, 227, 227))
    105415200
    """
    before = [input_shape, *shapes(layers, input_shape)]
    return sum(layer.macs(shape) for layer, shape in zip(layers, before, strict=False))
