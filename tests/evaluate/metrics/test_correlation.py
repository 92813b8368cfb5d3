"""Identification equals a plain transcription of bdpy's, exactly for n ways, and ties and constants are told."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from deepsim.evaluate.metrics.correlation import Identification, byte_distance_and_correlation, identify, pearson
from deepsim.runtime.errors import NumericError, ShapeError


def pairwise_identification(pred, true):
    """Return bdpy 0.26's score of each row of ``pred``: the share of other rows of ``true`` that correlate less."""
    scores = []
    for i, reached in enumerate(pred.reshape(len(pred), -1).astype(np.float64)):
        found = [np.corrcoef(reached, original)[0, 1] for original in true.reshape(len(true), -1).astype(np.float64)]
        scores.append(sum(value - found[i] < 0 for value in found) / (len(found) - 1))
    return np.array(scores)


def pair(count=40, noise=6.0, dtype=np.float32):
    rng = np.random.default_rng(3)
    true = rng.normal(5, 2, (count, 3, 7, 4))
    return (true + rng.normal(0, noise, true.shape)).astype(dtype), true.astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8])
@pytest.mark.parametrize("block_rows", [1, 7, 100])
def test_two_ways_equal_bdpy(dtype, block_rows):
    pred, true = pair(dtype=np.float64)
    pred, true = ((np.clip(values * 10 + 60, 0, 255)).astype(dtype) for values in (pred, true))
    found = identify(pred, true, range(len(true)), block_bytes=block_rows * 4 * 84)
    expected = pairwise_identification(pred, true)
    assert 0.5 < expected.mean() < 0.99  # neither all right nor chance
    np.testing.assert_array_equal(found.n_way(2), expected)
    assert found.others.tolist() == [39] * 40


def test_reconstructions_of_some_originals_in_any_order():
    pred, true = pair()
    own = [31, 2, 17]
    found = identify(pred[own], true, own)
    np.testing.assert_array_equal(found.n_way(2), pairwise_identification(pred, true)[own])


def test_n_ways_equal_all_choices_of_others():
    beaten, others = 4, 6
    lower = [True] * beaten + [False] * (others - beaten)
    for ways in (2, 3, 5, 6, 7):
        choices = [all(chosen) for chosen in itertools.combinations(lower, ways - 1)]
        found = Identification(np.array([beaten]), np.array([others])).n_way(ways)
        assert found == pytest.approx([np.mean(choices)])
    assert np.isnan(Identification(np.array([6]), np.array([6])).n_way(8)).all()
    assert Identification(np.array([6, 5]), np.array([6, 6])).first.tolist() == [1, 0]
    with pytest.raises(ShapeError):
        Identification(np.array([6]), np.array([6])).n_way(1)


def test_an_equal_original_is_not_beaten_and_a_constant_one_is_no_rival():
    pred, true = pair(noise=0.1)
    true[5] = 3 * true[0] + 1  # correlates as the right one does
    true[9] = 4
    found = identify(pred, true, range(40))
    assert (found.others[0], found.beaten[0]) == (38, 37)
    assert (found.others[9], found.beaten[9]) == (39, 0)  # nobody's rival, and not found
    pred[3] = 7
    assert identify(pred, true, range(40)).beaten[3] == 0


def test_correlation_of_each_pair():
    pred, true = pair()
    assert pearson(pred, true) == pytest.approx(
        [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(pred, true, strict=True)]
    )
    far = 1e6 + np.arange(8.0).reshape(1, 8)
    assert pearson(far, -far) == pytest.approx([-1])
    assert np.isnan(pearson(np.full((1, 4), 0.1), np.arange(4.0)[None])).all()


def test_bytes_give_both_figures_at_once():
    rng = np.random.default_rng(8)
    a, b = (rng.integers(0, 256, (5, 90, 70, 3), dtype=np.uint8) for _ in range(2))
    a[3] = 77
    b[4] = a[4]
    distances, correlations = byte_distance_and_correlation(a, b)
    plain = [np.linalg.norm(x.astype(float) - y) for x, y in zip(a, b, strict=True)]
    assert distances == pytest.approx(plain) and distances[4] == 0
    assert correlations == pytest.approx(pearson(a, b), nan_ok=True) and np.isnan(correlations[3])


def test_what_does_not_fit_is_refused():
    pred, true = pair(4)
    with pytest.raises(ShapeError):
        pearson(pred, true[:2])
    with pytest.raises(ShapeError):
        identify(pred, true[:, :2], range(4))
    with pytest.raises(ShapeError):
        identify(pred, true, range(3))
    true[1, 0] = np.nan
    with pytest.raises(NumericError):
        identify(pred, true, range(4))
