"""Networks that Caffe computed: imported, they give Caffe's numbers to 2e-3, and its pixels to one grey level."""

from pathlib import Path

import numpy as np
import pytest
import torch

from deepsim.export.published.caffe_files import read_caffe
from deepsim.export.torch_networks import apply_layers, tensors
from deepsim.kernels.reference import apply_layers as reference_layers
from deepsim.runtime.pixels import CAFFE_PIXELS

DATA = Path(__file__).resolve().parents[2] / "data/caffe"
BOUND = 2e-3  # Caffe itself moves by 1.2e-3 with its BLAS
VARIANTS = sorted(path.name for path in (DATA / "variants").iterdir())


def outputs(network, x):
    """Run a network, and return every layer's output by name, the last as ""."""
    found = {}
    with torch.inference_mode():
        y = apply_layers(
            network.layers,
            torch.from_numpy(x),
            tensors(network.weights),
            observe=lambda layer, output: found.update({layer.name: output.numpy()}),
        )
    return {**found, "": y.numpy()}


def read_one(name, prototxt=None):
    (network,) = read_caffe(DATA / name, prototxt and DATA / prototxt).networks()
    return network


def assert_as_caffe(network, stored):
    raw = outputs(network, stored["input"])[""]
    assert np.abs(raw[:, :, ::8, ::8] - stored["output"]).max() < BOUND
    ours, caffe = (CAFFE_PIXELS.to_pixels(image).astype(int) for image in (raw[:, :, ::8, ::8], stored["output"]))
    assert np.abs(ours - caffe).max() <= 1 and ours.std() > 5


@pytest.mark.parametrize("prototxt", [None, "norm1.prototxt", "v1.prototxt"])
@pytest.mark.parametrize("name", ["norm1.caffemodel", *(f"variants/{name}" for name in VARIANTS)])
def test_every_encoding_of_a_generator_gives_the_image_of_caffe(name, prototxt):
    network = read_one(name, prototxt)
    assert (network.role, network.name, network.input_shape) == ("generator", "norm1", (96, 27, 27))
    whole = read_one("norm1.caffemodel")
    assert network.layers == whole.layers and network.notes == ()
    assert all((network.weights[key] == value).all() for key, value in whole.weights.items())


@pytest.mark.parametrize("prototxt", [None, "norm1.prototxt", "v1.prototxt"])
def test_a_generator_with_tanh_gives_the_image_of_caffe(prototxt):
    assert_as_caffe(read_one("norm1.caffemodel", prototxt), np.load(DATA / "norm1.npz"))


@pytest.mark.parametrize("prototxt", [None, "fc8.prototxt"])
def test_a_generator_from_a_vector_gives_the_image_of_caffe(prototxt):
    network = read_one("fc8.caffemodel", prototxt)
    assert (network.name, network.input_shape, network.layers[0].outputs) == ("fc8", (1000,), 64)
    assert_as_caffe(network, np.load(DATA / "fc8.npz"))


def test_the_numpy_twins_give_the_image_of_caffe_as_well():
    network, stored = read_one("fc8.caffemodel"), np.load(DATA / "fc8.npz")
    weights = {name: value.astype(np.float64) for name, value in network.weights.items()}
    raw = reference_layers(network.layers, stored["input"].astype(np.float64), weights)
    assert np.abs(raw[:, :, ::8, ::8] - stored["output"]).max() < BOUND


def test_an_encoder_up_to_the_end_of_its_prototxt_gives_the_features_of_caffe():
    network, stored = read_one("encoder256.caffemodel", "encoder256.prototxt"), np.load(DATA / "encoder256.npz")
    assert (network.role, network.name, network.input_shape) == ("encoder", "caffenet", (3, 256, 256))
    assert network.notes == ("ends at pool5, as encoder256.prototxt says",)
    mean = np.array([104, 117, 123], np.float32)[:, None, None]
    found = outputs(network, stored["image"] - mean)
    assert network.layers[-1].name == "pool5" and found["pool5"].shape == (1, 16, 7, 7)
    for name in ("norm1", "pool5"):
        assert np.abs(found[name] - stored[name]).max() < BOUND
