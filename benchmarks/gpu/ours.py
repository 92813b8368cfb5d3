"""Our side: a bundle in the backend cuda, called through the C ABI into memory that was taken before, and bundles whose
"encoder" is the beginning of a network, so that what any layer computes comes out in fp32."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deepsim.benchmarks.float64_error import write
from deepsim.benchmarks.gpu.device import Call, Gpu
from deepsim.benchmarks.gpu.plan import environment_of
from deepsim.export.sources import Source
from deepsim.kernels.layers import Layer, Shape, shapes
from deepsim.runtime import native_library
from deepsim.runtime.backends import cuda
from deepsim.runtime.bundle import Bundle
from deepsim.runtime.generators import GeneratorSpec
from deepsim.runtime.geometry import CAFFE_FRAMING
from deepsim.runtime.networks import EncoderSpec

WAY_OUT = 16  # channels of the generator that a bundle needs and that nobody runs


class Ours:
    """A bundle on a GPU; inputs and outputs are tensors there, work is queued on PyTorch's stream.

    ``kernels``, ``serial``: see ``environment_of``.
    """

    def __init__(
        self,
        gpu: Gpu,
        bundle: Path,
        max_batch: int,
        precision: str = "fp16",
        kernels: str | None = None,
        serial: bool = False,
    ) -> None:
        self._gpu = gpu
        gpu.let_go()
        manifest = Bundle.open(bundle).manifest
        self._features, self._image = manifest.feature_shape, (3, manifest.full_size, manifest.full_size)
        with _environment(environment_of(kernels, serial)):
            self._inverter = cuda.CudaBackend(Bundle.open(bundle), "cuda:0", max_batch, cuda.Options(precision))

    def output(self, what: str, count: int) -> Tensor:
        """Take memory for what "encode", "decode" or "reencode" gives for ``count`` images."""
        if what == "encode":
            return self._gpu.empty((count, *self._features), torch.float32)
        return self._gpu.empty((count, CAFFE_FRAMING.side, CAFFE_FRAMING.side, 3), torch.uint8)

    def call(self, what: str, argument: Tensor, out: Tensor, iterations: int = 1) -> Call:
        """Return a call that fills ``out``: features of images, images of features, the last of ``iterations``."""
        handle, count, stream = self._inverter.handle, len(argument), self._gpu.stream
        source, target = argument.data_ptr(), out.data_ptr()
        arguments: tuple[Any, ...] = (source, count, target, stream)
        if what == "decode":
            arguments = (source, count, 0, target, stream)
        elif what == "reencode":
            last = (ctypes.c_int32 * 1)(iterations)
            arguments = (source, count, iterations, last, 1, target, stream)

        def call(alive: object = argument) -> Tensor:  # its memory is what is read
            native_library.call(f"deepsim_{what}_on_device", handle, *arguments)
            return out

        return call

    def steps_of_kernels(self, what: str, count: int) -> list[int]:
        """Return which of the engine's steps each kernel of "encode" or "decode" is of, in order."""
        return self._inverter.steps_of_kernels(what == "decode", count)

    def result(self, what: str, argument: Tensor) -> Tensor:
        """Return what a call gives, in memory of its own."""
        return self.call(what, argument, self.output(what, len(argument)))()

    def whole_images(self, features: Tensor) -> Tensor:
        """Return images of features, uncropped: uint8 (n, side, side, 3)."""
        channels, *sides = self._image
        out = self._gpu.empty((len(features), *sides, channels), torch.uint8)
        arguments = (features.data_ptr(), len(features), 1, out.data_ptr(), self._gpu.stream)
        native_library.call("deepsim_decode_on_device", self._inverter.handle, *arguments)
        return out


@contextmanager
def _environment(changes: Mapping[str, str]) -> Iterator[None]:
    """Change the environment for a while."""
    before = dict(os.environ)
    os.environ.update(changes)
    try:
        yield
    finally:
        for name in changes:
            if name in before:
                os.environ[name] = before[name]
            else:
                del os.environ[name]


def write_beginning(path: Path, source: Source, layers: tuple[Layer, ...]) -> Path:
    """Write a bundle whose encoder is ``layers``, the first of encoder and generator in one, from pixels on."""
    encoder = EncoderSpec("beginning", layers, source.table.pixels, source.table.framing)
    shape = shapes(layers, encoder.input_shape)[-1]
    generator = GeneratorSpec(layers[-1].name, shape, way_out(shape), source.generator_table.pixels)
    own = {f"{layer.name}.{kind}" for layer in layers for kind in ("weight", "bias")}
    weights = {**source.encoder_weights, **source.generator_weights}
    zeros = {
        f"{layer.name}.{kind}": np.zeros(extent, np.float32)
        for layer in generator.layers
        if layer.has_weights
        for kind, extent in (("weight", layer.weight_shape), ("bias", (layer.outputs,)))
    }
    kept = {name: value for name, value in weights.items() if name in own}
    return write(
        path, replace(source, encoder=encoder, generator=generator, encoder_weights=kept, generator_weights=zeros)
    )


def way_out(shape: Shape) -> tuple[Layer, ...]:
    """Return some generator from features of a shape to an image of at least 227 x 227 pixels."""
    layers: list[Layer] = []
    if len(shape) == 1:
        layers += [Layer("out_fc", "fc", shape[0], 16 * WAY_OUT), Layer("out_4x4", "reshape", shape=(WAY_OUT, 4, 4))]
        shape = (WAY_OUT, 4, 4)
    channels, side = shape[0], shape[1]
    while 2 * side < CAFFE_FRAMING.side:
        layers.append(Layer(f"out_{side}", "deconv", channels, WAY_OUT, 4, 2, 1))
        channels, side = WAY_OUT, 2 * side
    last = Layer("out", "conv", channels, 3, 3, 1, 1)
    return (*layers, last if side >= CAFFE_FRAMING.side else Layer("out", "deconv", channels, 3, 4, 2, 1))
