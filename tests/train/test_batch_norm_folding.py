"""Batch norm goes into the convolution before it, and stays where there is none."""

import pytest

torch = pytest.importorskip("torch")

from deepsim.train.batch_norm_folding import Pair, batch_norms, find_pairs, fold  # noqa: E402
from deepsim.train.module_encoders import build_module_encoder  # noqa: E402
from deepsim.train.module_preprocessing import PreprocessingOptions  # noqa: E402
from deepsim.train.module_references import parse  # noqa: E402
from tests.train.modules import SIDE, Net, Peeking, Shared, Standardising, stirred  # noqa: E402


def pairs_of(model, kept=("conv2",)):
    return find_pairs(model, lambda: model(torch.zeros(1, 3, SIDE, SIDE) + 0.3), kept)


def test_folding_changes_no_features():
    model = stirred(Net())
    x = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = model(x)
        pairs = pairs_of(model)
        assert pairs == [Pair("conv1", "norm1")]
        fold(model, pairs)
        torch.testing.assert_close(model(x), expected, rtol=1e-5, atol=1e-6)
    assert batch_norms(model) == ["norm2"]  # behind an activation


@pytest.mark.parametrize("model", [Shared, Standardising, Peeking])
def test_a_convolution_that_cannot_be_scaled_is_left_alone(model):
    assert pairs_of(stirred(model())) == []


def test_a_convolution_whose_own_output_is_wanted_is_left_alone():
    assert pairs_of(stirred(Net()), ["conv2", "conv1"]) == []


def test_a_shared_weight_is_left_alone():
    model = stirred(Net())
    model.again = torch.nn.Conv2d(3, 8, 3)
    model.again.weight = model.conv1.weight
    assert pairs_of(model) == []


def test_the_activation_of_timms_batch_norm_stays():
    norms = pytest.importorskip("timm.layers")
    model = Net()
    model.norm1 = norms.BatchNormAct2d(8, act_layer=torch.nn.PReLU)
    stirred(model)
    x = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = model(x)
        fold(model, pairs_of(model))
        torch.testing.assert_close(model(x), expected, rtol=1e-5, atol=1e-6)
    assert "norm1.act.weight" in model.state_dict()


@pytest.mark.parametrize(
    ("reference", "left"),
    [
        ("torchvision:resnet18@layer2", 0),
        ("torchvision:mobilenet_v2@features.5", 0),
        ("torchvision:densenet121@features.denseblock1", 6),  # the first norm of each layer reads a concatenation
        ("timm:tf_efficientnet_lite0@blocks.2", 0),
        ("timm:mobilenetv3_small_050@blocks.2", 0),
    ],
)
def test_what_is_left_in_published_models(reference, left):
    if reference.startswith("timm"):
        pytest.importorskip("timm")
    encoder = build_module_encoder(parse(reference), options=PreprocessingOptions(side=64))
    assert len(batch_norms(encoder)) == left
