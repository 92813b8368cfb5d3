"""Priors: what draws depend on, what a manifest says, and an Inverter that samples."""

import json

import numpy as np
import pytest

from deepsim.runtime.bundle import Bundle
from deepsim.runtime.errors import BundleError, UsageError
from deepsim.runtime.inverter import Inverter
from deepsim.runtime.manifest import Manifest
from deepsim.runtime.prior import draw_codes
from tests.bundles import write_kind
from tests.runtime.conftest import UNDER_TEST

PRIOR = "standard normal"


def test_a_draw_depends_on_its_number_and_the_seed_alone():
    many = draw_codes((5, 2), range(10), seed=3)
    np.testing.assert_array_equal(draw_codes((5, 2), [7, 2], seed=3), many[[7, 2]])
    assert not (draw_codes((5, 2), range(10), seed=4) == many).any()
    assert many.dtype == np.float32 and draw_codes((5, 2), []).shape == (0, 5, 2)


def test_draws_are_standard_normal_times_the_temperature():
    codes = draw_codes((50,), range(2000), seed=1)
    assert abs(codes.mean()) < 0.01 and abs(codes.std() - 1) < 0.01
    kurtosis = np.mean(codes.astype(np.float64) ** 4)
    assert abs(kurtosis - 3) < 0.1
    correlation = np.corrcoef(codes.T) - np.eye(50)
    assert np.abs(correlation).max() < 0.12
    np.testing.assert_allclose(draw_codes((50,), range(3), 1, 0.5), codes[:3] / 2, rtol=1e-6)
    assert not draw_codes((50,), range(3), 1, 0).any()


@pytest.mark.parametrize(
    ("change", "words"), [((0, -1.0), "temperature: -1.0"), ((0, float("nan")), "temperature: nan")]
)
def test_senseless_temperatures_are_refused(change, words):
    with pytest.raises(UsageError, match=words):
        draw_codes((3,), [0], *change)


def test_a_negative_seed_is_refused():
    with pytest.raises(UsageError, match="seed: -1, expected 0 or more"):
        draw_codes((3,), [0], seed=-1)


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    pytest.importorskip("onnx")
    folder = tmp_path_factory.mktemp("priors")
    return {kind: write_kind(folder, kind, prior=PRIOR) for kind in ("table", "none")}


def test_the_manifest_says_so_and_old_ones_nothing(paths, tmp_path):
    text = (paths["none"] / "manifest.json").read_text(encoding="utf-8")
    manifest = Bundle.open(paths["none"]).manifest
    assert json.loads(text)["prior"] == manifest.prior == PRIOR
    assert manifest.to_bytes().decode() == text
    without = write_kind(tmp_path, "none")
    assert "prior" not in (without / "manifest.json").read_text(encoding="utf-8")
    assert Bundle.open(without).manifest.prior is None


@pytest.mark.parametrize(
    ("kind", "prior", "words"),
    [("none", "uniform", "prior 'uniform', expected standard normal"), ("table-alone", PRIOR, "without a generator")],
)
def test_other_priors_are_refused(tmp_path, kind, prior, words):
    pytest.importorskip("onnx")
    path = write_kind(tmp_path, kind, prior=prior)
    with pytest.raises(BundleError, match=words):
        Bundle.open(path)


@pytest.mark.parametrize("value", [None, 3, ["standard normal"], {}])
def test_priors_that_are_no_text_are_refused(paths, value):
    manifest = Bundle.open(paths["none"]).manifest
    object.__setattr__(manifest, "_record", lambda: {**Manifest._record(manifest), "prior": value})
    with pytest.raises(BundleError, match=r"prior .*, expected standard normal"):
        Manifest.from_bytes(manifest.to_bytes())


@pytest.mark.parametrize("backend", UNDER_TEST)
def test_an_inverter_samples(paths, backend):
    if backend in ("onnxruntime", "torch"):
        pytest.importorskip(backend)
    with Inverter(paths["none"], backend, "auto" if backend == "cuda" else "cpu", 2) as inverter:
        samples = inverter.sample(3, seed=4, temperature=0.5)
        codes = draw_codes(inverter.feature_shape, range(3), 4, 0.5)
        np.testing.assert_array_equal(samples.features, codes)
        np.testing.assert_array_equal(samples, inverter.decode(codes))
        assert samples.shape == (3, 64, 64, 3) and samples.index == (0, 1, 2)
        assert inverter.sample(0).shape == (0, 64, 64, 3)
        ends = inverter.interpolate(*samples.features[:2], steps=2)
        np.testing.assert_array_equal(ends, samples[:2])
        with pytest.raises(UsageError, match="count: -1"):
            inverter.sample(-1)


def test_a_bundle_without_a_prior_is_not_sampled(tmp_path):
    pytest.importorskip("onnx")
    path = write_kind(tmp_path, "table")
    with (
        Inverter(path, "cpu") as inverter,
        pytest.raises(UsageError, match=r"table\.deepsim: no prior, .* codes of conv1"),
    ):
        inverter.sample(1)
