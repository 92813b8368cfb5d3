"""Every backend against the float64 reference, on real and made-up tables, in both pixel conventions."""

from functools import cache

import numpy as np
import pytest

from deepsim.kernels import reference
from deepsim.runtime.geometry import enlarged
from deepsim.runtime.images import prepare_batch
from deepsim.runtime.pixels import rounded
from tests.bundles import NETWORKS, photographs, random_weights


@cache
def expected(name):
    """Return a photograph, and its features and whole image in float64 arithmetic with uint8 rounding at the end."""
    encoder, generator = NETWORKS[name]
    encoder_weights, generator_weights = random_weights(name)
    photo = prepare_batch(photographs(1, seed=7), encoder.framing)
    network_input = encoder.pixels.to_network(photo).astype(np.float64)
    features = reference.apply_layers(encoder.layers, network_input, encoder_weights)
    output = reference.apply_layers(generator.layers, features, generator_weights)
    return photo, features, generator.pixels.to_pixels(output)


# largest error of a feature, relative to the largest feature; of a pixel in grey levels; share of pixels that differ.
# fp16 rounds activations and weights to 5e-4, layer after layer.
FP32, FP16 = (3e-6, 1, 1e-3), (3e-3, 3, 0.25)


@pytest.mark.parametrize("name", list(NETWORKS))
def test_encode_and_decode_agree_with_reference(inverter, inverter_of, name):
    inverter = inverter_of(name, inverter.backend)
    feature_error, pixel_error, share = FP16 if inverter.backend == "cuda" else FP32
    photo, features, image = expected(name)
    assert image.std() > 10  # an image with something in it, or the comparison below means nothing

    np.testing.assert_allclose(inverter.encode(photo), features, rtol=0, atol=feature_error * np.abs(features).max())
    full = inverter.decode(features, full=True)
    difference = np.abs(full.astype(int) - image)
    assert difference.max() <= pixel_error and (difference > 0).mean() < share  # grey levels that round the other way

    if name == "early":
        raw = inverter.decode(features, full=True, raw=True)
        np.testing.assert_array_equal(inverter.decode(features), rounded(enlarged(raw, 28)))
        np.testing.assert_array_equal(inverter.decode(features, raw=True), enlarged(raw, 28))
        return
    start, side = {"small": (1, 64), "mini": (2, 28), "tiny": (14, 227)}.get(name, (6, 227))
    np.testing.assert_array_equal(inverter.decode(features), full[:, start : start + side, start : start + side])


@pytest.mark.parametrize("name", list(NETWORKS))
def test_reencode_is_repeated_reconstruct(inverter, inverter_of, name):
    inverter = inverter_of(name, inverter.backend)
    photos = photographs(2, seed=8)
    kept = inverter.reencode(photos, iterations=4, keep=(1, 3, 4))
    current, steps = photos, []
    for _ in range(4):
        current = inverter.reconstruct(current)
        steps.append(current)
    np.testing.assert_array_equal(kept, np.stack([steps[0], steps[2], steps[3]], axis=1))
    assert (steps[0] != steps[3]).any()


def test_reconstruct_is_encode_then_decode(inverter):
    photos = photographs(3, seed=9)
    np.testing.assert_array_equal(inverter.reconstruct(photos), inverter.decode(inverter.encode(photos)))
    np.testing.assert_array_equal(inverter.reencode(photos, 1, (1,))[:, 0], inverter.reconstruct(photos))


def test_images_differ_as_their_photographs_do(inverter):
    first, second = inverter.reconstruct(photographs(2, seed=10))
    assert np.abs(first.astype(int) - second).mean() > 1


def test_whole_networks_of_both_backends_agree(inverter_of):
    photos = photographs(2, seed=11)
    first = inverter_of("norm2", "onnxruntime").reencode(photos, 2, (2,)).astype(int)
    second = inverter_of("norm2", "torch").reencode(photos, 2, (2,))
    assert np.abs(first - second).max() <= 3  # a grey level that rounds the other way, fed back once
