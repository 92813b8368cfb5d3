"""A module's preprocessing, against what its package does to a photograph."""

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")

from deepsim.runtime.errors import UsageError  # noqa: E402
from deepsim.runtime.geometry import IMAGENET_FRAMING, Framing  # noqa: E402
from deepsim.runtime.images import prepare  # noqa: E402
from deepsim.runtime.pixels import IMAGENET_PIXELS  # noqa: E402
from deepsim.train.module_preprocessing import PreprocessingOptions, preprocessing_of  # noqa: E402
from deepsim.train.module_references import parse  # noqa: E402
from tests.train.modules import Net  # noqa: E402

USER = parse("tests.train.modules:net@conv1")


def photograph(height=300, width=411):
    rng = np.random.default_rng(0)
    return np.asarray(Image.fromarray(rng.integers(0, 256, (9, 12, 3), np.uint8)).resize((width, height)))


def with_config(config):
    module = torch.nn.Module()
    module.pretrained_cfg = config
    return module


def agrees(own, photo, tensor):
    found = own.pixels.to_network(prepare(photo, own.framing)[None])[0]
    step = 1 / 57 if own.pixels.scale[0] > 0.01 else 1 / 127  # a grey level
    assert np.abs(found - tensor.numpy()).max() < 1.01 * step
    assert np.abs(found - tensor.numpy()).mean() < 0.02 * step


@pytest.mark.parametrize("name", ["resnet50", "resnet50.IMAGENET1K_V1", "swin_t", "inception_v3"])
def test_torchvision_prepares_a_photograph_alike(name):
    from torchvision import models

    architecture, _, tag = name.partition(".")
    weights = models.get_model_weights(architecture)
    transforms = (weights[tag] if tag else weights.DEFAULT).transforms()
    photo = photograph()
    own = preprocessing_of(parse(f"torchvision:{name}@x"), torch.nn.Identity())
    agrees(own, photo, transforms(Image.fromarray(photo)))


@pytest.mark.parametrize(
    "name", ["tf_efficientnet_lite0", "vit_tiny_patch16_224", "resnet10t", "vit_tiny_r_s16_p8_384"]
)
def test_timm_prepares_a_photograph_alike(name):
    timm = pytest.importorskip("timm")
    model = with_config(timm.get_pretrained_cfg(name).to_dict())
    config = timm.data.resolve_data_config({}, model=model)
    photo = photograph(500, 431)
    own = preprocessing_of(parse(f"timm:{name}@x"), model)
    agrees(own, photo, timm.data.create_transform(**config)(Image.fromarray(photo)))


def test_timm_squashes_some_models():
    timm = pytest.importorskip("timm")
    model = with_config({**timm.get_pretrained_cfg("resnet10t").to_dict(), "crop_mode": "squash", "crop_pct": 1.0})
    photo = photograph()
    own = preprocessing_of(parse("timm:resnet10t@x"), model)
    assert own.framing.resize == "warp"
    config = timm.data.resolve_data_config({}, model=model)
    agrees(own, photo, timm.data.create_transform(**config)(Image.fromarray(photo)))


def test_a_users_module_without_a_record_gets_that_of_imagenet():
    own = preprocessing_of(USER, torch.nn.Identity())
    assert own.framing == IMAGENET_FRAMING and own.pixels == IMAGENET_PIXELS


def test_a_users_module_says_what_is_different():
    own = preprocessing_of(USER, Net())
    assert own.framing == Framing("shorter", 64, 32) and own.pixels == IMAGENET_PIXELS


def test_options_take_the_place_of_the_models_own():
    options = PreprocessingOptions(side=48, mean=(0.5, 0.5, 0.5), std=(1, 1, 1))
    own = preprocessing_of(USER, Net(), options)
    assert own.framing == Framing("shorter", 96, 48)  # the crop's ratio stays
    assert own.pixels.mean == (127.5, 127.5, 127.5) and own.pixels.scale == (1 / 255,) * 3
    own = preprocessing_of(USER, Net(), PreprocessingOptions(size=40, interpolation="bicubic"))
    assert own.framing == Framing("shorter", 40, 32, "bicubic")


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"crop_mode": "border"}, "crop mode 'border', expected one of center, squash"),
        ({"interpolation": "lanczos"}, "interpolation 'lanczos', expected one of bilinear, bicubic"),
        ({"input_size": (3, 224, 192)}, "expected three channels and a square"),
        ({"input_size": (1, 224, 224)}, "expected three channels and a square"),
        ({"std": (0.5, 0.5, 0)}, "std at least 1e-6"),
        ({"mean": (0.5,)}, "expected three finite numbers"),
        ({"crop_pct": 1.5}, "side 224, expected at most size"),
        ([], "pretrained_cfg is list, expected a dictionary"),
    ],
)
def test_what_a_framing_cannot_say_is_refused(config, said):
    with pytest.raises(UsageError, match=said):
        preprocessing_of(USER, with_config(config))
