"""The ONNX graphs compute what the numpy reference computes, and hold no node that is not needed."""

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest

from deepsim.export.onnx_from_layers import encoder_onnx, generator_onnx
from deepsim.kernels import reference
from deepsim.kernels.layers import Layer, shapes
from deepsim.runtime.errors import CheckpointError, NumericError, UsageError
from deepsim.runtime.generators import GeneratorSpec, generator_spec
from deepsim.runtime.geometry import CAFFE_FRAMING, Geometry, enlarged
from deepsim.runtime.networks import ALEXNET, CAFFENET, EncoderSpec
from deepsim.runtime.pixels import CAFFE_PIXELS, IMAGENET_PIXELS, rounded


def random_weights(layers, seed=0, gain=1.5):
    """He-like random weights with non-zero biases, so that a lost bias or a wrong channel order shows."""
    rng = np.random.default_rng(seed)
    weights = {}
    for layer in layers:
        if layer.has_weights:
            shape = layer.weight_shape
            fan_in = np.prod(shape[1:]) if layer.kind != "deconv" else shape[0] * (layer.kernel / layer.stride) ** 2
            weights[f"{layer.name}.weight"] = rng.normal(0, gain / np.sqrt(fan_in), shape).astype(np.float32)
            weights[f"{layer.name}.bias"] = rng.normal(0, 0.3, layer.outputs).astype(np.float32)
    return weights


def session(data):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def float64(weights):
    return {name: value.astype(np.float64) for name, value in weights.items()}


def geometry(spec):
    return Geometry.central(CAFFE_FRAMING, spec.output_size)


def tiny_encoder(pixels):
    layers = (
        Layer("conv1", "conv", 3, 4, 11, stride=8, activation="relu"),
        Layer("pool1", "pool", kernel=3, stride=2, ceil_mode=True),
        Layer("norm1", "lrn"),
        Layer("conv2", "conv", 4, 6, 5, padding=2, groups=2, activation="relu"),
        Layer("pool2", "pool", kernel=3, stride=2),
        Layer("fc6", "fc", 6 * 6 * 6, 5, activation="relu"),
        Layer("fc7", "fc", 5, 7),
    )
    return EncoderSpec("tiny", layers, pixels, CAFFE_FRAMING)


def tiny_generator(pixels, tanh=False):
    last = (
        Layer("last", "conv", 2, 3, 3, 1, 1, activation="tanh255") if tanh else Layer("last", "deconv", 2, 3, 4, 2, 1)
    )
    layers = (
        Layer("fc", "fc", 5, 3 * 15 * 15, activation="lrelu"),
        Layer("reshape", "reshape", shape=(3, 15, 15)),
        Layer("up3", "deconv", 3, 4, 4, 2, 1, activation="lrelu"),
        Layer("same3", "deconv", 4, 4, 3, 1, 1, activation="lrelu"),
        Layer("up2", "deconv", 4, 4, 4, 2, 1, activation="lrelu"),
        Layer("up1", "deconv", 4, 4, 4, 2, 1, activation="lrelu"),
        Layer("up0", "deconv", 4, 2, 4, 2, 1, activation="none") if tanh else Layer("up0", "conv", 4, 2, 1),
        last,
    )
    return GeneratorSpec("tiny", (5,), layers, pixels)


@pytest.mark.parametrize("layer", ["conv1", "norm1", "conv2", "fc6", "fc7"])
@pytest.mark.parametrize("pixels", [CAFFE_PIXELS, IMAGENET_PIXELS], ids=["caffe", "imagenet"])
def test_encoder_equals_reference(pixels, layer):
    spec = tiny_encoder(pixels)
    weights = random_weights(spec.layers)
    images = np.random.default_rng(1).integers(0, 256, (3, 227, 227, 3), np.uint8)
    expected = reference.apply_layers(spec.up_to(layer), pixels.to_network(images).astype(np.float64), float64(weights))
    run = session(encoder_onnx(spec, layer, weights))
    for batch in (1, 3):
        (found,) = run.run(None, {"image": images[:batch]})
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected[:batch], rtol=1e-5, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("tanh", [False, True])
@pytest.mark.parametrize("pixels", [CAFFE_PIXELS, IMAGENET_PIXELS], ids=["caffe", "imagenet"])
def test_generator_equals_reference(pixels, tanh):
    spec = tiny_generator(pixels, tanh)
    assert spec.output_size == 240
    weights = random_weights(spec.layers, gain=1.0 if tanh else 3.0 * (20 if pixels is CAFFE_PIXELS else 1) ** 0.2)
    features = np.random.default_rng(1).normal(0, 1, (3, 5)).astype(np.float32)
    network = reference.apply_layers(spec.layers, features.astype(np.float64), float64(weights))
    expected = pixels.to_pixels(network)
    assert expected.std() > 20
    run = session(generator_onnx(spec, geometry(spec), weights))
    for batch in (1, 3):
        image, full = run.run(["image", "image_full"], {"features": features[:batch]})
        assert image.dtype == full.dtype == np.uint8
        difference = np.abs(full.astype(int) - expected[:batch].astype(int))
        assert difference.max() <= 1 and difference.mean() < 1e-3  # ties of the rounding only
        np.testing.assert_array_equal(image, geometry(spec).crop(full))


@pytest.mark.parametrize("pixels", [CAFFE_PIXELS, IMAGENET_PIXELS], ids=["caffe", "imagenet"])
def test_a_generator_of_smaller_images_enlarges_them_as_the_runtime_does(pixels):
    layers = (
        Layer("up1", "deconv", 5, 4, 5, 2, 2, output_padding=1, activation="lrelu0.2"),
        Layer("up0", "deconv", 4, 3, 5, 2, 2, output_padding=1),
    )
    spec = GeneratorSpec("tiny", (5, 9, 9), layers, pixels)
    weights = random_weights(layers, gain=60.0 if pixels is CAFFE_PIXELS else 1.5)
    features = np.random.default_rng(1).normal(0, 1, (2, 5, 9, 9)).astype(np.float32)
    levels = pixels.to_levels(reference.apply_layers(layers, features.astype(np.float64), float64(weights)))
    expected = rounded(enlarged(levels.astype(np.float32), 227))
    assert expected.std() > 20
    where = Geometry.between(CAFFE_FRAMING, spec.output_size)
    image, full = session(generator_onnx(spec, where, weights)).run(["image", "image_full"], {"features": features})
    assert image.shape == (2, 227, 227, 3) and full.shape == (2, 36, 36, 3)
    for found, wanted in ((image, expected), (full, rounded(levels))):
        difference = np.abs(found.astype(int) - wanted)
        assert difference.max() <= 1 and difference.mean() < 2e-3  # ties of the rounding only


@pytest.mark.parametrize("full", [1, 5, 128, 192, 201, 226])
def test_an_enlarged_image_has_the_photographs_side_whatever_its_own(full):
    spec = GeneratorSpec("tiny", (2, full, full), (Layer("last", "conv", 2, 3, 1),), IMAGENET_PIXELS)
    data = generator_onnx(spec, Geometry.between(CAFFE_FRAMING, full), random_weights(spec.layers))
    image, whole = session(data).run(["image", "image_full"], {"features": np.ones((1, *spec.input_shape), np.float32)})
    assert image.shape == (1, 227, 227, 3) and whole.shape == (1, full, full, 3)
    np.testing.assert_array_equal(image[0, 3, 5], whole[0, 0, 0])


CAFFENET_OPS = {
    "norm2": "Cast Transpose Sub Conv Relu MaxPool LRN Conv Relu MaxPool LRN",
    "pool5": "Cast Transpose Sub Conv Relu MaxPool LRN Conv Relu MaxPool LRN Conv Relu Conv Relu Conv Relu MaxPool",
}
PIXELS_OUT = Counter(["Add", "Round", "Clip", "Transpose", "Slice", "Cast", "Cast"])


def ops(data):
    return Counter(node.op_type for node in onnx.load_from_string(data).graph.node)


@pytest.mark.parametrize("layer", CAFFENET_OPS)
def test_encoder_holds_these_nodes_and_no_other(layer):
    data = encoder_onnx(CAFFENET, layer, zeros(CAFFENET.up_to(layer)))
    assert [node.op_type for node in onnx.load_from_string(data).graph.node] == CAFFENET_OPS[layer].split()


def test_fully_connected_layers_flatten_once():
    spec = tiny_encoder(CAFFE_PIXELS)
    data = encoder_onnx(spec, "fc7", zeros(spec.layers))
    nodes = [node.op_type for node in onnx.load_from_string(data).graph.node]
    assert nodes[-4:] == ["Flatten", "Gemm", "Relu", "Gemm"]


def test_alexnet_scales_its_pixels():
    data = encoder_onnx(ALEXNET, "conv3", zeros(ALEXNET.up_to("conv3")))
    expected = "Cast Transpose Sub Mul Conv Relu MaxPool Conv Relu MaxPool Conv Relu"
    assert [node.op_type for node in onnx.load_from_string(data).graph.node] == expected.split()


def zeros(layers):
    weights = {}
    for layer in layers:
        if layer.has_weights:
            weights[f"{layer.name}.weight"] = np.zeros(layer.weight_shape, np.float16)
            weights[f"{layer.name}.bias"] = np.zeros(layer.outputs, np.float16)
    return weights


WEIGHTED = {  # layer: Gemm, Conv, ConvTranspose
    **dict.fromkeys(("norm1", "norm2"), (0, 7, 4)),
    **dict.fromkeys(("conv3", "conv4"), (0, 8, 5)),
    "pool5": (0, 6, 6),
    **dict.fromkeys(("fc6", "fc7", "fc8"), (3, 3, 6)),
}


@pytest.mark.parametrize("layer", WEIGHTED)
def test_generator_holds_these_nodes_and_no_other(layer):
    gemm, conv, deconv = WEIGHTED[layer]
    spec = generator_spec(layer, width=0.125)  # the same layers, and quicker
    tanh = layer.startswith(("norm", "conv"))
    linear = 2 if layer.startswith("norm") else 1  # the image layer, and deconv1 of the norm networks
    expected = PIXELS_OUT + Counter(Gemm=gemm, Conv=conv, ConvTranspose=deconv, LeakyRelu=gemm + conv + deconv - linear)
    expected += Counter(Reshape=int(gemm > 0), Tanh=int(tanh), Mul=int(tanh))
    assert ops(generator_onnx(spec, geometry(spec), zeros(spec.layers))) == expected
    casts = Counter(Cast=2)  # features to half, the last convolution's output to float32
    assert ops(generator_onnx(spec, geometry(spec), zeros(spec.layers), "fp16")) == expected + casts


def test_names_are_the_tables_and_nothing_tells_of_the_machine():
    spec = generator_spec("norm2")
    data = generator_onnx(spec, geometry(spec), zeros(spec.layers), metadata={"step": "200"})
    model = onnx.load_from_string(data)
    assert {layer.name for layer in spec.layers} <= {node.name for node in model.graph.node}
    assert [(prop.key, prop.value) for prop in model.metadata_props] == [("step", "200")]
    assert not any(node.doc_string or node.metadata_props for node in model.graph.node)
    assert model.ir_version <= 10 and model.producer_name == "deepsim"
    assert b"/tmp" not in data and b"/home" not in data
    assert data == generator_onnx(spec, geometry(spec), zeros(spec.layers), metadata={"step": "200"})


def test_fp16_types():
    """Weights are half, LRN and everything after the last convolution float32, features float32."""
    spec = tiny_encoder(CAFFE_PIXELS)
    model = onnx.load_from_string(encoder_onnx(spec, "fc7", random_weights(spec.layers), "fp16"))
    assert {tensor.data_type for tensor in model.graph.initializer} == {onnx.TensorProto.FLOAT16}
    types = {
        info.name: info.type.tensor_type.elem_type for info in onnx.shape_inference.infer_shapes(model).graph.value_info
    }
    assert types["norm1"] == onnx.TensorProto.FLOAT
    assert {types[name] for name in ("conv1", "pool1", "conv2", "fc6", "fc7", "pixels/centred")} == {
        onnx.TensorProto.FLOAT16
    }
    island = encoder_onnx(spec, "fc7", random_weights(spec.layers), "fp16", fp32_layers=frozenset({"conv2"}))
    model = onnx.load_from_string(island)
    assert {t.name for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT} == {
        "conv2.weight",
        "conv2.bias",
    }
    casts = [node.name for node in model.graph.node if node.op_type == "Cast"]
    assert casts == ["pixels", "pool1/fp32", "fc6/in", "fc7/fp32"]  # LRN and conv2 share one island


def test_imagenet_pixels_are_centred_in_float32():
    spec = tiny_encoder(IMAGENET_PIXELS)
    model = onnx.load_from_string(encoder_onnx(spec, "conv1", random_weights(spec.layers), "fp16"))
    single = {t.name for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT}
    assert single == {"pixels/mean", "pixels/scale"}


@pytest.mark.parametrize("fault", ["missing", "shape", "precision", "overflow", "nan", "layer", "grouped"])
def test_refuses(fault):
    spec = tiny_encoder(CAFFE_PIXELS)
    weights, precision, layer, error = random_weights(spec.layers), "fp16", "fc7", CheckpointError
    if fault == "missing":
        del weights["conv2.bias"]
    elif fault == "shape":
        weights["conv2.weight"] = weights["conv2.weight"][:, :1]
    elif fault == "precision":
        precision, error = "int8", UsageError
    elif fault == "overflow":
        weights["fc6.weight"][0, 0], error = 7e4, NumericError
    elif fault == "nan":
        weights["fc6.bias"][0], error = np.nan, NumericError
    elif fault == "layer":
        layer, error = "conv9", UsageError
    else:
        grouped = Layer("conv1", "conv", 3, 3, 11, stride=8, groups=3, activation="relu")
        spec, error = EncoderSpec("grouped", (grouped,), CAFFE_PIXELS, CAFFE_FRAMING), UsageError
        weights, layer = random_weights(spec.layers), "conv1"
    with pytest.raises(error):
        encoder_onnx(spec, layer, weights, precision)


def test_generator_shapes_agree_with_the_table():
    """Shape inference in the checker compares with the table's shapes; a wrong pad would not pass."""
    spec = generator_spec("norm2")
    data = generator_onnx(spec, geometry(spec), zeros(spec.layers))
    model = onnx.shape_inference.infer_shapes(onnx.load_from_string(data))
    found = {
        info.name: tuple(d.dim_value for d in info.type.tensor_type.shape.dim)[1:] for info in model.graph.value_info
    }
    for layer, shape in zip(spec.layers, shapes(spec.layers, spec.input_shape), strict=True):
        assert found[layer.name] == shape


def test_an_activation_follows_layers_without_weights_too():
    layers = (
        Layer("conv1", "conv", 3, 8, 11, 8),
        Layer("pool1", "pool", kernel=3, stride=2, activation="relu"),
        Layer("norm1", "lrn", activation="lrelu"),
        Layer("up1", "deconv", 8, 4, 4, 2, 1, 2),
    )
    spec = EncoderSpec("tiny", layers, IMAGENET_PIXELS, CAFFE_FRAMING)
    weights = random_weights(layers)
    images = np.random.default_rng(1).integers(0, 256, (2, 227, 227, 3), np.uint8)
    expected = reference.apply_layers(layers, IMAGENET_PIXELS.to_network(images).astype(np.float64), float64(weights))
    (found,) = session(encoder_onnx(spec, "up1", weights)).run(None, {"image": images})
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
