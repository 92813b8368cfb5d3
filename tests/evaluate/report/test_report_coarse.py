from __future__ import annotations

import numpy as np
import pytest

from deepsim.evaluate.report.coarse import compare_coarsely


@pytest.fixture
def photos():
    rng = np.random.default_rng(0)
    return rng.integers(40, 200, (3, 16, 16, 3), dtype=np.uint8).repeat(2, axis=1).repeat(2, axis=2)


def test_equal_images_correlate_fully(photos):
    coarse = compare_coarsely(photos, photos)
    assert (coarse.brightness, coarse.colour) == pytest.approx((1, 1))


def test_values_equal_numpys_own(photos):
    images = np.random.default_rng(1).integers(0, 256, photos.shape, dtype=np.uint8)
    coarse = compare_coarsely(images, photos)
    cells = [values.reshape(3, 16, 2, 16, 2, 3).mean((2, 4)) for values in (images.astype(float), photos.astype(float))]
    grey = [values.mean(-1) for values in cells]
    within = [np.concatenate([(row - row.mean()).ravel() for row in values]) for values in grey]
    assert coarse.brightness == pytest.approx(np.corrcoef(*within)[0, 1])
    colours = [values - values.mean(-1, keepdims=True) for values in cells]
    centred = [(values - values.mean((0, 1, 2))).ravel() for values in colours]
    assert coarse.colour == pytest.approx(np.corrcoef(*centred)[0, 1])


def test_swapped_channels_keep_brightness_and_lose_colour(photos):
    coarse = compare_coarsely(photos[..., ::-1], photos)
    assert coarse.brightness == pytest.approx(1)
    assert coarse.colour < 0.5


def test_grey_reconstructions_have_no_colour(photos):
    grey = photos.mean(-1, keepdims=True).round().astype(np.uint8).repeat(3, axis=-1)
    assert compare_coarsely(grey, photos).colour is None
    assert compare_coarsely(grey, photos).brightness > 0.99


def test_the_middle_of_other_sizes_is_compared():
    photos = np.random.default_rng(2).integers(0, 256, (1, 227, 227, 3), dtype=np.uint8)
    images = photos.copy()
    images[:, 0] = images[:, -2:] = 0  # outside of the 16 x 14 pixels
    assert compare_coarsely(images, photos).brightness == pytest.approx(1)
