"""Errors of the native library against float64 arithmetic: encoders, and generators before their output is rounded.

    python -m deepsim.benchmarks.float64_error [LAYER ...]

A generator's output leaves the library as uint8. Here it is made visible in full: a network that is the encoder
followed by the generator's layers (without a final tanh) is written as the "encoder" of a bundle, whose "features" are
then the image in float32. The reference is PyTorch in float64, run on the float32 features that the library itself
computes, so that encoder and generator are measured apart. Relative errors are |x - y| / |y| over all values.
PyTorch's own float32 stands beside them.
"""

import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import safetensors.numpy
import torch
from numpy.typing import NDArray

from deepsim.export.calibration import calibration_images
from deepsim.export.sources import Source, random_source
from deepsim.kernels.layers import Layer
from deepsim.kernels.torch_layers import apply_layer
from deepsim.runtime import Inverter, native_library
from deepsim.runtime.backends.cpu import INSTRUCTION_SET_VARIABLE
from deepsim.runtime.files import sha256
from deepsim.runtime.generators import GeneratorSpec
from deepsim.runtime.manifest import FILE_NAME, FileRecord, Manifest
from deepsim.runtime.networks import EncoderSpec
from deepsim.runtime.pixels import CAFFE_PIXELS, Pixels

LAYERS = ("fc6", "fc7", "fc8", "pool5", "conv4", "conv3", "norm2", "norm1")
PASS_ON = Layer("pass_on", "conv", 3, 3, 3, 1, 1)  # the generator that the chained bundle needs and nobody runs
Array = NDArray[np.floating]
Weights = dict[str, NDArray[np.float32]]


def main() -> None:
    """Print one line for each layer and way to run it."""
    print(f"{'layer':7} {'kernels':9} {'weights':8} {'encoder':>9} {'generator':>10}")
    for layer in sys.argv[1:] or LAYERS:
        for kernels, weights, encoder, generator in errors(layer):
            print(f"{layer:7} {kernels:9} {weights:8} {encoder:9.1e} {generator:10.1e}", flush=True)


def errors(layer: str, photos: int = 3) -> Iterator[tuple[str, str, float, float]]:
    """Yield (kernels, how weights are stored, encoder's relative error, generator's) for seeded random weights."""
    source = random_source(layer)
    images = calibration_images(photos, source.geometry.side, seed=5)
    pixels = source.table.pixels.to_network(images)
    linear = linear_layers(source.generator_table)
    wanted = run(source.table.layers, source.encoder_weights, pixels, torch.float64)
    with tempfile.TemporaryDirectory() as folder:
        plain, chained = write(Path(folder) / "plain", source), write(Path(folder) / "chained", chain(source, linear))
        for kernels in native_library.instruction_sets():
            os.environ[INSTRUCTION_SET_VARIABLE] = kernels
            for stored in ("fp32", "fp16"):
                half = stored == "fp16"
                features, image = (encode(bundle, images, half) for bundle in (plain, chained))
                exact = run(linear, source.generator_weights, features, torch.float64)
                yield kernels, stored, relative(features, wanted), relative(image, exact)
    features = run(source.table.layers, source.encoder_weights, pixels, torch.float32)
    image = run(linear, source.generator_weights, features, torch.float32)
    exact = run(linear, source.generator_weights, features, torch.float64)
    yield "torch", "fp32", relative(features, wanted), relative(image, exact)


def linear_layers(generator: GeneratorSpec) -> tuple[Layer, ...]:
    """Return the generator's layers without the activation of the last."""
    return (*generator.layers[:-1], replace(generator.layers[-1], activation="none"))


def chain(source: Source, linear: tuple[Layer, ...]) -> Source:
    """Return a source whose encoder is the whole network of ``source`` and gives the image."""
    encoder = EncoderSpec("chained", (*source.table.layers, *linear), source.table.pixels, source.table.framing)
    side = source.generator_table.output_size
    generator = GeneratorSpec(linear[-1].name, (3, side, side), (PASS_ON,), CAFFE_PIXELS)
    names = {
        f"{PASS_ON.name}.weight": np.zeros((3, 3, 3, 3), np.float32),
        f"{PASS_ON.name}.bias": np.zeros(3, np.float32),
    }
    weights = {**source.encoder_weights, **source.generator_weights}
    return replace(source, encoder=encoder, generator=generator, encoder_weights=weights, generator_weights=names)


def write(path: Path, source: Source) -> Path:
    """Write the bundle ``path`` with nothing but weights."""
    tensors = {f"encoder.{name}": value for name, value in source.encoder_weights.items()}
    tensors |= {f"generator.{name}": value for name, value in source.generator_weights.items()}
    content = safetensors.numpy.save(tensors)
    files = {"weights.safetensors": FileRecord(len(content), sha256(content))}
    path.mkdir()
    (path / "weights.safetensors").write_bytes(content)
    manifest = Manifest(path.name, source.geometry, source.table, source.generator_table, files)
    (path / FILE_NAME).write_bytes(manifest.to_bytes())
    return path


def encode(bundle: Path, images: Pixels, half: bool) -> NDArray[np.float32]:
    """Return what the encoder of a bundle computes in the native library."""
    with Inverter(bundle, "cpu", half_fc_weights=half) as inverter:
        return inverter.encode(images)


def run(layers: tuple[Layer, ...], weights: Weights, x: Array, dtype: torch.dtype) -> Array:
    """Run layers in PyTorch in ``dtype``."""
    value = torch.from_numpy(np.asarray(x)).to(dtype)
    with torch.inference_mode():
        for layer in layers:
            own = (weights.get(f"{layer.name}.{kind}") for kind in ("weight", "bias"))
            value = apply_layer(layer, value, *(None if w is None else torch.from_numpy(w).to(dtype) for w in own))
    result: Array = value.numpy()
    return result


def relative(found: Array, wanted: Array) -> float:
    """Return |found - wanted| / |wanted|."""
    return float(np.linalg.norm(found.astype(np.float64) - wanted) / np.linalg.norm(wanted))


if __name__ == "__main__":
    main()
