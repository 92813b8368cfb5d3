"""Prototxts: what they say is done, what is not known is refused where it could change a result."""

import re
from pathlib import Path

import numpy as np
import pytest

from deepsim.export.published.caffe_files import read_bytes, read_caffe
from deepsim.export.published.caffe_prototxt import read_prototxt
from deepsim.runtime.errors import CheckpointError, UsageError
from deepsim.runtime.networks import CAFFENET
from tests.export.published.caffe_messages import blob, layer, named_only

DATA = Path(__file__).resolve().parents[2] / "data/caffe"
NORM1 = (DATA / "norm1.caffemodel").read_bytes()
FC8 = (DATA / "fc8.caffemodel").read_bytes()
TEXTS = {name: (DATA / f"{name}.prototxt").read_text() for name in ("norm1", "fc8")}


def changed(name, *pairs):
    """Return a stored prototxt with replacements, each of which must be possible."""
    text = TEXTS[name]
    for old, new in pairs:
        assert old in text, old
        text = text.replace(old, new, 1)
    return text.encode()


def networks(model, text, **told):
    return read_bytes(model, "x.caffemodel", (text, "x.prototxt")).networks(**told)


def block_of(name, layer):
    """Cut one layer out of a prototxt."""
    return re.search(rf'layer {{\n  name: "{layer}"\n.*?\n}}\n', TEXTS[name], re.DOTALL).group()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("kernel_size: 3", "kernel_h: 3 kernel_w: 3"),
        ("kernel_size: 3", "kernel_size: 3 kernel_size: 3"),
        ("kernel_size: 3", "kernel_size: 3 dilation: 1 engine: CUDNN weight_filler { type: 'gaussian' std: 0.01 }"),
        ("stride: 2", "stride_h: 2, stride_w: 2;"),
        ("pad: 2", "pad_h: 2\npad_w: 2 # a comment"),
        ('type: "Convolution"', 'type: "Convolution" phase: TEST loss_weight: 0 propagate_down: true'),
        ('type: "Convolution"', 'type: "Convolution" fork_param { depth: 3 inner < a: [1, 2] b: "}" > }'),
        ("force_backward: true", "force_backward: true debug_info: false state { phase: TEST }"),
    ],
)
def test_other_spellings_mean_the_same(old, new):
    text = changed("norm1", (old, new))
    (network,) = networks(NORM1, text)
    (whole,) = networks(NORM1, changed("norm1"))
    assert network.layers == whole.layers and network.notes == whole.notes == ()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("kernel_size: 3", "kernel_size: 3 dilation: 2", "Rconv6.*dilation 2, expected 1"),
        ("kernel_size: 3", "kernel_size: 3 dilatation: 2", "Rconv6.*field dilatation is not known"),
        ("kernel_size: 3", "kernel_size: 5", "Rconv6.*shape.*kernel 5x5"),
        ("kernel_size: 3", "kernel_h: 3 kernel_w: 1", "Rconv6.*kernel 3x1, expected one for both axes"),
        ("kernel_size: 3", "kernel_size: 3 axis: 2", "Rconv6.*axis 2, expected 1"),
        ("kernel_size: 3", "", "Rconv6.*kernel none"),
        ("kernel_size: 3", "kernel_size: 3 group: 3", "Rconv6.*groups"),
        ("stride: 2", "stride: 0", "Rconv6.*stride 0, expected 1 to 4096"),
        ("num_output: 8", "num_output: 9", "Rconv6.*num_output 9, expected 8"),
        ("negative_slope: 0.3", "negative_slope: 0.2", "Rrelu6.*negative_slope 0.2, expected 0 or 0.3"),
        ("scale: 255.0", "scale: 128.0", "scale255.*scale 128.*expected scale 255 after a TanH"),
        ("scale: 255.0", "scale: 255.0 shift: 1", "shift 1"),
        ('type: "TanH"', 'type: "Sigmoid"', "Sigmoid.*changes the image"),
        ('type: "Convolution"', 'type: "Convolution" kernel_size: 3', "Rconv6.*field kernel_size is not known"),
        ('bottom: "Rconv6"', 'bottom: "Rconv5"', "nothing writes its input 'Rconv5'"),
        ('bottom: "conv4_1"', 'bottom: "conv4_1" bottom: "Rconv6"', "2 inputs, expected one"),
        ("dim: 96", "dim: 95", "Rconv6.*input of shape"),
        ("dim: 96", "dim: -96", "expected positive extents"),
        ("force_backward", "force_backwards", "force_backwards of the network is not known"),
        ("negative_slope: 0.3", "negative_slope: ", "expected a prototxt"),
        ("negative_slope: 0.3", "negative_slope: {", "expected a prototxt"),
    ],
)
def test_what_would_change_the_result_is_refused(old, new, words):
    with pytest.raises(CheckpointError, match=words):
        networks(NORM1, changed("norm1", (old, new)))


def test_a_layer_that_the_model_lacks_is_named():
    with pytest.raises(CheckpointError, match=r"layer conv3_1 \(Deconvolution\): no weights for it in the source"):
        weights = read_caffe(DATA / "fc8.caffemodel").weights
        networks(named_only({k: v for k, v in weights.items() if not k.startswith("conv3_1")}), changed("fc8"))


def test_a_prototxt_decides_the_stride_and_says_so():
    text = changed("norm1", (block_of("norm1", "Rconv8"), block_of("norm1", "Rconv8").replace("pad: 1", "pad: 2")))
    (network,) = networks(NORM1, text)
    assert network.notes == ("Rconv8: padding 2, the release has 1",)
    assert next(entry for entry in network.layers if entry.name == "Rconv8").padding == 2


def test_a_bias_that_is_switched_off_is_zero():
    weights = read_caffe(DATA / "fc8.caffemodel").weights
    model = named_only({k: v for k, v in weights.items() if not k.startswith("deconv1.")})
    model += layer("deconv1", blobs=[blob(weights["deconv1.weight"])])
    old = block_of("fc8", "deconv1")
    text = changed("fc8", (old, old.replace("num_output: 1", "num_output: 1 bias_term: false")))
    (network,) = networks(model, text)
    assert network.weights["deconv1.bias"].tolist() == [0.0]
    with pytest.raises(CheckpointError, match=r"layer deconv1 has 2 blobs, expected a weight \(bias_term is false\)"):
        networks(FC8, text)
    with pytest.raises(CheckpointError, match="layer deconv1 has 1 blobs, expected a weight and a bias"):
        networks(model, changed("fc8"))


def test_a_transposed_fully_connected_layer_is_turned():
    weights = read_caffe(DATA / "fc8.caffemodel").weights
    weights["defc7.weight"] = np.ascontiguousarray(weights["defc7.weight"].T)
    old = block_of("fc8", "defc7")
    text = changed("fc8", (old, old.replace("num_output: 64", "num_output: 64 transpose: true")))
    (network,), (whole,) = networks(named_only(weights), text), networks(FC8, changed("fc8"))
    assert (network.weights["defc7.weight"] == whole.weights["defc7.weight"]).all()


@pytest.mark.parametrize(
    "shape", ["dim: 0 dim: -1 dim: 4 dim: 4", "dim: 1 dim: 4 dim: 4 dim: 4", "dim: -1 dim: 4 dim: 4 dim: 4"]
)
def test_a_reshape_may_name_the_batch_or_leave_one_extent_open(shape):
    old = block_of("fc8", "reshape")
    text = changed("fc8", (old, re.sub(r"dim.*dim: 4\n", shape, old, flags=re.DOTALL)))
    (network,) = networks(FC8, text)
    assert next(entry for entry in network.layers if entry.kind == "reshape").shape == (4, 4, 4)


def test_a_reshape_to_something_else_is_refused():
    old = block_of("fc8", "reshape")
    with pytest.raises(CheckpointError, match=r"reshape \(Reshape\): shape \(0, 4, 16\)"):
        networks(FC8, changed("fc8", (old, re.sub(r"dim.*dim: 4\n", "dim: 0 dim: 4 dim: 16", old, flags=re.DOTALL))))


def test_a_voxel_generator_asks_for_the_name_of_what_it_inverts():
    weights = read_caffe(DATA / "fc8.caffemodel").weights
    weights["defc7.weight"] = np.ones((64, 37), np.float32)
    text = changed("fc8", ("dim: 1000", "dim: 37"))
    with pytest.raises(UsageError, match="--layer: missing"):
        networks(named_only(weights), text)
    (network,) = networks(named_only(weights), text, layer="voxels")
    assert (network.name, network.input_shape, network.layers[0].inputs) == ("voxels", (37,), 37)


def test_only_the_networks_of_the_prototxt_are_taken():
    encoder = (DATA / "encoder256.caffemodel").read_bytes()
    assert [network.role for network in networks(NORM1 + encoder, changed("norm1"))] == ["generator"]


def test_layers_of_another_phase_give_way_to_those_in_use():
    training = (
        'layer { name: "%s" type: "Power" bottom: "%s" top: "%s" include { phase: TRAIN } power_param { scale: 2 } }\n'
    )
    text = changed(
        "norm1", (block_of("norm1", "Rrelu6"), training % ("Rrelu6", "Rconv6", "Rconv6") + block_of("norm1", "Rrelu6"))
    )
    (network,) = networks(NORM1, text)
    assert network.notes == ()


OF_2013 = """
name: "tiny" input: "data" input_dim: 10 input_dim: 3 input_dim: 227 input_dim: 227
layers { layer { name: "conv1" type: "conv" num_output: 4 kernelsize: 11 stride: 4
  weight_filler { type: "gaussian" std: 0.01 } blobs_lr: 1. blobs_lr: 2. } bottom: "data" top: "conv1" }
layers { layer { name: "relu1" type: "relu" } bottom: "conv1" top: "conv1" }
layers { layer { name: "pool1" type: "pool" pool: MAX kernelsize: 3 stride: 2 } bottom: "conv1" top: "pool1" }
layers { layer { name: "norm1" type: "lrn" local_size: 5 alpha: 0.0001 beta: 0.75 } bottom: "pool1" top: "norm1" }
layers { layer { name: "pad2" type: "padding" pad: 2 } bottom: "norm1" top: "pad2" }
layers { layer { name: "conv2" type: "conv" num_output: 8 group: 2 kernelsize: 5 } bottom: "pad2" top: "conv2" }
layers { layer { name: "relu2" type: "relu" } bottom: "conv2" top: "conv2" }
"""


def test_a_prototxt_of_2013_has_layers_of_padding():
    shapes = {"conv1.weight": (4, 3, 11, 11), "conv1.bias": (4,), "conv2.weight": (8, 2, 5, 5), "conv2.bias": (8,)}
    model = named_only({name: np.ones(shape, np.float32) for name, shape in shapes.items()})
    (network,) = networks(model, OF_2013.encode())
    known = [(entry.name, entry.kind, entry.padding, entry.groups) for entry in CAFFENET.layers[:4]]
    assert [(entry.name, entry.kind, entry.padding, entry.groups) for entry in network.layers] == known
    assert (network.input_shape, network.notes) == ((3, 227, 227), ("ends at conv2, as x.prototxt says",))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"name: 'x'",
        b"layer {",
        b"layer { name: 'a' } layers { name: 'b' }",
        b"layer " + b"{ x " * 5000,
        b"\xff\xfe",
        b"layer { name: 5 }",
        b"layer { convolution_param { num_output: 99999999999999999999 } }",
        b"layers { type: NOT_A_TYPE }",
        b"layer {} " * 20_000,
        b"#" * (1 << 21),
    ],
)
def test_what_is_no_network_is_refused(text):
    with pytest.raises(CheckpointError, match=r"^x\.prototxt: .*expected"):
        read_prototxt(text, "x.prototxt")
