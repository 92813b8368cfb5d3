"""Caffe models: what Caffe accepts without a word is refused by name, and what it aborts on is refused too."""

import re
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from deepsim.export.published import caffe_model
from deepsim.export.published.caffe_files import caffe_format, read_bytes, read_caffe
from deepsim.export.published.caffe_schema import message_class
from deepsim.runtime.errors import CheckpointError, UsageError
from deepsim.runtime.networks import CAFFENET
from tests.export.published.caffe_messages import (
    blob,
    block,
    layer,
    legacy_blob,
    named_only,
    number,
    real,
    v0_layer,
    varint,
)

DATA = Path(__file__).resolve().parents[2] / "data/caffe"
NORM1 = (DATA / "norm1.caffemodel").read_bytes()


def layers_in(data):
    """Cut a model into its fields: [(field, bytes)]."""
    from deepsim.export.published.wire import fields

    return [(field, data[field.start : field.end]) for field in fields(memoryview(data))]


def without(data, *names):
    return b"".join(part for _, part in layers_in(data) if not any(n.encode() in part[:24] for n in names))


def refusal(data, *words, prototxt=None, layer=None):
    with pytest.raises(CheckpointError) as caught:
        read_bytes(data, "x.caffemodel", prototxt).networks(layer)
    message = str(caught.value)
    assert all(word in message for word in words), message
    return message


def test_models_are_told_by_content():
    assert caffe_format(NORM1) == "model"
    assert caffe_format((DATA / "norm1.prototxt").read_bytes()) == "prototxt"
    assert caffe_format(b"\x89HDF\r\n\x1a\n") == "hdf5"
    assert caffe_format(b"PK\x03\x04 a zip") is None and caffe_format(b"") is None


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", ("is empty",)),
        (block(1, "CaffeNet"), ("holds no layers",)),
        ((DATA / "mean.binaryproto").read_bytes(), ("single blob", "mean image")),
        ((DATA / "norm1.prototxt").read_bytes(), ("a prototxt",)),
        (b"PK\x03\x04" + bytes(60), ("no Caffe model",)),
        (layer("relu", "ReLU", ["a"], ["a"]), ("1 layers without weights",)),
        (layer("a") + block(2, block(4, "b")), ("of 2014 and of today",)),
        (layer("fc6", blobs=[block(5, bytes(8))]), ("layer fc6, blob 0", "has no shape")),
        (layer("fc6", blobs=[blob([1, 2], (3,))]), ("layer fc6, blob 0", "shape (3,) for 2 numbers")),
        (layer("fc6", blobs=[blob([1, 2], (1, 2, 0))]), ("shape (1, 2, 0)",)),
        (layer("fc6", blobs=[number(4, 2) + block(5, bytes(8))]), ("shape (0, 0, 0, 2)",)),
        (layer("fc6", blobs=[blob([1, 2])[:-1] + block(5, bytes(3))]), ("layer fc6, blob 0",)),
        (layer("fc6", blobs=[blob([1])]) + layer("fc6", blobs=[blob([1])] * 2), ("layer fc6 has 1 blobs and 2",)),
        (layer("other", blobs=[blob([1])]), ("layers other", "expected those of CaffeNet")),
    ],
)
def test_what_is_no_whole_model_is_refused(data, words):
    refusal(data, "x.caffemodel", *words)


@pytest.mark.parametrize("name", ["Rconv6", "deconv3", "conv1_1"])
def test_a_missing_layer_is_named(name):
    refusal(without(NORM1, name), f"no {name}.weight", "generator, the nearest known network")


def test_a_file_cut_between_any_two_layers_is_refused():
    places = [field.start for field, _ in layers_in(NORM1)]
    assert len(places) > 20
    for place in places:
        refusal(NORM1[:place], "x.caffemodel")


def test_a_file_that_lost_its_tanh_is_refused():
    refusal(without(NORM1, "scale255"), "tanh", "scale 255")
    refusal(without(NORM1, "scale255", "tanh"), "conv1_1", "tanh255", "prototxt")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_weight_that_is_not_finite_is_refused_with_its_layer(value):
    weights = fc8(lambda w: w.update({"deconv2.weight": w["deconv2.weight"].copy()}))
    weights["deconv2.weight"].flat[5] = value
    refusal(named_only(weights), "deconv2.weight is not finite")


def test_doubles_beyond_float32_are_refused():
    weights = fc8(lambda w: None)
    doubles = np.full(weights["deconv1.weight"].shape, 1e300)
    weight = block(7, block(1, bytes(doubles.shape))) + block(8, doubles.tobytes())
    data = named_only(weights) + layer("deconv1", blobs=[weight, blob(weights["deconv1.bias"])])
    refusal(data, "deconv1.weight is not finite in float32")


def fc8(change):
    """Return a named-only fc8 generator with a change to its arrays."""
    (network,) = read_caffe(DATA / "fc8.caffemodel").networks()
    weights = dict(network.weights)
    change(weights)
    return weights


def test_layers_with_names_alone_take_the_table():
    weights = fc8(lambda weights: None)
    (network,) = read_bytes(named_only(weights), "x").networks()
    (whole,) = read_caffe(DATA / "fc8.caffemodel").networks()
    assert network.layers == whole.layers
    assert all((network.weights[name] == value).all() for name, value in whole.weights.items())


def test_a_wrong_shape_is_named():
    refusal(named_only(fc8(lambda w: w.update({"defc6.weight": w["defc6.weight"][:, 1:]}))), "layer defc6")
    refusal(named_only(fc8(lambda w: w.update({"deconv3.bias": np.zeros(3)}))), "deconv3.bias", "(3,)", "(2,)")
    four_axes = named_only(fc8(lambda w: w.update({"defc6.weight": w["defc6.weight"][None, None]})))
    refusal(four_axes, "defc6.weight", "(1, 1, 64, 64)")


def legacy(values):
    """Write an array with four extents, the first ones 1."""
    return legacy_blob(values, (1,) * (4 - values.ndim) + values.shape)


def test_legacy_extents_of_a_fully_connected_layer_are_those_of_today():
    weights = fc8(lambda weights: None)
    names = dict.fromkeys(key.partition(".")[0] for key in weights)
    data = b"".join(layer(n, blobs=[legacy(weights[f"{n}.weight"]), legacy(weights[f"{n}.bias"])]) for n in names)
    (network,) = read_bytes(data, "x").networks()
    assert all((network.weights[name] == value).all() for name, value in weights.items())


def test_a_wrong_number_of_blobs_is_refused():
    weights = fc8(lambda weights: None)
    data = named_only({k: v for k, v in weights.items() if not k.startswith("deconv1.")})
    for blobs in ([blob(weights["deconv1.weight"])], [blob(weights["deconv1.weight"])] + [blob([0.0])] * 2):
        refusal(data + layer("deconv1", blobs=blobs), "layer deconv1", f"{len(blobs)} blobs", "a weight and a bias")


def test_of_a_repeated_name_the_last_counts():
    weights = fc8(lambda weights: None)
    other = {"deconv1.weight": weights["deconv1.weight"] + 1, "deconv1.bias": weights["deconv1.bias"] - 1}
    (network,) = read_bytes(named_only(weights) + named_only(other), "x").networks()
    assert (network.weights["deconv1.weight"] == other["deconv1.weight"]).all()
    assert (network.weights["deconv1.bias"] == other["deconv1.bias"]).all()


def test_mixed_chunks_are_joined_in_their_order():
    values = np.arange(6, dtype=np.float32)
    chunks = block(5, values[:2].tobytes()) + real(5, 2) + real(5, 3) + block(5, b"") + block(5, values[4:].tobytes())
    found = caffe_model.read_blob(memoryview(block(7, block(1, b"\x02") + number(1, 3)) + chunks))
    assert found.values.tolist() == values.reshape(2, 3).tolist()


def test_double_data_goes_before_data_and_legacy_extents_before_a_shape():
    data = blob([7, 7, 7]) + block(8, np.array([1.0, 2, 3]).tobytes()) + number(4, 3) + number(3, 1)
    with pytest.raises(ValueError, match=re.escape("shape (0, 0, 1, 3) for 3 numbers")):
        caffe_model.read_blob(memoryview(data))
    found = caffe_model.read_blob(memoryview(data + number(1, 1) + number(2, 1)))
    assert found.legacy and found.values.tolist() == [[[[1, 2, 3]]]]


def v0_encoder():
    """Write a narrow CaffeNet of 2013, whose paddings are layers; return it with its weights."""
    rng, before, inputs, data, weights = np.random.default_rng(0), "data", 3, b"", {}
    counts = {"conv1": 4, "conv2": 8, "conv3": 8, "conv4": 8, "conv5": 8, "fc6": 16, "fc7": 16, "fc8": 10}
    for entry in CAFFENET.layers:
        if entry.kind == "pool":
            settings = number(8, entry.kernel) + number(10, entry.stride)
            data += v0_layer(entry.name, "pool", before, entry.name, settings=settings)
        elif entry.kind == "lrn":
            settings = number(13, 5) + real(14, 1e-4) + real(15, 0.75)
            data += v0_layer(entry.name, "lrn", before, entry.name, settings=settings)
        else:
            outputs, kernel, kind = counts[entry.name], entry.kernel, "conv" if entry.kind == "conv" else "innerproduct"
            units = inputs * 36 if entry.name == "fc6" else inputs
            shape = (outputs, inputs // entry.groups, kernel, kernel) if kind == "conv" else (outputs, units)
            weight, bias = (rng.normal(size=size).astype(np.float32) for size in (shape, outputs))
            weights |= {f"{entry.name}.weight": weight, f"{entry.name}.bias": bias}
            if entry.padding:
                settings = number(7, entry.padding)
                data += v0_layer("pad_" + entry.name, "padding", before, before + "_padded", settings=settings)
                before += "_padded"
            settings = number(3, outputs)
            if kind == "conv":
                settings += number(8, kernel) + number(9, entry.groups) + number(10, entry.stride)
            data += v0_layer(entry.name, kind, before, entry.name, [legacy(weight), legacy(bias)], settings)
            inputs = outputs
            if entry.activation == "relu":
                data += v0_layer("relu_" + entry.name, "relu", entry.name, entry.name)
        before = entry.name
    return data, weights


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (real(5, 1) + number(900, 1) + real(5, 2), "field 900, of wire type 0, among its numbers"),
        (real(5, 1) + varint(4 << 3 | 5) + bytes(4) + real(5, 2), "field 4, of wire type 5, among its numbers"),
        (real(5, 1) + real(5, 2) + number(5, 1), "field 5 has wire type 0"),
        (block(5, bytes(8)) + block(6, bytes(4)), "1 numbers in diff for 2"),
        (block(5, bytes(8)) + block(6, bytes(7)), "7 bytes, expected a multiple of 4"),
    ],
)
def test_what_only_damage_puts_among_numbers_is_refused(content, words):
    with pytest.raises(ValueError, match=words):
        caffe_model.read_blob(memoryview(block(7, block(1, b"\x02")) + content))


def test_unknown_fields_beside_the_numbers_are_skipped():
    content = number(900, 1) + block(7, block(1, b"\x02")) + real(5, 1) + number(4, 2) + real(5, 2) + real(901, 1)
    legacy = number(1, 1) + number(2, 1) + number(3, 1)
    assert caffe_model.read_blob(memoryview(content + legacy)).values.ravel().tolist() == [1, 2]


def test_layers_of_2013_with_their_paddings_are_read():
    data, weights = v0_encoder()
    files = read_bytes(data, "caffe_reference_imagenet_model")
    (network,) = files.networks()
    assert files.sources[0].format == "Caffe model (V0 layers)"
    assert (network.name, network.input_shape, network.notes) == ("caffenet", (3, 227, 227), ())
    assert [(e.name, e.kind, e.padding, e.groups, e.activation) for e in network.layers] == [
        (e.name, e.kind, e.padding, e.groups, e.activation) for e in CAFFENET.layers
    ]
    assert network.weights.keys() == weights.keys()
    assert all((network.weights[name] == value).all() for name, value in weights.items())


def test_a_file_beyond_the_limit_of_protobuf_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr("deepsim.export.published.caffe_files.LIMIT", 1000)
    (tmp_path / "big.caffemodel").write_bytes(NORM1)
    with pytest.raises(CheckpointError, match=r"44,092 bytes, expected at most 1,000, the limit of protobuf\.$"):
        read_caffe(tmp_path / "big.caffemodel")


def test_many_tiny_layers_and_chunks_are_refused_before_they_fill_the_memory(monkeypatch):
    monkeypatch.setattr(caffe_model, "MOST_LAYERS", 100)
    monkeypatch.setattr("deepsim.export.published.wire._MOST", 200)
    refusal(layer("a") * 101, "101 layers, expected at most 100")
    refusal(layer("fc6", blobs=[block(5, b"") * 201]), "more than 200 fields 5")


def test_the_question_of_the_layer_is_asked():
    weights = {
        "defc7.weight": np.zeros((64, 4096), np.float32),
        **{k: v for k, v in fc8(lambda w: None).items() if k != "defc7.weight"},
    }
    files = read_bytes(named_only(weights), "generator.caffemodel")
    with pytest.raises(UsageError, match=r"^--layer: missing, expected fc6 or fc7: generator\.caffemodel fits each"):
        files.networks()
    (network,) = files.networks(layer="fc7")
    assert network.name == "fc7" and "as told" in network.notes[0]
    with pytest.raises(UsageError, match="--layer fc8"):
        files.networks(layer="fc8")


@pytest.mark.parametrize("packed", [True, False])
def test_reading_takes_the_memory_of_the_file_and_of_its_weights(packed):
    values = np.ones(1 << 20, np.float32)
    if packed:
        numbers = block(5, values.tobytes())
    else:
        rows = np.full((len(values), 5), 5 << 3 | 5, np.uint8)
        rows[:, 1:] = values.view(np.uint8).reshape(-1, 4)
        numbers = rows.tobytes()
    shape = block(7, block(1, b"\x80\x08\x80\x08"))
    data = layer("fc6", "InnerProduct", ["a"], ["b"], [shape + numbers, blob(np.ones(1024))])
    message_class("Net")
    tracemalloc.start()
    model = caffe_model.read_model(data, "x")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert model.blobs["fc6"][0].values.shape == (1024, 1024)
    assert peak < 1.1 * len(data) + (1 << 18), "beside the file itself"
