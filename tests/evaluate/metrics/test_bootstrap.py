"""Bootstrap intervals: seeded, equal to SciPy's, and as often right as they say."""

from __future__ import annotations

import numpy as np
import pytest

from deepsim.evaluate.metrics.bootstrap import Bootstrap
from deepsim.runtime.errors import ShapeError, UsageError


def first(means):
    return means[..., 0]


def ratio(means):
    return means[..., 0] / means[..., 1]


@pytest.mark.parametrize(("kind", "theirs"), [("bca", "BCa"), ("percentile", "percentile")])
def test_intervals_equal_scipys(kind, theirs):
    stats = pytest.importorskip("scipy.stats")
    columns = np.random.default_rng(0).exponential(size=(60, 2))
    found = Bootstrap(10_000, kind=kind).intervals(columns, [first, ratio])
    expected = [
        stats.bootstrap((columns[:, 0],), np.mean, n_resamples=10_000, rng=1, method=theirs),
        stats.bootstrap(
            (columns[:, 0], columns[:, 1]),
            lambda a, b, axis=-1: a.mean(axis) / b.mean(axis),
            n_resamples=10_000,
            rng=1,
            method=theirs,
            paired=True,
            vectorized=True,
        ),
    ]
    for own, other in zip(found, expected, strict=True):
        width = other.confidence_interval.high - other.confidence_interval.low
        assert (own.low, own.high) == pytest.approx(tuple(other.confidence_interval), abs=0.04 * width)
    assert found[0].value == pytest.approx(columns[:, 0].mean())


@pytest.mark.parametrize("kind", ["bca", "percentile"])
def test_intervals_hold_the_truth_about_as_often_as_they_say(kind):
    rng, hits = np.random.default_rng(1), 0
    for trial in range(150):
        (found,) = Bootstrap(400, 0.9, trial, kind).intervals(rng.normal(3, 1, (40, 1)), [first])
        hits += found.low <= 3 <= found.high
    assert 0.82 <= hits / 150 <= 0.97


def test_the_seed_decides_and_parts_of_the_drawing_do_not():
    columns = np.random.default_rng(2).normal(size=(50, 1))
    once, again, other = (Bootstrap(500, seed=seed).intervals(columns, [first]) for seed in (4, 4, 5))
    assert once == again != other
    (wider,) = Bootstrap(500, seed=4).intervals(np.hstack([columns, columns]), [first])  # other columns, same resamples
    assert (wider.low, wider.high) == pytest.approx((once[0].low, once[0].high), rel=1e-12)


def test_what_does_not_vary_and_what_is_not_defined():
    (same,) = Bootstrap().intervals(np.full((9, 1), 2.0), [first])
    assert (same.value, same.low, same.high) == (2, 2, 2)
    (alone,) = Bootstrap().intervals(np.array([[7.0]]), [first])
    assert (alone.value, alone.low, alone.high) == (7, 7, 7)
    (undefined,) = Bootstrap().intervals(np.full((9, 1), np.nan), [first])
    assert undefined.to_json() == {"value": None, "low": None, "high": None}


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ShapeError):
        Bootstrap().intervals(np.zeros((0, 1)), [first])
    for changes in ({"confidence": 1.0}, {"resamples": 0}):
        with pytest.raises(UsageError):
            Bootstrap(**changes)
