"""Calibration images are the same for everyone and look like photographs to a network."""

import numpy as np

from deepsim.export.calibration import calibration_images


def test_seeded_and_extensible():
    images = calibration_images(3, 227)
    assert images.shape == (3, 227, 227, 3) and images.dtype == np.uint8
    np.testing.assert_array_equal(calibration_images(2, 227), images[:2])
    assert not np.array_equal(calibration_images(1, 227, seed=1), images[:1])


def test_contrast_and_spectrum():
    images = calibration_images(4, 227).astype(np.float64)
    assert images.std() > 40 and images.min() == 0 and images.max() == 255
    power = np.abs(np.fft.rfft(images - images.mean((1, 2), keepdims=True), axis=2)) ** 2
    low, high = power[:, :, 2:6].mean(), power[:, :, 40:80].mean()
    assert low > 20 * high  # falls with frequency, as noise would not
