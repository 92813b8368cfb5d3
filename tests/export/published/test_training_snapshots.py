"""A snapshot of a training: encoder, generator and discriminator in one file, among layers for training only."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from deepsim.export.published.caffe_files import read_bytes
from deepsim.export.published.discriminators import build_discriminator
from deepsim.export.published.layouts import BVLC_ALEXNET, DISCRIMINATORS
from deepsim.kernels.layers import Layer
from deepsim.runtime.errors import CheckpointError, UsageError
from deepsim.runtime.generators import generator_spec
from deepsim.runtime.networks import CAFFENET
from deepsim.train.discriminator import _CONVOLUTIONS
from tests.export.published.caffe_messages import blob, block, chain, layer, number, random_weights

COUNTS = {"conv1": 4, "conv2": 8, "conv3": 8, "conv4": 8, "conv5": 8, "fc6": 16, "fc7": 16, "fc8": 10}


def narrow(layers, inputs, counts, units=36):
    """Give layers other channel counts."""
    found, channels = [], inputs
    for entry in layers:
        if entry.has_weights:
            outputs = counts[entry.name]
            found.append(replace(entry, inputs=channels * units if entry.name == "fc6" else channels, outputs=outputs))
            channels = outputs
        else:
            found.append(entry)
    return tuple(found)


ENCODER = narrow(CAFFENET.layers, 3, COUNTS)
GENERATOR = tuple(
    replace(entry, inputs=16) if entry.name == "defc7" else entry
    for entry in generator_spec("fc6", width=1 / 64).layers
)
DISCRIMINATOR = (
    *(Layer(f"Dconv{i + 1}", "conv", inputs, outputs, kernel, stride, activation="relu")
      for i, (inputs, (outputs, kernel, stride)) in enumerate(
          zip((3, 1, 2, 4, 8), ((1, 7, 4), (2, 5, 1), (4, 3, 2), (8, 3, 1), (8, 3, 2)), strict=True))),
    Layer("Dfeat1", "fc", 16, 32, activation="relu"),
    Layer("Dfeat2", "fc", 32, 16, activation="relu"),
    Layer("Dfc6", "fc", 24, 16, activation="relu"),
    Layer("Dfc7", "fc", 16, 2),
)  # fmt: skip
WEIGHTS = [random_weights(layers, seed) for seed, layers in enumerate((ENCODER, GENERATOR, DISCRIMINATOR))]


def discriminator(weights, pool=None, joined=("Dflatten", "Dfeat2")):
    pool = block(121, number(1, 1) + number(12, 1)) if pool is None else pool
    return (
        chain(DISCRIMINATOR[:5], weights, "judged")
        + layer("Dpool5", "Pooling", ["Dconv5"], ["Dpool5"], settings=pool)
        + layer("Dflatten", "Flatten", ["Dpool5"], ["Dflatten"])
        + chain(DISCRIMINATOR[5:7], weights, "fc6_copy_1")
        + layer("Dconcat", "Concat", list(joined), ["Dconcat"])
        + layer("drop_Dfc6", "Dropout", ["Dconcat"], ["Dconcat"])
        + chain(DISCRIMINATOR[7:8], weights, "Dconcat")
        + layer("drop_Dfc7", "Dropout", ["Dfc6"], ["Dfc6"])
        + chain(DISCRIMINATOR[8:], weights, "Dfc6")
        + layer("loss", "SoftmaxWithLoss", ["Dfc7", "label"], ["loss"])
    )


def snapshot(encoder=ENCODER, read="fc6", judged=None):
    """Write all three networks as one training network, with shared weights of the encoder written twice."""
    crop = block(144, number(1, 2) + number(2, 14) + number(2, 14))
    return (
        layer("data", "Data", [], ["data", "label"], settings=block(100, number(3, 227)) + block(8, number(1, 0)))
        + layer("data", "Data", [], ["data", "label"], settings=block(100, number(3, 227)) + block(8, number(1, 1)))
        + layer("data_split", "Split", ["data"], ["data_0", "data_1"])
        + chain(encoder, WEIGHTS[0], "data_0")
        + layer("fc6_split", "Split", [read], ["fc6_copy_0", "fc6_copy_1", "fc6_copy_2"])
        + chain(GENERATOR, WEIGHTS[1], "fc6_copy_0")
        + layer("crop", "Crop", ["deconv0", "data_1"], ["cropped"], settings=crop)
        + layer("cropped_split", "Split", ["cropped"], ["judged", "compared", "seen"])
        + layer("image_loss", "EuclideanLoss", ["compared", "data_1"], ["image_loss"])
        + layer("conv1_again", "Convolution", ["seen"], ["conv1_again"], [blob(WEIGHTS[0]["conv1.weight"])] * 2)
        + layer("quiet", "Silence", ["conv1_again", "fc6_copy_2"], [])
        + (discriminator(WEIGHTS[2]) if judged is None else judged)
    )  # fmt: skip


def test_a_snapshot_holds_three_networks():
    networks = read_bytes(snapshot(), "iter_1000.caffemodel").networks()
    assert [(n.role, n.name) for n in networks] == [
        ("encoder", "caffenet"),
        ("generator", "fc6"),
        ("discriminator", "discriminator"),
    ]
    for network, layers, weights in zip(networks, (ENCODER, GENERATOR, DISCRIMINATOR), WEIGHTS, strict=True):
        assert network.layers == layers and network.weights.keys() == weights.keys()
        assert all((network.weights[name] == value).all() for name, value in weights.items())
    assert [network.input_shape for network in networks] == [(3, 227, 227), (16,), (3, 227, 227)]
    assert networks[1].notes == (
        "inverts fc6, which it reads in the file",
        "1 layers with weights belong to none of these networks: conv1_again",
    )


def test_a_snapshot_says_itself_which_layer_its_generator_inverts():
    files = read_bytes(snapshot(read="fc7"), "x")
    assert files.networks()[1].name == "fc7" and files.networks(layer="fc7")[1].name == "fc7"
    with pytest.raises(UsageError, match=r"^--layer fc6: the generator in x reads fc7\.$"):
        files.networks(layer="fc6")


def test_an_encoder_in_a_snapshot_may_end_where_the_training_needs_no_more():
    networks = read_bytes(snapshot(encoder=ENCODER[:11]), "x").networks()
    assert networks[0].layers == ENCODER[:11] and networks[1].name == "fc6"
    assert networks[0].notes[0] == "ends at fc6, as x says"
    with pytest.raises(CheckpointError, match=r"no fc7\.weight"):
        read_bytes(chain(ENCODER[:11], WEIGHTS[0], "data"), "x").networks()


def test_a_crop_that_is_not_in_the_middle_is_noted():
    moved = snapshot().replace(number(2, 14) * 2, number(2, 10) * 2)
    assert read_bytes(moved, "x").networks()[1].notes[0] == (
        "its training cut images at offset 10, a bundle takes the middle, 14"
    )


def test_a_damaged_network_is_left_out_with_the_prototxt_of_another():
    data = snapshot(judged=discriminator(WEIGHTS[2], joined=("Dfeat2", "Dflatten")))
    with pytest.raises(CheckpointError, match=r"Dfc6.* A prototxt of one network alone leaves the others out"):
        read_bytes(data, "x").networks()


def test_a_generator_that_reads_before_the_relu_is_refused():
    bare = tuple(replace(entry, activation="none") if entry.name == "fc6" else entry for entry in ENCODER)
    with pytest.raises(CheckpointError, match="fc6"):
        read_bytes(snapshot(encoder=bare), "x").networks()


def test_a_snapshot_cut_within_its_discriminator_is_refused():
    data = snapshot()
    place = data.index(b"Dfc6", data.index(b"Dconcat")) - 3
    with pytest.raises(CheckpointError, match="x: "):
        read_bytes(data[:place], "x").networks()


def test_the_original_alexnet_is_told_from_caffenet_by_its_order():
    original = narrow(BVLC_ALEXNET.layers, 3, COUNTS)
    (network,) = read_bytes(chain(original, WEIGHTS[0], "data"), "bvlc_alexnet.caffemodel").networks()
    assert network.name == "bvlc-alexnet" and network.layers == original
    with pytest.raises(UsageError, match=r"--encoder caffenet: .* holds bvlc-alexnet"):
        read_bytes(chain(original, WEIGHTS[0], "data"), "x").networks(encoder="caffenet")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"pool": block(121, number(1, 0) + number(12, 1))}, "Dpool5 .*MAX, expected AVE with global_pooling"),
        ({"joined": ("Dfeat2", "Dflatten")}, "Dfc6 .*follows Dfeat2 and Dconv5, expected Dconv5 and Dfeat2"),
    ],
)
def test_another_discriminator_is_refused(change, words):
    with pytest.raises(CheckpointError, match=words):
        read_bytes(discriminator(WEIGHTS[2], **change), "x").networks()


def test_a_discriminator_becomes_the_module_of_training():
    (network,) = read_bytes(discriminator(WEIGHTS[2]), "x").networks()
    module, rng = build_discriminator(network), np.random.default_rng(5)
    images, features = (torch.from_numpy(rng.normal(size=s).astype(np.float32)) for s in ((2, 3, 227, 227), (2, 16)))
    with torch.inference_mode():
        found = module(images, features)
        weights = {name: torch.from_numpy(value) for name, value in WEIGHTS[2].items()}
        x, y = images, features
        for entry in DISCRIMINATOR[:5]:
            x = torch.relu(
                torch.conv2d(x, weights[f"{entry.name}.weight"], weights[f"{entry.name}.bias"], entry.stride)
            )
        for name in ("Dfeat1", "Dfeat2"):
            y = torch.relu(y @ weights[f"{name}.weight"].T + weights[f"{name}.bias"])
        z = torch.cat((x.mean((2, 3)), y), 1)
        z = torch.relu(z @ weights["Dfc6.weight"].T + weights["Dfc6.bias"])
        expected = z @ weights["Dfc7.weight"].T + weights["Dfc7.bias"]
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-2) and found.std() > 1


def test_the_table_of_the_discriminator_is_that_of_training():
    convolutions = [(entry.outputs, entry.kernel, entry.stride) for entry in DISCRIMINATORS[0].layers[:5]]
    assert tuple(convolutions) == _CONVOLUTIONS
