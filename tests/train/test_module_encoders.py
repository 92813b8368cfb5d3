"""Encoders of any module: what they compute, how far they run, and which modules cannot be one."""

import logging

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from deepsim.runtime.errors import UsageError  # noqa: E402
from deepsim.runtime.geometry import Framing  # noqa: E402
from deepsim.runtime.networks import GraphEncoder  # noqa: E402
from deepsim.runtime.pixels import IMAGENET_PIXELS  # noqa: E402
from deepsim.train.encoders import pink_noise  # noqa: E402
from deepsim.train.module_encoders import build_module_encoder  # noqa: E402
from deepsim.train.module_preprocessing import PreprocessingOptions  # noqa: E402
from deepsim.train.module_references import parse  # noqa: E402
from deepsim.train.networks import to_image_space  # noqa: E402
from deepsim.train.weights import write_weights  # noqa: E402
from tests.train.modules import SIDE, Net, stirred  # noqa: E402

HERE = "tests.train.modules"
SMALL = PreprocessingOptions(side=64)


def build(reference, *also, **options):
    return build_module_encoder(parse(reference), also, **options)


def own(layer):
    return f"{HERE}:net@{layer}"


def test_features_are_those_of_the_module_itself(tmp_path):
    model = stirred(Net())
    write_weights(tmp_path / "net.safetensors", model.state_dict())
    encoder = build(own("conv2"), weights=tmp_path / "net.safetensors")
    photos = pink_noise(2, SIDE, 3)
    x = torch.from_numpy(IMAGENET_PIXELS.to_network(photos.numpy()))
    with torch.no_grad():
        expected = model.conv2(model.norm2(torch.relu(model.norm1(model.conv1(x)))).relu())
        found = encoder(to_image_space(photos))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_the_record_says_what_a_bundle_needs():
    record = build(own("conv2")).record()
    assert record == GraphEncoder(f"{HERE}:net", "conv2", Framing("shorter", 64, 32), IMAGENET_PIXELS, (16, 8, 8))
    assert record.input_shape == (3, 32, 32)
    assert build(own("head")).record().feature_shape == (10,)


def test_nothing_behind_the_layer_runs():
    encoder = build(own("conv2"))
    before = encoder.module.behind
    encoder(torch.zeros(1, 3, SIDE, SIDE))
    assert encoder.module.behind == before == 1  # the observed pass alone
    assert {name.split(".")[1] for name in encoder.state_dict()} == {"conv1", "norm2", "conv2"}


def test_what_a_pass_reads_stays_though_it_is_not_called():
    encoder = build(f"{HERE}:Peeking@conv2")
    assert encoder.record().feature_shape == (16, 8, 8)
    assert {"module.norm1.weight", "module.head.weight"} <= set(encoder.state_dict())


def test_several_layers_come_from_one_pass():
    encoder = build(own("act1"), "conv2", "norm1", "conv1")
    images = to_image_space(pink_noise(2, SIDE, 1))
    names = ["conv2", "act1", "norm1", "conv1"]
    passes = []
    handle = encoder.module.conv1.register_forward_hook(lambda *_: passes.append(1))
    found = encoder.features(images, names)
    handle.remove()
    assert passes == [1] and list(found) == names
    for name in names:
        assert torch.equal(found[name], encoder.features(images, [name])[name])
    assert torch.equal(found["act1"], found["norm1"].relu()) and found["norm1"].min() < 0
    assert torch.equal(encoder(images), found["act1"])
    with pytest.raises(KeyError):
        encoder.features(images, ["head"])


def test_a_layers_output_is_kept_from_what_runs_next():
    encoder = build(f"{HERE}:InPlace@act1", "conv2")
    images = to_image_space(pink_noise(1, SIDE, 1))
    assert torch.equal(encoder.features(images, ["act1", "conv2"])["act1"], encoder(images))


def test_the_parts_of_pytorchs_transformer_layer_are_layers():
    encoder = build(f"{HERE}:Transformer@block.linear1")
    with torch.no_grad():
        assert encoder(torch.zeros(2, 3, SIDE, SIDE)).shape == (2, 16, 4, 4)


def test_gradients_reach_the_images_and_no_weights():
    encoder = build(own("conv2"))
    encoder.train()
    assert not any(module.training for module in encoder.modules())
    images = to_image_space(pink_noise(1, SIDE, 1)).requires_grad_()
    encoder(images).square().sum().backward()
    assert images.grad.abs().max() > 0
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


def test_images_are_converted_to_the_modules_own_pixels():
    encoder = build(own("conv1"))
    photos = pink_noise(1, SIDE, 1)
    found = encoder.convert(to_image_space(photos))
    np.testing.assert_allclose(found.numpy(), IMAGENET_PIXELS.to_network(photos.numpy()), atol=1e-5)


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        (own("conv3"), "no submodule 'conv3', near it are conv2, conv1; it has conv1, norm1"),
        (own("relu"), "'relu' runs 2 times in a pass over an image, expected once"),
        (f"{HERE}:Fails@conv1", r"ValueError: wrong side \(raised on images \(2, 3, 32, 32\)\)"),
        (f"{HERE}:outputs@never", "'never' runs 0 times"),
        (f"{HERE}:outputs@split", "'split' gives a tuple of 2, expected one tensor"),
        (f"{HERE}:outputs@whole", "'whole' gives torch.int64"),
        (f"{HERE}:outputs@strip", r"gives \(4, 2, 4\) per image, expected \(C,\), \(C, h, h\) or"),
        (f"{HERE}:outputs@last", "where the model's output_fmt is NHWC"),
        (f"{HERE}:outputs@tokens", "gives 17 tokens, expected a square number.*num_prefix_tokens, which is 0"),
        (f"{HERE}:outputs_that_say@conv", r"gives \(4, 4, 4\) per image"),  # which of the three are the channels?
    ],
)
def test_what_gives_no_features_is_refused_in_one_line(reference, said):
    with pytest.raises(UsageError, match=said) as caught:
        build(reference)
    assert "\n" not in str(caught.value)


def test_channels_last_and_tokens_become_maps(caplog):
    with caplog.at_level(logging.INFO, "deepsim"):
        encoder = build(f"{HERE}:outputs_that_say@tokens", "last")
    assert "tokens: drops the first 1 of its tokens" in caplog.text
    images = to_image_space(pink_noise(2, SIDE, 1))
    found = encoder.features(images, ["tokens", "last"])
    with torch.no_grad():
        conv = encoder.module.conv(encoder.convert(images))
    assert torch.equal(found["tokens"], conv) and torch.equal(found["last"], conv[:, :3])
    assert encoder.formats["tokens"].shape == (4, 4, 4) and encoder.formats["last"].shape == (3, 4, 4)


@pytest.mark.parametrize(
    ("reference", "shape"),
    [
        ("torchvision:resnet18@layer2", (128, 8, 8)),
        ("torchvision:mobilenet_v3_small@features.3", (24, 8, 8)),
        ("torchvision:squeezenet1_1@classifier", (1000, 1, 1)),
    ],
)
def test_torchvisions_models_encode(reference, shape):
    check_models(reference, shape)


@pytest.mark.parametrize(
    ("reference", "shape"),
    [
        ("timm:tf_efficientnet_lite0@blocks.2", (40, 8, 8)),
        ("timm:vit_tiny_patch16_224@blocks.1", (192, 4, 4)),
        ("timm:convnext_atto@stages.1", (80, 8, 8)),
        ("timm:resnet10t@global_pool", (512,)),
    ],
)
def test_timms_models_encode(reference, shape):
    pytest.importorskip("timm")
    check_models(reference, shape)


def check_models(reference, shape):
    """Random features are of order one, tell images apart and repeat with their seed."""
    encoder = build(reference, options=SMALL)
    images = to_image_space(pink_noise(2, 64, 5))
    with torch.no_grad():
        features = encoder(images)
    assert encoder.record().feature_shape == shape and features.shape == (2, *shape)
    assert 0.1 < features.std() < 10
    assert (features[0] - features[1]).std() > 0.2 * features.std()
    again = build(reference, options=SMALL)
    assert all(torch.equal(again.state_dict()[name], value) for name, value in encoder.state_dict().items())


def test_a_swin_transformer_is_channels_last():
    pytest.importorskip("timm")
    encoder = build("timm:swin_tiny_patch4_window7_224@layers.0", "patch_embed.proj", options=SMALL)
    assert encoder.formats["layers.0"].shape == encoder.formats["patch_embed.proj"].shape == (96, 16, 16)
    assert encoder.formats["layers.0"].form == "channels-last" and encoder.formats["patch_embed.proj"].form == "map"


@pytest.mark.slow
def test_tokens_that_are_reordered_are_refused():
    pytest.importorskip("timm")
    with pytest.raises(UsageError, match="tokens in an order of its own"):
        build("timm:hiera_tiny_224@blocks.9")
