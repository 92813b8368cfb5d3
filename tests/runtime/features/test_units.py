"""Features in other units than their layer's: each known mistake is named, and right ones are not."""

import numpy as np
import pytest

from deepsim.runtime.errors import DataError, ShapeError
from deepsim.runtime.features.layer_names import is_rectified
from deepsim.runtime.features.statistics import Gathering
from deepsim.runtime.features.units import clip_to, doubtful_bounds, likely_mistake, read_bounds, rectify
from deepsim.runtime.networks import ALEXNET, CAFFENET, VGG19, GraphEncoder

RNG = np.random.default_rng(0)
SHAPE = (6, 5, 4)


def features(count, shape, seed):
    """Make features after a ReLU: each unit has a level of its own, smooth within a channel."""
    levels = np.random.default_rng(seed).random(shape) * 2
    if len(shape) == 3:
        levels += np.random.default_rng(seed).random(shape[0])[:, None, None] * 4
    return np.maximum(levels + RNG.standard_normal((count, *shape)) * levels.mean() / 2, 0).astype(np.float32)


@pytest.fixture(params=[(200,), (48, 5, 4)], ids=["code", "map"])
def recorded(request):
    gathering = Gathering(request.param)
    gathering.add(features(300, request.param, 1))
    return gathering.result()


def test_features_of_the_layer_are_not_warned_of(recorded):
    shape = recorded.mean.shape
    for count in (1, 3, 32):
        assert likely_mistake(features(count, shape, 1), True, recorded) is None
        assert likely_mistake(features(count, shape, 1), True, None) is None
    assert likely_mistake(np.empty((0, *shape), np.float32), True, recorded) is None
    assert likely_mistake(features(9, shape, 1) - 1, False, None) is None


def test_features_before_the_relu(recorded):
    sample = RNG.standard_normal((32, *recorded.mean.shape)).astype(np.float32) * 5 - 3
    said = likely_mistake(sample, True, recorded)
    assert "before the ReLU" in said and "relu6" in said and "--rectify" in said
    decoded = features(32, recorded.mean.shape, 1) - 0.01
    assert "as of decoded features" in likely_mistake(decoded, True, recorded)


def test_z_scored_features(recorded):
    sample = RNG.standard_normal((32, *recorded.mean.shape)).astype(np.float32)
    assert "z-scored" in likely_mistake(sample, True, None)


@pytest.mark.parametrize("order", [(2, 1, 0), (0, 2, 1), (1, 2, 0)])
def test_maps_whose_axes_are_in_another_order(order):
    gathering = Gathering(SHAPE)
    gathering.add(features(300, SHAPE, 1))
    sample = features(32, SHAPE, 1)
    flattened = sample.transpose(0, *[1 + axis for axis in order]).reshape(32, -1)
    said = likely_mistake(flattened.reshape(32, *SHAPE), True, gathering.result())
    assert f"--axes N({''.join('CHW'[axis] for axis in order)})" in said


def test_features_of_another_network(recorded):
    shape = recorded.mean.shape
    assert "AlexNet" in likely_mistake(features(32, shape, 2), True, recorded)
    assert "values up to" in likely_mistake(features(32, shape, 1) * 20, True, recorded)
    assert "a mean SD of" in likely_mistake(features(32, shape, 1) / 50, True, recorded)


def test_bounds_of_another_layer(recorded, tmp_path):
    shape, sample = recorded.mean.shape, features(32, recorded.mean.shape, 1)
    right, low, other = tmp_path / "right.txt", tmp_path / "low.txt", tmp_path / "other.txt"
    upper = np.ceil(recorded.upper(3) * 100).astype(int).ravel()
    right.write_text(" ".join(map(str, upper)) + " ")
    low.write_text("0 " * upper.size)
    other.write_text(" ".join(map(str, RNG.permutation(upper) + 1000)))
    assert doubtful_bounds(sample, read_bounds(right, shape), recorded) is None
    assert "a bounds file of another layer" in doubtful_bounds(sample, read_bounds(low, shape), None)
    assert "does not follow the recorded" in doubtful_bounds(sample, read_bounds(other, shape), recorded)


def test_bounds_per_unit_and_per_channel(tmp_path):
    feature = RNG.standard_normal(SHAPE) * 9
    unit, channel = RNG.integers(1, 9, SHAPE), RNG.integers(1, 9, SHAPE[0])
    for upper in (unit, channel):
        (tmp_path / "b.txt").write_text(" ".join(map(str, upper.ravel())) + " ")  # as the release has them
        np.save(tmp_path / "b.npy", upper)
        expected = np.clip(feature, 0, upper if upper.ndim == 3 else upper[:, None, None])
        for suffix in ("txt", "npy"):
            np.testing.assert_allclose(clip_to(feature, read_bounds(tmp_path / f"b.{suffix}", SHAPE)), expected, 1e-6)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1 2 3", r"3 bounds, expected 120 \(one per unit\) or 6 \(one per channel\)"),
        ("1 2 3 4 5 x", "'x'"),
        ("1 2 3 4 5 -6", "bounds from -6 on"),
        ("1 2 3 4 5 nan", "bounds from nan on"),
        ("", "0 bounds"),
        (None, "no such file"),
    ],
)
def test_files_that_are_no_bounds(tmp_path, text, words):
    if text is not None:
        (tmp_path / "b.txt").write_text(text)
    with pytest.raises(DataError, match=words):
        read_bounds(tmp_path / "b.txt", SHAPE)
    with pytest.raises(ShapeError, match="expected 7"):
        (tmp_path / "c.txt").write_text("1 2")
        read_bounds(tmp_path / "c.txt", (7,))


def test_rectify_keeps_nan():
    np.testing.assert_array_equal(rectify(np.array([-1, 0, 2, np.nan])), np.array([0, 0, 2, np.nan], np.float32))


def test_which_layers_have_no_negative_values():
    for layer in ("conv1", "pool1", "norm1", "norm2", "conv4", "pool5", "fc6", "fc7"):
        assert is_rectified(layer, CAFFENET) and is_rectified(layer, None)
    assert not is_rectified("fc8", CAFFENET) and not is_rectified("fc8", ALEXNET)
    assert is_rectified("conv5_4", VGG19) and not is_rectified("conv5_4", None)
    graph = GraphEncoder("timm:x", "blocks.2", CAFFENET.framing, CAFFENET.pixels, (4, 2, 2))
    assert not is_rectified("blocks.2", graph)
