from __future__ import annotations

import math

import numpy as np
import pytest

from deepsim.evaluate.report.baselines import (
    baseline_images,
    gaussian_blur,
    image_error,
    mean_oracle,
    own_colours,
    pixelwise_mean,
)


@pytest.fixture
def photos():
    return np.random.default_rng(0).integers(0, 256, (4, 9, 7, 3), dtype=np.uint8)


def test_pixelwise_mean_has_the_least_squared_error(photos):
    mean = pixelwise_mean(photos).astype(int)

    def total(image):
        return ((photos.astype(int) - image) ** 2).sum()

    assert total(mean) <= min(total(mean + 1), total(mean - 1))
    assert mean[3, 2, 1] == round(sum(int(photo[3, 2, 1]) for photo in photos) / 4)


def test_own_colours_are_each_photographs_mean(photos):
    filled = own_colours(photos)
    for photo, image in zip(photos, filled, strict=True):
        for channel in range(3):
            expected = round(sum(map(int, photo[..., channel].ravel())) / 63)
            assert (image[..., channel] == expected).all()


def test_blur_equals_a_direct_convolution():
    image = np.random.default_rng(1).integers(0, 256, (11, 12, 3), dtype=np.uint8)
    sigma, radius = 1.5, 6
    weights = [math.exp(-(d * d) / (2 * sigma * sigma)) for d in range(-radius, radius + 1)]
    padded = np.pad(image.astype(float), ((radius, radius), (radius, radius), (0, 0)), mode="symmetric")
    total = 0.0
    for i, down in enumerate(weights):
        for j, across in enumerate(weights):
            total += down * across * padded[4 + i, 5 + j, 2]
    assert abs(gaussian_blur(image, sigma)[4, 5, 2] - total / sum(weights) ** 2) <= 0.5 + 1e-9


def test_blur_keeps_a_constant_image():
    image = np.full((20, 20, 3), 77, np.uint8)
    assert (gaussian_blur(image) == 77).all()
    assert (mean_oracle(image[None]) == 77).all()


def test_image_error_equals_loops(photos):
    guess = np.full((9, 7, 3), 100, np.uint8)
    better = np.clip(photos.astype(int) + 3, 0, 255).astype(np.uint8)
    own = image_error("own", better, photos)
    error = image_error("guess", guess, photos, own)
    distances = [math.sqrt(((photo.astype(float) - 100) ** 2).sum()) for photo in photos]
    pairs = [math.sqrt(((photos[i].astype(float) - photos[j]) ** 2).sum()) for i in range(4) for j in range(i + 1, 4)]
    assert error.distance == pytest.approx(np.mean(distances))
    assert error.rmse == pytest.approx(np.mean([d / math.sqrt(189) for d in distances]))
    assert error.normalized == pytest.approx(np.mean(distances) / np.mean(pairs))
    assert error.margin == pytest.approx(1 - own.distance / error.distance)
    assert own.margin is None


def test_one_photograph_has_no_normalized_error(photos):
    error = image_error("x", photos[:1], photos[:1])
    assert error.normalized is None
    assert error.to_json()["psnr"] is None  # infinite, which JSON cannot say


def test_training_mean_is_first_and_only_where_known(photos):
    mean = np.zeros((9, 7, 3), np.uint8)
    assert next(iter(baseline_images(photos, mean))) == "the mean training image"
    assert "the mean training image" not in baseline_images(photos, None)
