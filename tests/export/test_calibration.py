"""Calibration images are the same for everyone and look like photographs to a network."""

import numpy as np

from deepsim.export.calibration import calibration_features, calibration_images


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


def test_features_are_drawn_with_three_deviations():
    features = calibration_features(6, (50, 40), rectified=False)
    np.testing.assert_allclose(features.std((1, 2)), [1, 3, 10, 1, 3, 10], rtol=0.1)
    assert features.dtype == np.float32 and features.min() < 0
    np.testing.assert_array_equal(calibration_features(6, (50, 40), rectified=True), np.maximum(features, 0))
    np.testing.assert_array_equal(calibration_features(2, (50, 40), rectified=False), features[:2])
