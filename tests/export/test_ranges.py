"""The range scan sees what the reference computes and turns overflow into float32 islands."""

import numpy as np
import torch

from deepsim.export.ranges import scan_ranges
from deepsim.kernels import reference
from deepsim.kernels.layers import Layer

LAYERS = (
    Layer("a", "conv", 2, 3, 3, padding=1, activation="relu"),
    Layer("b", "conv", 3, 2, 1, activation="lrelu"),
    Layer("pool", "pool", kernel=2, stride=2),
    Layer("c", "fc", 8, 4, activation="lrelu"),
    Layer("d", "fc", 4, 4),
)


def weights(scale=1.0):
    rng = np.random.default_rng(0)
    own = {}
    for layer in LAYERS:
        if layer.has_weights:
            own[f"{layer.name}.weight"] = rng.normal(0, 1, layer.weight_shape).astype(np.float32)
            own[f"{layer.name}.bias"] = rng.normal(0, 1, layer.outputs).astype(np.float32)
    own["b.weight"] *= scale
    own["c.weight"] /= scale
    return own


def scan(own, x):
    return scan_ranges(LAYERS, torch.from_numpy(x), {name: torch.from_numpy(value) for name, value in own.items()})


def test_maxima_are_those_of_the_linear_outputs():
    own, x = weights(), np.random.default_rng(1).normal(0, 1, (2, 2, 4, 4)).astype(np.float32)
    found = scan(own, x)
    before = reference.apply_layers(LAYERS[:1], x.astype(np.float64), own)
    linear = reference.convolve(before, own["b.weight"], own["b.bias"])
    np.testing.assert_allclose(found.maxima["b"], np.abs(linear).max(), rtol=1e-5)
    np.testing.assert_allclose(found.maxima["a"], before.max(), rtol=1e-5)
    assert found.islands == frozenset() and found.warnings == ()


def test_overflow_makes_islands_of_writer_and_reader():
    x = np.random.default_rng(1).normal(0, 1, (2, 2, 4, 4)).astype(np.float32)
    found = scan(weights(3e4), x)
    assert found.maxima["b"] > 6e4
    assert found.islands == {"b", "c"}  # c reads what b writes; d is in range again
    assert set(found.warnings) == {"b", "pool"}


def test_weights_beyond_half_make_an_island():
    own, x = weights(), np.zeros((1, 2, 4, 4), np.float32)
    own["d.weight"][0, 0] = 7e4
    assert "d" in scan(own, x).islands
