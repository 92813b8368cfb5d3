"""Graphs of any module: they compute what PyTorch does, and hold nothing of the machine that wrote them."""

import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
torch = pytest.importorskip("torch")

from deepsim.export import module_onnx  # noqa: E402
from deepsim.export.calibration import calibration_images  # noqa: E402
from deepsim.export.module_onnx import module_encoder_onnx  # noqa: E402
from deepsim.export.torch_networks import encode_with_module  # noqa: E402
from deepsim.export.verify import ENCODER_RELATIVE, compare_features, run_encoder  # noqa: E402
from deepsim.runtime.errors import DeviceError, NumericError, UsageError  # noqa: E402
from deepsim.train.batch_norm_folding import batch_norms  # noqa: E402
from deepsim.train.module_encoders import build_module_encoder  # noqa: E402
from deepsim.train.module_preprocessing import PreprocessingOptions  # noqa: E402
from deepsim.train.module_references import parse  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
HERE = "tests.train.modules"
slow = pytest.mark.slow
MODELS = [
    pytest.param("torchvision:resnet18@layer1", 64, marks=slow),
    ("timm:vit_tiny_patch16_224@blocks.0", 64),
    pytest.param("torchvision:mobilenet_v2@features.7", 64, marks=slow),
    pytest.param("torchvision:densenet121@features.denseblock2", 64, marks=slow),
    pytest.param("torchvision:inception_v3@Mixed_5d", 128, marks=slow),
    pytest.param("torchvision:vit_b_32@encoder.layers.encoder_layer_0", None, marks=slow),
    pytest.param("torchvision:swin_t@features.1", None, marks=slow),
    pytest.param("timm:tf_efficientnet_lite0@blocks.4", None, marks=slow),
    pytest.param("timm:swin_tiny_patch4_window7_224@layers.1", None, marks=slow),
    pytest.param("timm:convnext_atto@stages.2", None, marks=slow),
]


def build(reference, side=None, seed=0):
    if reference.startswith("timm"):
        pytest.importorskip("timm")
    return build_module_encoder(parse(reference), seed=seed, options=PreprocessingOptions(side=side))


@pytest.fixture(scope="module")
def net():
    return build(f"{HERE}:net@conv2")


@pytest.fixture(scope="module")
def graph(net):
    return module_encoder_onnx(net, {"deepsim.layer": "conv2"})


def images_of(encoder, count=3):
    return calibration_images(count, encoder.preprocessing.framing.side)


def error_of(encoder, graph, images):
    """Return the graph's relative error against PyTorch; batch 1 and the whole batch agree."""
    return compare_features(run_encoder(graph, images), encode_with_module(encoder, images))["relative_error"]


def operators(graph):
    return Counter(node.op_type for node in onnx.load_from_string(graph).graph.node)


def test_the_graph_agrees_with_pytorch(net, graph):
    assert error_of(net, graph, images_of(net)) < 1e-5


@pytest.mark.parametrize(("reference", "side"), MODELS)
def test_published_architectures_agree_with_pytorch(reference, side):
    encoder = build(reference, side)
    graph = module_encoder_onnx(encoder)
    assert error_of(encoder, graph, images_of(encoder)) <= ENCODER_RELATIVE
    assert operators(graph)["BatchNormalization"] == len(batch_norms(encoder))


@pytest.mark.parametrize(("layer", "shape"), [("tokens", (4, 4, 4)), pytest.param("last", (3, 4, 4), marks=slow)])
def test_tokens_and_channels_last_leave_as_maps(layer, shape):
    encoder = build(f"{HERE}:outputs_that_say@{layer}")
    graph = module_encoder_onnx(encoder)
    assert run_encoder(graph, images_of(encoder)).shape == (3, *shape)
    assert error_of(encoder, graph, images_of(encoder)) <= ENCODER_RELATIVE


def test_the_interface_is_that_of_every_encoder(graph):
    model = onnx.load_from_string(graph)
    (image,), (features,) = model.graph.input, model.graph.output
    kinds = (image.type.tensor_type.elem_type, features.type.tensor_type.elem_type)
    assert kinds == (onnx.TensorProto.UINT8, onnx.TensorProto.FLOAT)
    extents = [
        [extent.dim_param or extent.dim_value for extent in port.type.tensor_type.shape.dim]
        for port in (image, features)
    ]
    assert (image.name, features.name) == ("image", "features")
    assert extents == [["N", 32, 32, 3], ["N", 16, 8, 8]]
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]
    assert {entry.key: entry.value for entry in model.metadata_props} == {"deepsim.layer": "conv2"}


def test_weights_bear_the_modules_own_names_and_none_are_left_over(net, graph):
    model = onnx.load_from_string(graph)
    names = {tensor.name for tensor in model.graph.initializer}
    assert {"conv1.weight", "conv1.bias", "conv2.weight"} <= names
    assert not [name for name in names if "head" in name or "/" in name]
    assert names <= {name for node in model.graph.node for name in node.input}
    assert operators(graph)["BatchNormalization"] == 1 and operators(graph)["Conv"] == 2


def test_the_same_weights_give_the_same_bytes(graph):
    assert module_encoder_onnx(build(f"{HERE}:net@conv2"), {"deepsim.layer": "conv2"}) == graph


def test_nothing_of_the_machine_is_in_the_graph(graph):
    model = onnx.load_from_string(graph)
    for secret in (str(ROOT), str(Path(torch.__file__).parent), "site-packages", "Traceback", "stack_trace"):
        assert secret.encode() not in graph
    assert not any(node.doc_string or node.metadata_props for node in model.graph.node)
    assert (model.producer_name, model.producer_version) == ("deepsim", "")


def test_another_encoders_graph_is_found_out(net, graph):
    other = build(f"{HERE}:net@conv2", seed=1)
    assert error_of(other, graph, images_of(net)) > ENCODER_RELATIVE


def test_an_encoder_runs_after_its_export_as_before(net, graph):
    before = encode_with_module(build(f"{HERE}:net@conv2"), images_of(net))
    assert np.array_equal(before, encode_with_module(net, images_of(net)))
    assert not any(parameter.requires_grad for parameter in net.parameters())


def test_a_module_that_decides_by_what_it_sees_is_refused_in_one_line():
    with pytest.raises(UsageError, match=r"Deciding: torch\.onnx cannot export it") as caught:
        module_encoder_onnx(build(f"{HERE}:Deciding@act1"))
    assert "\n" not in str(caught.value) and "Next steps" not in str(caught.value)


def test_more_weights_than_a_file_holds_are_refused(net, monkeypatch):
    monkeypatch.setattr(module_onnx, "MAX_BYTES", 16 << 20)
    with pytest.raises(NumericError, match="bytes of weights, ONNX holds at most"):
        module_encoder_onnx(net)


@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
def test_a_missing_package_is_named_with_its_extra(net, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(DeviceError, match=rf"{package}: not installed, this needs deepsim\[export\]"):
        module_encoder_onnx(net)
