"""Verification passes what is right, and nothing else."""

import numpy as np
import pytest

from deepsim.export.calibration import calibration_images
from deepsim.export.onnx_from_layers import encoder_onnx, generator_onnx
from deepsim.export.torch_networks import apply_layers, tensors
from deepsim.export.verify import (
    Check,
    Reference,
    Verification,
    compare_features,
    compare_images,
    verify_fp16,
    verify_fp32,
)
from deepsim.kernels import reference
from deepsim.kernels.layers import Layer
from deepsim.runtime.errors import NumericError


@pytest.fixture(scope="module")
def answers(tiny_source):
    return Reference(tiny_source, calibration_images(3, 227), frozenset(), frozenset())


def graphs(source, precision="fp32", **changed):
    encoder_weights = {**source.encoder_weights, **changed.get("encoder", {})}
    generator_weights = {**source.generator_weights, **changed.get("generator", {})}
    return (
        encoder_onnx(source.encoder, source.layer, encoder_weights, precision),
        generator_onnx(source.generator, source.geometry, generator_weights, precision),
    )


def test_torch_reference_equals_numpy_reference(tiny_source, answers):
    source = tiny_source
    x = source.encoder.pixels.to_network(answers.images[:1]).astype(np.float64)
    features = reference.apply_layers(source.encoder.layers, x, source.encoder_weights)
    np.testing.assert_allclose(answers.features[:1], features, rtol=1e-4, atol=1e-5)
    images = reference.apply_layers(source.generator.layers, features, source.generator_weights)
    difference = np.abs(source.generator.pixels.to_pixels(images).astype(int) - answers.pixels[:1])
    assert difference.max() <= 1 and difference.mean() < 1e-3


def test_right_graphs_pass(tiny_source, answers):
    fp32 = verify_fp32(answers, *graphs(tiny_source))
    assert fp32 and {check.name for check in fp32.checks} == {"encoder_fp32", "generator_fp32"}
    fp16 = verify_fp16(answers, *graphs(tiny_source, "fp16"))
    assert fp16 and set(fp16.to_json()) == {
        "encoder_fp16",
        "encoder_pytorch_half",
        "generator_fp16",
        "generator_pytorch_half",
    }
    figures = fp16.to_json()["generator_pytorch_half"]["figures"]
    assert 0 < figures["mean_difference"] < 0.2 and 45 < figures["psnr"] < 80


@pytest.mark.parametrize("network", ["encoder", "generator"])
def test_a_slightly_wrong_graph_fails(tiny_source, answers, network):
    name = {"encoder": "conv1.weight", "generator": "deconv3.weight"}[network]
    weights = getattr(tiny_source, f"{network}_weights")
    wrong = {network: {name: weights[name] * np.float32(1.002)}}
    found = verify_fp32(answers, *graphs(tiny_source, **wrong))
    assert not found
    with pytest.raises(NumericError, match=f"{network}_fp32: .*Nothing was published"):
        found.to_json()


def test_swapped_channels_fail(tiny_source, answers):
    last = tiny_source.generator_weights["conv1_1.weight"][::-1].copy()
    assert not verify_fp32(answers, *graphs(tiny_source, generator={"conv1_1.weight": last}))


def test_fp16_worse_than_twice_pytorchs_half_fails(tiny_source, answers):
    name = "deconv3.weight"
    wrong = {"generator": {name: tiny_source.generator_weights[name] * np.float32(1.01)}}
    found = verify_fp16(answers, *graphs(tiny_source, "fp16", **wrong))
    assert [check.name for check in found.checks if not check] == ["generator_fp16"]


def test_figures_by_hand():
    figures = compare_features(np.float32([[3, 4]]), np.float32([[3, 0]]))
    assert figures["relative_error"] == pytest.approx(4 / 3)
    assert figures["cosine"] == pytest.approx(0.6) and figures["max_difference"] == 4
    found, expected = np.uint8([[10, 20]]), np.uint8([[10, 24]])
    figures = compare_images(found, expected)
    assert figures["max_difference"] == 4 and figures["mean_difference"] == 2
    assert figures["psnr"] == pytest.approx(10 * np.log10(255**2 / 8))
    assert compare_images(found, found)["psnr"] == 100


def test_nan_breaks_every_limit():
    assert not Check("x", {"a": float("nan")}, upper={"a": 1.0})
    assert not Check("x", {"a": float("nan")}, lower={"a": 1.0})
    assert Check("x", {"a": 1.0}, {"a": 1.0}, {"a": 1.0})
    assert not Verification((Check("x", {"a": 2.0}, {"a": 1.0}), Check("y", {})))


def test_lrn_island_keeps_large_activations_right():
    """Squares of activations above 256 overflow half: without the island nearly half of the outputs are wrong."""
    x = np.abs(np.random.default_rng(0).normal(0, 700, (1, 32, 13, 13))).clip(0, 1900)
    expected = reference.local_response_norm(x)
    half = x.astype(np.float16)
    with np.errstate(over="ignore"):
        naive = reference.local_response_norm(half).astype(np.float64)
    wrong = np.abs(naive - expected) > 0.01 * expected
    assert wrong.mean() > 0.3 and np.isfinite(naive).all()  # and nothing tells
    import torch

    island = apply_layers((Layer("n", "lrn"),), torch.from_numpy(half), tensors({}), half=True).numpy()
    np.testing.assert_allclose(island, expected, rtol=2e-3)
