"""What our kernels do in one: the steps of a network, their least work, and whose each kernel of a profile is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import prod

from deepsim.benchmarks.work import Roofs
from deepsim.kernels.layers import Layer, Shape, macs, parameters, shapes
from deepsim.runtime.errors import DeviceError
from deepsim.runtime.geometry import CAFFE_FRAMING, Geometry

HALF, SINGLE, BYTE = 2, 4, 1  # bytes of an activation or weight, of a feature, of a pixel's channel

# What the name of a kernel ends in (kernels/cuda/variants.h): the kinds of steps that it computes.
_KINDS = {
    "blocks": ("conv",),
    "shuffle": ("conv",),
    "pixels": ("conv",),
    "levels": ("conv",),
    "connected": ("fc",),
    "partial": ("conv", "fc"),
    "normalise": ("pool",),
}
INPUT, OUTPUT = "input", "output"
_BETWEEN = {"read_pixels": INPUT, "read_features": INPUT, "write_features": OUTPUT}


@dataclass(frozen=True)
class Step:
    """Layers that are run, verified and timed together: a reshape with what follows it, an LRN with its pooling.

    ``input_bytes`` and ``output_bytes`` are those of one image, in the types that a network begins and ends with;
    ``needed`` is the share of its output that is asked for.
    """

    layers: tuple[Layer, ...]
    input_shape: Shape
    output_shape: Shape
    input_bytes: int
    output_bytes: int
    needed: float = 1.0

    @property
    def name(self) -> str:
        """Return the layers' names, but for a reshape's."""
        return "+".join(layer.name for layer in self.layers if layer.kind != "reshape")

    @property
    def kind(self) -> str:
        """Return "fc", "conv" (a deconvolution too) or "pool" (an LRN alone too)."""
        kind = next(layer.kind for layer in self.layers if layer.kind != "reshape")
        return {"fc": "fc", "conv": "conv", "deconv": "conv"}.get(kind, "pool")

    @property
    def without_reshape(self) -> tuple[tuple[Layer, ...], Shape]:
        """Return the layers without a reshape before them, and the shape that they then read."""
        first = self.layers[0]
        return (self.layers[1:], first.shape) if first.kind == "reshape" else (self.layers, self.input_shape)

    @property
    def upconvolution(self) -> Layer | None:
        """Return the layer if it is a deconvolution of kernel 4, stride 2, padding 1."""
        last = self.layers[-1]
        return last if last.kind == "deconv" and (last.kernel, last.stride, last.padding) == (4, 2, 1) else None

    @property
    def multiply_adds(self) -> int:
        """Count multiply-adds of what is needed of one image."""
        return round(self.needed * macs(self.layers, self.input_shape))

    @property
    def weight_bytes(self) -> int:
        """Count bytes of weights and biases."""
        return HALF * parameters(self.layers)

    def floor_seconds(self, batch: int, roofs: Roofs) -> float:
        """Return the least time for a batch: of the multiply-adds, or of reading weights and input and writing output.

        Neither activations that stay in the GPU's cache nor several layers in one kernel are counted on.
        """
        multiply_adds = batch * self.multiply_adds
        moved = self.weight_bytes + batch * (self.input_bytes + self.output_bytes)
        return max(multiply_adds / roofs.multiply_adds, moved / roofs.bytes) / 1e9


def steps_of(layers: Sequence[Layer], input_shape: Shape, input_size: int, output_size: int) -> list[Step]:
    """Cut a network into steps; an element of its input and output has ``input_size`` and ``output_size`` bytes."""
    groups: list[list[Layer]] = []
    for layer in layers:
        before = groups[-1][-1].kind if groups else ""
        joins = before == "reshape" or (before == "pool" and layer.kind == "lrn")
        groups[-1].append(layer) if joins else groups.append([layer])
    steps: list[Step] = []
    for index, group in enumerate(groups):
        output = shapes(tuple(group), input_shape)[-1]
        sizes = (HALF if index else input_size, output_size if index == len(groups) - 1 else HALF)
        counts = (size * prod(shape) for size, shape in zip(sizes, (input_shape, output), strict=True))
        steps.append(Step(tuple(group), input_shape, output, *counts))
        input_shape = output
    return steps


def encoder_steps(layers: Sequence[Layer], input_shape: Shape) -> list[Step]:
    """Cut an encoder, from uint8 pixels to fp32 features."""
    return steps_of(layers, input_shape, BYTE, SINGLE)


def generator_steps(layers: Sequence[Layer], input_shape: Shape) -> list[Step]:
    """Cut a generator, from fp32 features to uint8 pixels: what the crop needs of every layer, and no more."""
    steps = steps_of(layers, input_shape, SINGLE, BYTE)
    start = Geometry.central(CAFFE_FRAMING, steps[-1].output_shape[-1]).offset
    pixels = range(start, start + CAFFE_FRAMING.side)  # rows and columns alike
    for at, step in reversed(list(enumerate(steps))):
        share = _share(pixels, step.output_shape)
        for layer, shape in zip(reversed(step.layers), reversed(_input_shapes(step)), strict=True):
            pixels = inputs_of(layer, pixels, shape)
        read = round(step.input_bytes * _share(pixels, step.input_shape))
        steps[at] = replace(step, needed=share, input_bytes=read, output_bytes=round(step.output_bytes * share))
    return steps


def inputs_of(layer: Layer, pixels: range, shape: Shape) -> range:
    """Return the rows of a layer's input, of a shape without the batch, that these rows of its output are made of."""
    if len(shape) < 3:
        return range(1)
    first, last = pixels[0] + layer.padding, pixels[-1] + layer.padding
    if layer.kind == "deconv":
        begin, end = -((layer.kernel - 1 - first) // layer.stride), last // layer.stride + 1
    else:
        begin, end = pixels[0] * layer.stride - layer.padding, pixels[-1] * layer.stride - layer.padding + layer.kernel
    return range(max(begin, 0), min(end, shape[1]))


def _input_shapes(step: Step) -> list[Shape]:
    return [step.input_shape, *shapes(step.layers, step.input_shape)[:-1]]


def _share(pixels: range, shape: Shape) -> float:
    return 1.0 if len(shape) < 3 else (len(pixels) / shape[1]) ** 2


def floor_seconds(steps: Iterable[Step], batch: int, roofs: Roofs) -> float:
    """Return the least time of a network, layer by layer."""
    return sum(step.floor_seconds(batch, roofs) for step in steps)


def attribute(kernels: Sequence[str], places: Sequence[int], steps: Sequence[Step]) -> list[str]:
    """Return for each kernel of one call, in order, the name of its step, or "input" or "output" for conversions.

    ``places``: where each kernel's step stands among the engine's own, which are these, what converts at the ends and
    what prepares a step's input. Raises DeviceError where the kernels are not those of the network.
    """
    if len(kernels) != len(places):
        raise _unknown(f"{len(kernels)} kernels", str(len(places)))
    names: dict[int, str] = {}
    left, preparing = list(steps), []
    for place in sorted(set(places)):
        own = [kernel for kernel, at in zip(kernels, places, strict=True) if at == place]
        if own[0] in _BETWEEN:
            names[place] = _BETWEEN[own[0]]
        elif own[0] == "to_depth":
            preparing.append(place)
        else:
            step = left.pop(0) if left else None
            wrong = [name for name in own if step is None or step.kind not in _KINDS.get(name.rsplit("_", 1)[-1], ())]
            if step is None or wrong:
                raise _unknown(wrong[0], f"one for {step.name}" if step else "no more")
            names.update(dict.fromkeys((*preparing, place), step.name))
            preparing.clear()
    if left:
        raise _unknown("no kernel", f"one for {left[0].name}")
    return [names[place] for place in places]


def _unknown(found: str, expected: str) -> DeviceError:
    return DeviceError(f"profiler: {found}, expected {expected}.")
