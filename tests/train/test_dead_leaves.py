"""Dead leaves: a pure function of its numbers, with the statistics of photographs."""

import itertools

import numpy as np

from deepsim.train.dead_leaves import dead_leaves

PICTURES = np.stack([dead_leaves(0, index) for index in range(24)])


def test_pictures_are_deterministic_and_differ():
    assert PICTURES.shape == (24, 256, 256, 3)
    assert PICTURES.dtype == np.uint8
    assert np.array_equal(dead_leaves(0, 7), PICTURES[7])
    assert len({picture.tobytes() for picture in PICTURES}) == 24
    assert not np.array_equal(dead_leaves(1, 7), PICTURES[7])


def test_colours_are_those_of_photographs():
    pixels = PICTURES.reshape(-1, 3) / 255
    assert np.abs(pixels.mean(0) - [0.485, 0.456, 0.406]).max() < 0.12  # ImageNet's mean
    assert np.abs(pixels.std(0) - 0.226).max() < 0.08  # and deviation
    correlations = np.corrcoef(pixels.T)[np.triu_indices(3, 1)]
    assert (correlations > 0.6).all()
    assert (correlations < 0.99).all()


def test_the_spectrum_falls_as_that_of_photographs():
    grey = PICTURES.mean(-1) - PICTURES.mean(axis=(1, 2, 3))[:, None, None]
    window = np.outer(np.hanning(256), np.hanning(256))
    power = (np.abs(np.fft.fft2(grey * window)) ** 2).mean(0)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(256), np.fft.fftfreq(256)))
    edges = np.geomspace(0.015, 0.45, 12)
    pairs = list(itertools.pairwise(edges))
    bands = [power[(frequency >= low) & (frequency < high)].mean() for low, high in pairs]
    slope = np.polyfit(np.log([np.sqrt(low * high) for low, high in pairs]), np.log(bands), 1)[0]
    assert -3.2 < slope < -2.2  # photographs: between -3 and -2
