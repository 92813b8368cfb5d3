"""Networks by the names and shapes of their arrays alone, as a state dict or an HDF5 snapshot brings them."""

import numpy as np
import pytest

from deepsim.export.published.layouts import DISCRIMINATORS, ENCODERS, GENERATORS
from deepsim.export.published.networks import SourceFile, find_networks
from deepsim.runtime.errors import CheckpointError, UsageError
from deepsim.runtime.pixels import CAFFE_PIXELS, IMAGENET_PIXELS

SOURCE = [SourceFile("weights.pt", 1, "", "PyTorch state dict")]
LAYER = {"fc6": "fc7", "conv4": "conv3"}  # what the user tells where the file cannot
ENCODER = {"bvlc-alexnet": "bvlc-alexnet", "vgg16": "vgg16", "vgg19": "vgg19-caffe"}


def arrays(layout, **changes):
    """Make arrays of the layout's shapes that take no memory."""
    found = {}
    for entry in layout.layers:
        if entry.has_weights:
            found[f"{entry.name}.weight"] = np.broadcast_to(np.float32(1), entry.weight_shape)
            found[f"{entry.name}.bias"] = np.broadcast_to(np.float32(1), (entry.outputs,))
    found |= {name: np.broadcast_to(np.float32(1), shape) for name, shape in changes.items()}
    return found


@pytest.fixture
def cheap(monkeypatch):
    """Check shapes alone: full-sized arrays would take a gigabyte."""
    monkeypatch.setattr(
        "deepsim.export.published.networks._array",
        lambda name, shape, question: (
            question.arrays[name] if question.arrays[name].shape == shape else pytest.fail(name)
        ),
    )


@pytest.mark.parametrize("layout", [*ENCODERS, *GENERATORS, *DISCRIMINATORS], ids=lambda layout: layout.title)
def test_every_known_network_is_found(layout, cheap):
    (network,) = find_networks(arrays(layout), SOURCE, layer=LAYER.get(layout.name), encoder=ENCODER.get(layout.name))
    assert (network.role, network.name) == (layout.role, LAYER.get(layout.name, layout.name))
    assert (network.layers, network.input_shape) == (layout.layers, layout.input_shape)


def test_all_networks_of_one_file_are_found(cheap):
    weights = arrays(ENCODERS[0]) | arrays(GENERATORS[1]) | arrays(DISCRIMINATORS[0])
    found = [(network.role, network.name) for network in find_networks(weights, SOURCE)]
    assert found == [("encoder", "caffenet"), ("generator", "pool5"), ("discriminator", "discriminator")]


@pytest.mark.parametrize(
    ("layout", "told", "words"),
    [
        (GENERATORS[0], {}, "^--layer: missing, expected fc6 or fc7: weights.pt fits each of them.$"),
        (GENERATORS[2], {}, "^--layer: missing, expected conv3 or conv4"),
        (GENERATORS[0], {"layer": "conv3"}, "^--layer conv3: weights.pt holds a generator for fc6 or fc7.$"),
        (GENERATORS[1], {"layer": "fc6"}, "^--layer fc6: weights.pt holds a generator for pool5.$"),
        (ENCODERS[4], {}, r"^--encoder: missing, expected vgg19 \(torchvision's: RGB, normalised\) or vgg19-caffe"),
        (ENCODERS[4], {"encoder": "vgg16"}, "^--encoder vgg16: weights.pt holds vgg19.$"),
        (ENCODERS[0], {"encoder": "alexnet"}, "^--encoder alexnet: weights.pt holds caffenet.$"),
    ],
)
def test_what_the_file_cannot_tell_is_asked_for_and_contradictions_are_refused(layout, told, words, cheap):
    with pytest.raises(UsageError, match=words):
        find_networks(arrays(layout), SOURCE, **told)


def test_the_norm_generators_are_told_apart_by_their_input(cheap):
    assert find_networks(arrays(GENERATORS[4]), SOURCE)[0].name == "norm1"
    other = arrays(GENERATORS[4], **{"Rconv6.weight": (128, 64, 3, 3)})
    with pytest.raises(UsageError, match=r"^--layer: None, expected norm1 or norm2: weights.pt fits both"):
        find_networks(other, SOURCE)
    (network,) = find_networks(other, SOURCE, layer="norm1")
    assert (network.name, network.input_shape, network.layers[0].stride) == ("norm1", (64, 27, 27), 2)


@pytest.mark.parametrize(("told", "pixels"), [("vgg16", IMAGENET_PIXELS), ("vgg16-caffe", CAFFE_PIXELS)])
def test_the_pixels_of_a_vgg_are_those_that_are_told(told, pixels, cheap):
    (network,) = find_networks(arrays(ENCODERS[3]), SOURCE, encoder=told)
    assert network.pixels == pixels and told in network.notes[0]


def test_a_variant_of_a_layer_is_recorded(cheap):
    (network,) = find_networks(arrays(GENERATORS[0]), SOURCE, layer="fc6_eucl")
    assert network.name == "fc6" and "fc6_eucl, a generator of fc6" in network.notes[0]


@pytest.mark.parametrize(
    ("layout", "changes", "words"),
    [
        (GENERATORS[1], {"deconv3.weight": None}, "no deconv3.weight, which the pool5 generator, the nearest"),
        (GENERATORS[1], {"deconv3.weight": (256, 128, 3, 3)}, r"deconv3.weight has shape \(256, 128, 3, 3\), expected"),
        (GENERATORS[1], {"deconv3.weight": (255, 128, 4, 4)}, "layer deconv3 .*input of shape"),
        (GENERATORS[1], {"deconv3.bias": (127,)}, r"deconv3.bias has shape \(127,\), expected \(128,\)"),
        (GENERATORS[1], {"deconv3.bias": None}, "no deconv3.bias"),
        (ENCODERS[0], {"fc6.weight": (4096, 9215)}, "layer fc6 .*input of shape"),
        (ENCODERS[0], {"conv5.weight": (255, 192, 3, 3)}, "conv5.weight has shape .* expected 2 groups"),
        (DISCRIMINATORS[0], {"Dfeat2.weight": None}, "no Dfeat2.weight"),
        (DISCRIMINATORS[0], {"Dfc7.weight": (2, 100)}, "Dfc7.weight"),
    ],
)
def test_the_first_difference_is_named(layout, changes, words):
    weights = arrays(layout, **{name: shape for name, shape in changes.items() if shape is not None})
    weights = {name: value for name, value in weights.items() if changes.get(name, ()) is not None}
    with pytest.raises(CheckpointError, match=words):
        find_networks(weights, SOURCE)


@pytest.mark.parametrize(("value", "words"), [(np.nan, "not finite"), (1, "holds int64")])
def test_arrays_are_finite_numbers(value, words):
    weights = arrays(GENERATORS[4])
    weights["conv1_1.bias"] = np.array([value] * 3)
    with pytest.raises(CheckpointError, match=f"conv1_1.bias .*{words}"):
        find_networks(weights, SOURCE)


def test_arrays_of_other_networks_are_noted(cheap):
    extra = {"head.weight": np.ones(3), "head.bias": np.ones(3)}
    (network,) = find_networks(arrays(GENERATORS[1]) | extra, SOURCE)
    assert network.notes == ("1 layers with weights belong to none of these networks: head",)
