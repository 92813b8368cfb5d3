"""Bundles of seeded random weights for tests: ``tiny`` (made-up small networks) and ``norm2`` (the real tables)."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deepsim.kernels.layers import Layer
from deepsim.runtime.files import sha256
from deepsim.runtime.generators import GeneratorSpec, generator_for, generator_spec
from deepsim.runtime.geometry import CAFFE_FRAMING, Framing, Geometry
from deepsim.runtime.manifest import FileRecord, Manifest
from deepsim.runtime.networks import CAFFENET, EncoderSpec, GraphEncoder
from deepsim.runtime.pixels import CAFFE_PIXELS, IMAGENET_PIXELS

Weights = dict[str, NDArray[np.float32]]

TINY_ENCODER = EncoderSpec(
    "tiny",
    (
        Layer("conv1", "conv", 3, 8, 11, 4, activation="relu"),
        Layer("pool1", "pool", kernel=3, stride=2, ceil_mode=True),
        Layer("norm1", "lrn"),
        Layer("conv2", "conv", 8, 6, 5, 2, 2, activation="relu"),
        Layer("fc6", "fc", 6 * 14 * 14, 20, activation="relu"),
    ),
    CAFFE_PIXELS,
    CAFFE_FRAMING,
)
TINY_GENERATOR = GeneratorSpec(
    "fc6",
    (20,),
    (
        Layer("defc5", "fc", 20, 128, activation="lrelu"),
        Layer("reshape", "reshape", shape=(8, 4, 4)),
        Layer("deconv5", "deconv", 8, 8, 4, 2, 1, activation="lrelu"),
        Layer("conv5_1", "deconv", 8, 8, 3, 1, 1, activation="lrelu"),
        Layer("deconv4", "deconv", 8, 6, 4, 2, 1, activation="lrelu"),
        Layer("deconv3", "deconv", 6, 6, 4, 2, 1, activation="lrelu"),
        Layer("deconv2", "deconv", 6, 4, 4, 2, 1, activation="lrelu"),
        Layer("deconv1", "deconv", 4, 4, 4, 2, 1, activation="lrelu"),
        Layer("deconv0", "deconv", 4, 3, 4, 2, 1),
    ),
)
# The same in the conventions of the other encoder, with an output of 240 pixels and a tanh.
TINY_RGB_ENCODER = EncoderSpec(
    "tiny-rgb", (Layer("conv1", "conv", 3, 4, 11, 16, 2, activation="relu"),), IMAGENET_PIXELS, CAFFE_FRAMING
)
TINY_RGB_GENERATOR = GeneratorSpec(
    "conv1",
    (4, 14, 14),
    (
        Layer("Rconv6", "conv", 4, 8, 3, 1, 1, activation="lrelu"),
        Layer("Rconv7", "conv", 8, 4, 2, 1, 1, activation="lrelu"),
        *(Layer(f"deconv{i}", "deconv", 4, 4, 4, 2, 1, activation="lrelu") for i in (4, 3, 2, 1)),
        Layer("conv1_1", "conv", 4, 3, 3, 1, 1, activation="tanh255"),
    ),
)
# Another geometry: photographs of 64 pixels, whose shorter side was resized to 72, in a square at an odd place.
SMALL_ENCODER = EncoderSpec(
    "small",
    (Layer("conv1", "conv", 3, 4, 8, 8, activation="relu"),),
    IMAGENET_PIXELS,
    Framing("shorter", 72, 64, "bicubic"),
)
SMALL_GENERATOR = generator_for("conv1", (4, 8, 8), 66, width=1 / 8)
# A code of 20 values for an image of 28 pixels: for tests that decode many.
MINI_ENCODER = EncoderSpec(
    "mini",
    (Layer("conv1", "conv", 3, 8, 7, 7, activation="relu"), Layer("fc6", "fc", 8 * 4 * 4, 20, activation="relu")),
    CAFFE_PIXELS,
    Framing("warp", 32, 28),
)
MINI_GENERATOR = GeneratorSpec(
    "fc6",
    (20,),
    (
        Layer("defc5", "fc", 20, 128, activation="lrelu"),
        Layer("reshape", "reshape", shape=(8, 4, 4)),
        Layer("deconv2", "deconv", 8, 6, 4, 2, 1, activation="lrelu"),
        Layer("deconv1", "deconv", 6, 4, 4, 2, 1, activation="lrelu"),
        Layer("deconv0", "deconv", 4, 3, 4, 2, 1),
    ),
)
# As Dosovitskiy & Brox 2015 have it: 5x5 up-convolutions, LeakyReLU(0.2), and an image smaller than the photograph.
EARLY_GENERATOR = GeneratorSpec(
    "fc6",
    (20,),
    (
        Layer("defc5", "fc", 20, 128, activation="lrelu0.2"),
        Layer("reshape", "reshape", shape=(8, 4, 4)),
        Layer("deconv2", "deconv", 8, 6, 5, 2, 2, output_padding=1, activation="lrelu0.2"),
        Layer("deconv1", "deconv", 6, 3, 5, 2, 2, output_padding=1),
    ),
)
NETWORKS = {
    "tiny": (TINY_ENCODER, TINY_GENERATOR),
    "tiny-rgb": (TINY_RGB_ENCODER, TINY_RGB_GENERATOR),
    "mini": (MINI_ENCODER, MINI_GENERATOR),
    "early": (MINI_ENCODER, EARLY_GENERATOR),
    "small": (SMALL_ENCODER, SMALL_GENERATOR),
    "norm2": (EncoderSpec("caffenet", CAFFENET.up_to("norm2"), CAFFE_PIXELS, CAFFE_FRAMING), generator_spec("norm2")),
}


def geometry_of(name: str) -> Geometry:
    """Return the geometry of a network's bundle."""
    encoder, generator = NETWORKS[name]
    if name == "small":
        return Geometry(encoder.framing, 1)  # of 80 pixels, the central square would begin at 8
    return Geometry.between(encoder.framing, generator.output_size)


@cache
def random_weights(name: str) -> tuple[Weights, Weights]:
    """Return (encoder, generator) weights of a network, scaled so that photographs give images of medium contrast."""
    encoder, generator = NETWORKS[name]
    encoder_weights = _he_weights(encoder.layers, seed=1)
    generator_weights = _he_weights(generator.layers, seed=2)
    side = encoder.framing.side
    noise = np.random.default_rng(3).integers(0, 256, (1, side, side, 3), dtype=np.uint8)
    from deepsim.kernels import reference

    features = reference.apply_layers(encoder.layers, encoder.pixels.to_network(noise), encoder_weights)
    first, last = generator.layers[0].name, generator.layers[-1]
    generator_weights[f"{first}.weight"] /= np.float32(np.sqrt(np.mean(features**2)))
    generator_weights[f"{last.name}.weight"] *= 0.3 if last.activation == "tanh255" else 60
    return encoder_weights, generator_weights


def write_bundle(folder: Path, name: str = "tiny") -> Path:
    """Write the bundle ``folder/NAME.deepsim`` and return its path."""
    from safetensors.numpy import save

    from deepsim.export.onnx_from_layers import encoder_onnx, generator_onnx

    encoder, generator = NETWORKS[name]
    encoder_weights, generator_weights = random_weights(name)
    prefixed = {f"encoder.{key}": value for key, value in encoder_weights.items()}
    prefixed |= {f"generator.{key}": value for key, value in generator_weights.items()}
    return write_files(
        folder / f"{name}.deepsim",
        name,
        {
            "weights.safetensors": save(prefixed),
            "encoder.onnx": encoder_onnx(encoder, encoder.layers[-1].name, encoder_weights),
            "generator.onnx": generator_onnx(generator, geometry_of(name), generator_weights),
            "README.md": b"# A bundle for tests\n",
        },
    )


def write_kind(folder: Path, kind: str, **changes: object) -> Path:
    """Write the small network as a bundle whose encoder is a "table", a "graph" or "none"; return its path.

    Of "table-alone" and "graph-alone" there is the encoder only. ``changes`` replace fields of the manifest.
    """
    from safetensors.numpy import save

    from deepsim.export.onnx_from_layers import encoder_onnx, generator_onnx

    encoder, generator = NETWORKS["small"]
    weights, generator_weights = random_weights("small")
    prefixed = {f"generator.{key}": value for key, value in generator_weights.items()}
    files = {"generator.onnx": generator_onnx(generator, geometry_of("small"), generator_weights)}
    record: EncoderSpec | GraphEncoder | None = None
    of, _, alone = kind.partition("-")
    if alone:
        files, prefixed = {}, {}
        changes = {"generator": None, "geometry": Geometry(encoder.framing, 0), **changes}
    if of != "none":
        files["encoder.onnx"] = encoder_onnx(encoder, "conv1", weights)
    if of == "table":
        record = encoder
        prefixed |= {f"encoder.{key}": value for key, value in weights.items()}
    if of == "graph":
        record = GraphEncoder("tests:small", "conv1", encoder.framing, encoder.pixels, generator.input_shape)
    if prefixed:
        files["weights.safetensors"] = save(prefixed)
    return write_files(folder / f"{kind}.deepsim", "small", files, **{"encoder": record, **changes})


def write_files(path: Path, name: str, contents: dict[str, bytes], **changes: object) -> Path:
    """Write a bundle of these files, whatever they hold; ``changes`` replace fields of the manifest."""
    encoder, generator = NETWORKS[name]
    records = {file: FileRecord(len(data), sha256(data)) for file, data in contents.items()}
    fields: dict[str, object] = {
        "name": name,
        "geometry": geometry_of(name),
        "encoder": encoder,
        "generator": generator,
        "files": records,
    }
    for file, data in contents.items():
        (path / file).parent.mkdir(parents=True, exist_ok=True)
        (path / file).write_bytes(data)
    path.mkdir(exist_ok=True)
    (path / "manifest.json").write_bytes(Manifest(**{**fields, **changes}).to_bytes())  # type: ignore[arg-type]
    return path


def photographs(count: int, seed: int = 0) -> NDArray[np.uint8]:
    """Return smooth random images (count, 227, 227, 3), unlike each other."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 255, (count, 9, 9, 3))
    rows = np.linspace(0, 8, 227)
    low, part = np.minimum(rows.astype(int), 7), rows - np.minimum(rows.astype(int), 7)
    across = coarse[:, low] * (1 - part)[:, None, None] + coarse[:, low + 1] * part[:, None, None]
    smooth = across[:, :, low] * (1 - part)[:, None] + across[:, :, low + 1] * part[:, None]
    return smooth.astype(np.uint8)


def _he_weights(layers: tuple[Layer, ...], seed: int) -> Weights:
    rng = np.random.default_rng(seed)
    weights: Weights = {}
    for layer in layers:
        if layer.has_weights:
            taps = layer.kernel**2 / (layer.stride**2 if layer.kind == "deconv" else 1)
            fan_in = layer.inputs // layer.groups * taps
            scale = np.sqrt(2 / fan_in)
            weights[f"{layer.name}.weight"] = (rng.standard_normal(layer.weight_shape) * scale).astype(np.float32)
            weights[f"{layer.name}.bias"] = (rng.standard_normal(layer.outputs) * 0.1).astype(np.float32)
    return weights
