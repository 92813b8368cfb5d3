"""LPIPS on a user's weights: the package's own result, nothing downloaded, one line where something is missing."""

from __future__ import annotations

import socket

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from deepsim.evaluate.metrics import distribution, perceptual  # noqa: E402
from deepsim.runtime.errors import CheckpointError, DeviceError, ShapeError  # noqa: E402
from tests.bundles import photographs  # noqa: E402


@pytest.fixture
def offline(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("nothing is downloaded")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr("torch.hub.load_state_dict_from_url", refuse)


def alexnet_file(folder):
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    path = folder / "alexnet.pth"
    torch.save(torchvision.models.alexnet(weights=None).features.state_dict(prefix="features."), path)
    return path


def test_lpips_equals_the_package_with_the_same_trunk(tmp_path, offline):
    lpips = pytest.importorskip("lpips")
    path = alexnet_file(tmp_path)
    a, b = photographs(2)[:, :80, :80], photographs(2, seed=1)[:, :80, :80]
    found = perceptual.Lpips(path)(a, b)
    theirs = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    state = {name.removeprefix("features."): value for name, value in torch.load(path, weights_only=True).items()}
    trunk = theirs.net.state_dict()
    theirs.net.load_state_dict({name: state[name.split(".", 1)[1]] for name in trunk})
    images = [torch.from_numpy(x.transpose(0, 3, 1, 2).astype(np.float32)) / 127.5 - 1 for x in (a, b)]
    with torch.no_grad():
        assert found == pytest.approx(theirs(*images).flatten().numpy(), rel=1e-5)
    assert (found > 0).all() and perceptual.Lpips(path)(a, a) == pytest.approx([0, 0])


def test_a_file_of_another_network_is_refused(tmp_path):
    pytest.importorskip("lpips")
    pytest.importorskip("torchvision")
    torch.save({"features.0.weight": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"features.0.weight is \(2,\), expected \(64, 3, 11, 11\)"):
        perceptual.Lpips(tmp_path / "other.pth")


@pytest.mark.parametrize(
    ("module", "name", "call"),
    [
        (perceptual, "lpips", perceptual.Lpips),
        (distribution, "torch_fidelity", distribution.check_inception),
    ],
)
def test_a_missing_package_is_one_line(monkeypatch, tmp_path, module, name, call):
    monkeypatch.setattr(module, "find_spec", lambda wanted: None if wanted == name else True)
    with pytest.raises(DeviceError, match=r"not installed, this needs deepsim\[perceptual\]"):
        call(tmp_path / "weights.pth")


def inception_file(folder):
    """Write random weights of torch-fidelity's Inception."""
    inception = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    torch.manual_seed(0)
    saved, path = {}, folder / "inception.pth"
    original = inception.torch.load
    try:
        inception.torch.load = lambda *_, **__: {}
        network = type("Random", (inception.FeatureExtractorInceptionV3,), {"load_state_dict": lambda *_: None})
        saved = network("inception-v3-compat", ["2048"], feature_extractor_weights_path="none").state_dict()
    finally:
        inception.torch.load = original
    for name, value in saved.items():
        if name.endswith("conv.weight"):  # of a size at which features keep theirs through the layers
            saved[name] = torch.randn_like(value) * (2 / value[0].numel()) ** 0.5
    torch.save(saved, path)
    return path


@pytest.mark.slow
def test_fid_and_kid_by_a_users_weights(tmp_path, offline):
    path = inception_file(tmp_path)
    photos = np.stack([np.roll(photographs(1)[0], 9 * shift, axis=0) for shift in range(3)])[:, :60, :60]
    same = distribution.distribution_distance(photos, photos, path)
    other = distribution.distribution_distance(255 - photos, photos, path)
    assert same.fid == pytest.approx(0, abs=1e-3 * other.fid) and other.fid > 0 and other.kid > same.kid
    assert same.subset == 3
    with pytest.raises(ShapeError):
        distribution.distribution_distance(photos[:1], photos, path)


def test_a_file_that_is_no_inception_is_refused(tmp_path):
    pytest.importorskip("torch_fidelity")
    torch.save({"fc.weight": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="no tensor Conv2d_1a_3x3"):
        distribution.check_inception(tmp_path / "other.pth")
