"""Bundles whose pictures are stretched, as some published ones are."""

import re

import numpy as np
import pytest

from deepsim.runtime.bundle import Bundle
from deepsim.runtime.errors import BundleError, UsageError
from deepsim.runtime.inverter import Inverter
from deepsim.runtime.pixels import rounded, stretched
from tests.bundles import photographs, write_kind
from tests.runtime.conftest import UNDER_TEST
from tests.runtime.test_raw import features_of

pytest.importorskip("onnx")


def published(image):
    """Transcribe icnn's clip_extreme_value with 4 % and normalise_img: both tails clipped, then 0-255, cut off."""
    percent = 4
    clipped = np.clip(image, np.percentile(image, percent / 2.0), np.percentile(image, 100 - percent / 2.0))
    from_zero = clipped - clipped.min()
    if from_zero.max() > 0:
        from_zero = from_zero * (255.0 / from_zero.max())
    return np.uint8(from_zero)


@pytest.fixture(scope="module")
def stretching(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stretching")
    return {kind: write_kind(folder, kind, display="stretch") for kind in ("table", "graph", "none")}


@pytest.fixture(params=UNDER_TEST)
def opened(request, stretching):
    """One stretching bundle of each kind in a backend."""
    if request.param in ("onnxruntime", "torch"):
        pytest.importorskip(request.param)
    device = "auto" if request.param == "cuda" else "cpu"
    return {kind: Inverter(path, request.param, device, 2) for kind, path in stretching.items()}


@pytest.mark.parametrize("full", [False, True])
def test_pictures_are_stretched_as_the_published_ones(opened, full):
    features = features_of("small")
    for inverter in opened.values():
        raw = inverter.decode(features, full=full, raw=True)
        pictures = inverter.decode(features, full=full)
        np.testing.assert_array_equal(pictures, [published(image) for image in raw])
        assert pictures.shape == raw.shape and pictures.dtype == np.uint8
        assert (pictures.min(axis=(1, 2, 3)) == 0).all() and (pictures.max(axis=(1, 2, 3)) >= 254).all()
        assert np.abs(pictures.astype(int) - rounded(raw)).mean() > 5  # grey levels: they are other pictures


@pytest.mark.parametrize("kind", ["table", "graph"])
def test_every_loop_goes_through_stretched_pictures(opened, kind):
    inverter, photos = opened[kind], photographs(3)
    once = inverter.reconstruct(photos)
    np.testing.assert_array_equal(once, inverter.decode(inverter.encode(photos)))
    strips = inverter.reencode(photos, 2, (1, 2))
    np.testing.assert_array_equal(strips[:, 0], once)
    np.testing.assert_array_equal(strips[:, 1], inverter.decode(inverter.encode(once)))
    features = inverter.encode(photos[:2])
    np.testing.assert_array_equal(inverter.interpolate(photos[0], photos[1], steps=2), inverter.decode(features))
    (streamed,) = inverter.stream(list(photos), batch=4)
    np.testing.assert_array_equal(streamed, once)


def test_an_image_of_one_level_is_black():
    assert stretched(np.full((1, 4, 4, 3), 77, np.float32)).max() == 0


def test_a_stretched_image_depends_on_no_other():
    levels = np.random.default_rng(3).normal(100, 80, (3, 16, 16, 3)).astype(np.float32)
    np.testing.assert_array_equal(stretched(levels)[1:2], stretched(levels[1:2]))


def test_the_manifest_says_stretch_and_never_clip(stretching, tmp_path):
    text = (stretching["table"] / "manifest.json").read_text(encoding="utf-8")
    assert '"display": "stretch"' in text
    manifest = Bundle.open(stretching["table"]).manifest
    assert manifest.display == "stretch" and manifest.to_bytes().decode() == text
    clipped = write_kind(tmp_path, "table")
    assert "display" not in (clipped / "manifest.json").read_text(encoding="utf-8")
    assert Bundle.open(clipped).manifest.display == "clip"


def test_another_display_is_refused(tmp_path):
    path = write_kind(tmp_path, "none", display="squash")
    with pytest.raises(BundleError, match=r"display 'squash', expected clip or stretch"):
        Bundle.open(path)


def test_the_native_library_makes_no_stretched_pictures(stretching):
    from deepsim.runtime.backends import cpu

    backend = cpu.CpuBackend(Bundle.open(stretching["none"]), 2, cpu.Options())
    line = "display: this bundle's pictures are stretched, which libdeepsim does not do. Decode raw images and stretch"
    with pytest.raises(UsageError, match=re.escape(line)):
        backend.decode(features_of("small"), full=False)
    assert backend.decode_raw(features_of("small"), full=False).shape == (3, 64, 64, 3)
