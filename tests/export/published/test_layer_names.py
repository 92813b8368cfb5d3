"""Layers are read from the names that publishers give their files, and from nothing else."""

from pathlib import Path

import pytest

from deepsim.export.published.layer_names import layer_from_name
from deepsim.runtime.errors import UsageError

NAMES = {
    "generator_relu6.pt": "fc6",
    "generator_relu7.pt": "fc7",
    "relu7/generator.pt": "fc7",
    "relu3generator.pt": "conv3",
    "upconvGAN_fc6.pt": "fc6",
    "upconvGAN_fc6_eucl.pt": "fc6_eucl",
    "upconvGAN_norm1.pt": "norm1",
    "matlabGANfc6.mat": "fc6",
    "release_deepsim_v0/fc8/generator.caffemodel": "fc8",
    "conv4.pt": "conv4",
    "fc6-places365.caffemodel": "fc6-places365",
    "FC7.PT": "fc7",
    "fc7/upconvGAN_fc6.pt": "fc6",
}


@pytest.mark.parametrize("name", NAMES)
def test_published_names(tmp_path, name):
    assert layer_from_name(tmp_path / "x" / name)[0] == NAMES[name]


@pytest.mark.parametrize(
    "name",
    [
        "generator.pt",
        "deconv5.pt",
        "conv5_1.pt",
        "fc66.pt",
        "bvlc_reference_caffenet.caffemodel",
        "pool4.pt",
        "relu5.pt",
    ],
)
def test_names_that_name_no_layer(tmp_path, name):
    assert layer_from_name(tmp_path / "x" / name) is None


def test_a_name_with_two_layers():
    with pytest.raises(UsageError, match=r"--layer auto: fc6_or_fc7.pt names fc6 and fc7, expected one layer"):
        layer_from_name(Path("fc6_or_fc7.pt"))
