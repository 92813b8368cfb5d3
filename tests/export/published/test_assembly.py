"""Networks are joined where they fit, and what does not belong together is refused by name."""

from dataclasses import replace

import numpy as np
import pytest

from deepsim.export.published.assembly import assemble, heeds
from deepsim.export.published.networks import PublishedNetwork, SourceFile
from deepsim.export.published.pixel_choice import choose_pixels
from deepsim.kernels.layers import Layer
from deepsim.runtime.errors import CheckpointError, UsageError
from deepsim.runtime.pixels import IMAGENET_PIXELS

FILE = SourceFile("weights.pt", 3, "ab" * 32, "PyTorch state dict")
CONV = Layer("conv1", "conv", 3, 4, 8, 8, activation="relu")
FC = Layer("fc6", "fc", 4 * 28 * 28, 5, activation="relu")
UPS = tuple(Layer(f"deconv{i}", "deconv", 4, 4, 4, 2, 1, activation="lrelu") for i in (3, 2, 1))
IMAGE = Layer("conv1_1", "conv", 4, 3, 3, 1, 1)


def weights(*layers):
    names = {f"{layer.name}.weight": layer.weight_shape for layer in layers}
    names |= {f"{layer.name}.bias": (layer.outputs,) for layer in layers}
    return {name: np.zeros(shape, np.float32) for name, shape in names.items()}


ENCODER = PublishedNetwork("encoder", "caffenet", (CONV, FC), (3, 227, 227), weights(CONV, FC), (FILE,), ("one note",))
GENERATOR = PublishedNetwork(
    "generator", "conv1", (*UPS, IMAGE), (4, 30, 30), weights(*UPS, IMAGE), (replace(FILE, sha256="cd" * 32),)
)
DISCRIMINATOR = PublishedNetwork("discriminator", "discriminator", (CONV,), (3, 227, 227), weights(CONV), (FILE,))


def sized(extent):
    return replace(GENERATOR, input_shape=(4, extent, extent))


def test_an_encoder_ends_where_the_generator_begins():
    encoder = replace(ENCODER, input_shape=(3, 240, 240))
    source = assemble([encoder, GENERATOR, DISCRIMINATOR], choose_pixels())
    assert [layer.name for layer in source.table.layers] == ["conv1"] and "fc6.weight" not in source.encoder_weights
    assert (source.geometry.side, source.geometry.offset, source.table.framing.size) == (240, 0, 256)
    notes = source.provenance["notes"]
    assert notes == ["one note", "the discriminator is left out: a bundle holds an encoder and a generator"]
    assert [file["sha256"][:2] for file in source.provenance["sources"]] == ["ab", "cd"]
    assert source.provenance["layer"] == {"name": "conv1", "told by": "the files"}


def test_alone():
    assert assemble([GENERATOR], choose_pixels()).encoder is None
    source = assemble([ENCODER], choose_pixels(), "conv1", "--layer")
    assert source.generator is None and source.layer == "conv1" and source.geometry.offset == 0
    assert source.provenance["layer"] == {"name": "conv1", "told by": "--layer"}
    assert assemble([ENCODER], choose_pixels()).provenance["layer"]["name"] == "fc6"


def test_inputs_larger_than_the_framing():
    source = assemble([replace(ENCODER, input_shape=(3, 300, 300), layers=(CONV,))], choose_pixels())
    assert source.table.framing.side == source.table.framing.size == 300


def test_what_does_not_belong_together():
    pixels = choose_pixels()
    with pytest.raises(CheckpointError, match=r"weights.pt: a discriminator alone, expected an encoder or a generator"):
        assemble([DISCRIMINATOR], pixels)
    with pytest.raises(UsageError, match=r"weights.pt and weights.pt: both hold a network of the kind encoder"):
        assemble([ENCODER, ENCODER], pixels)
    with pytest.raises(CheckpointError, match=r"conv1 of caffenet has shape \(4, 28, 28\), expected \(4, 30, 30\)"):
        assemble([ENCODER, GENERATOR], pixels)
    with pytest.raises(CheckpointError, match="its images have 224 pixels a side, expected at least 227"):
        assemble([ENCODER, sized(28)], pixels)
    with pytest.raises(CheckpointError, match="its images have 32 pixels a side, expected at least 227"):
        assemble([sized(4)], pixels)
    with pytest.raises(CheckpointError, match=r"input has shape \(3, 227, 200\), expected \(3, S, S\)"):
        assemble([replace(ENCODER, input_shape=(3, 227, 200))], pixels)
    with pytest.raises(UsageError, match="no layer 'pool5'"):
        assemble([ENCODER, replace(sized(30), name="pool5")], pixels)


def test_other_encoders_are_noted():
    vgg = replace(ENCODER, name="vgg19", input_shape=(3, 224, 224), pixels=IMAGENET_PIXELS, notes=())
    source = assemble([vgg, sized(28)], choose_pixels("90,100,110"))
    assert source.table.pixels == IMAGENET_PIXELS and source.generator_table.pixels.mean == (90, 100, 110)
    assert (source.table.framing.resize, source.table.framing.side) == ("shorter", 224)
    first, second = source.provenance["notes"]
    assert first.startswith("vgg19 has its own pixels (RGB minus 123.675, 116.28, 103.53, normalised)")
    assert second == "the released generators invert CaffeNet; this one is joined to vgg19"


def test_an_encoder_with_its_own_pixels_heeds_no_others():
    vgg = replace(ENCODER, name="vgg19", input_shape=(3, 227, 227), pixels=IMAGENET_PIXELS, notes=())
    source = assemble([vgg], choose_pixels())
    assert not heeds(source, choose_pixels()) and heeds(assemble([ENCODER], choose_pixels()), choose_pixels())
    record = source.provenance["pixels"]
    assert record["order"] == "RGB" and record["mean from"] == "the network's own"
    assert source.provenance["notes"] == []
