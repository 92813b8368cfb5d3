"""Sharpness: plain loops, known spectra, and what blur and noise do to each figure."""

from __future__ import annotations

import numpy as np
import pytest

from deepsim.evaluate.metrics.sharpness import (
    BANDS,
    OCTAVES,
    aligned_gradient,
    band_power,
    gradient_energy,
    luma,
    octaves,
    ratios,
    spectrum_slope,
)
from deepsim.evaluate.report.baselines import gaussian_blur
from deepsim.runtime.errors import ShapeError
from tests.bundles import photographs


def noise_of_slope(slope, side=128, count=8):
    """Return noise (count, side, side) whose power falls with frequency to the power of ``slope``."""
    rng = np.random.default_rng(6)
    radius = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side)[None])
    radius[0, 0] = 1
    shaped = np.fft.fft2(rng.normal(size=(count, side, side))) * radius ** (slope / 2)
    return np.fft.ifft2(shaped).real.astype(np.float32)


def test_gradient_energy_equals_loops():
    grey = luma(photographs(2)[:, :9, :7])
    for number, image in enumerate(grey.astype(float)):
        total = sum(
            (image[i + 1, j] - image[i, j]) ** 2 + (image[i, j + 1] - image[i, j]) ** 2
            for i in range(8)
            for j in range(6)
        )
        assert gradient_energy(grey)[number] == pytest.approx(total / 48)
    assert aligned_gradient(grey, grey) == pytest.approx(gradient_energy(grey))
    assert luma(np.array([[[[10, 20, 30]]]], np.uint8)).item() == pytest.approx(0.299 * 10 + 0.587 * 20 + 0.114 * 30)


@pytest.mark.parametrize("slope", [0.0, -2.0, -3.0])
@pytest.mark.parametrize("side", [40, 131])
def test_the_slope_of_a_known_spectrum(slope, side):
    power = band_power(noise_of_slope(slope, side, 24)).mean(axis=0)
    assert spectrum_slope(power) == pytest.approx(slope, abs=0.15)


def test_a_wave_has_its_power_in_its_octave():
    across = np.arange(128)
    for frequency, octave in ((1 / 24, 0), (1 / 12, 1), (1 / 6, 2), (1 / 3, 3)):
        wave = np.sin(2 * np.pi * frequency * across)[None, None] * np.ones((1, 128, 1))
        assert octaves(band_power(wave.astype(np.float32)))[0].argmax() == octave
    assert BANDS == 4 * OCTAVES


def test_blur_lowers_all_and_noise_only_raises_what_is_not_aligned():
    field = noise_of_slope(-2.2, 128, 1)[..., None]
    photo = luma((field / field.std() * 40 + 128).clip(0, 255).astype(np.uint8).repeat(3, -1))
    rng = np.random.default_rng(0)
    rgb = photo[0].astype(np.uint8)[..., None].repeat(3, -1)
    blurred, noisy = luma(gaussian_blur(rgb, 1.5)[None]), photo + rng.normal(0, 20, photo.shape).astype(np.float32)
    energy, aligned = gradient_energy(photo), aligned_gradient(photo, photo)
    slope = spectrum_slope(band_power(photo))
    assert gradient_energy(blurred) < 0.5 * energy and aligned_gradient(blurred, photo) < 0.7 * aligned
    assert spectrum_slope(band_power(blurred)) < slope - 0.5
    assert gradient_energy(noisy) > 1.5 * energy and spectrum_slope(band_power(noisy)) > slope + 0.3
    assert aligned_gradient(noisy, photo) == pytest.approx(aligned, rel=0.05)


def test_what_has_no_spectrum():
    assert np.isnan(spectrum_slope(band_power(np.full((1, 64, 64), 9, np.float32)))).all()
    assert np.isnan(ratios(np.array([1.0]), np.array([0.0]))).all() and ratios(np.array([1.0]), np.array([2.0])) == 0.5
    with pytest.raises(ShapeError, match="spectrum: 15 x 80 pixels"):
        band_power(np.zeros((1, 15, 80), np.float32))
    small = band_power(noise_of_slope(-2, 20))
    assert np.isnan(small[:, 0]).all() and np.isfinite(spectrum_slope(small)).all()
    assert np.isnan(octaves(np.full(BANDS, np.nan))).all() and np.isnan(spectrum_slope(np.full(BANDS, np.nan)))
