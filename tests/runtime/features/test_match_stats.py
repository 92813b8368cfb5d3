"""Each normalisation against a plain transcription of the rule that it is named after, number by number."""

import math

import numpy as np
import pytest

from deepsim.runtime.errors import DataError, UsageError
from deepsim.runtime.features.match_stats import RULES, find_rule, match_stats
from deepsim.runtime.features.statistics import Statistics

RNG = np.random.default_rng(0)
SHAPES = [(7,), (3, 4, 5)]


def mean(values):
    return math.fsum(values) / len(values)


def sd(values, ddof):
    middle = mean(values)
    return math.sqrt(math.fsum((value - middle) ** 2 for value in values) / (len(values) - ddof))


def channels(f):
    """The lists of numbers that count as channels: of a code all units are one."""
    return [f.tolist()] if f.ndim == 1 else [channel.ravel().tolist() for channel in f]


def icnn(f, sd0, y_mean):
    s = mean([sd(channel, 0) for channel in channels(f)])
    return f / s * mean(sd0.tolist())


def feature_std(f, sd0, y_mean):
    s, m = mean([sd(channel, 1) for channel in channels(f)]), mean(f.ravel().tolist())
    return m + (f - m) / s * mean(sd0.tolist())


def train_mean_center(f, sd0, y_mean):
    return feature_std(f - y_mean, sd0, y_mean) + y_mean


def fg(f, sd0, y_mean):
    return np.array([y if math.isnan(x) else x for x, y in zip(f.ravel(), y_mean.ravel(), strict=True)]).reshape(
        f.shape
    )


def fg_relu(f, sd0, y_mean):
    clipped = np.array([max(x, 0) for x in f.ravel()]).reshape(f.shape) - y_mean
    rows = [
        [(x - mean(channel)) / sd(channel, 1) * scale + mean(channel) for x in channel]
        for channel, scale in zip(channels(clipped), sd0, strict=True)
    ]
    return np.array(rows).reshape(f.shape) + y_mean


def fg_iterative(f, sd0, y_mean):
    values, first = f.ravel().tolist(), mean(f.ravel().tolist())
    for _ in range(3):
        m, s = mean(values), sd(values, 1)
        values = [max((x - m) / s * mean(sd0.tolist()) + first, 0) for x in values]
    return np.array(values).reshape(f.shape)


def illusion(f, sd0, y_mean):
    values = f.ravel().tolist()
    m, s = mean(values), sd(values, 1)
    return np.array([(x - m) / s * mean(sd0.tolist()) + m for x in values]).reshape(f.shape)


TRANSCRIBED = {
    "icnn": icnn,
    "feature_std": feature_std,
    "feature_std_train_mean_center": train_mean_center,
    "fg": fg,
    "fg_relu": fg_relu,
    "fg_iterative=3": fg_iterative,
    "illusion": illusion,
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rule", TRANSCRIBED)
def test_a_rule_is_what_it_is_named_after(rule, shape):
    f, y_mean = RNG.standard_normal(shape) * 3 + 1, RNG.random(shape)
    sd0 = RNG.random(shape[0] if len(shape) > 1 else 1) + 0.5
    if rule == "fg":
        f.ravel()[[1, 5]] = np.nan
    found = match_stats(f, rule, Statistics(mean=y_mean, channel_sd=sd0))
    np.testing.assert_allclose(found, TRANSCRIBED[rule](f, sd0, y_mean), rtol=2e-6, atol=1e-6)
    assert found.dtype == np.float32


def test_every_rule_is_tested():
    assert {rule.partition("=")[0] for rule in TRANSCRIBED} == set(RULES)


@pytest.mark.parametrize("text", ["icnnn", "icnn=2", "fg_iterative", "fg_iterative=x", ""])
def test_unknown_rules(text):
    with pytest.raises(UsageError, match="expected one of icnn, feature_std,"):
        find_rule(text)


@pytest.mark.parametrize("rule", TRANSCRIBED)
def test_what_a_rule_needs_is_named(rule):
    with pytest.raises(UsageError, match=r"no (mean|channel sd) known. Name files with --stats"):
        match_stats(RNG.random(7), rule, Statistics())


@pytest.mark.parametrize("rule", ["icnn", "feature_std", "fg_relu", "fg_iterative=1", "illusion"])
def test_features_without_spread_are_refused(rule):
    with pytest.raises(DataError, match="all values of it or of a channel are equal"):
        match_stats(np.ones(7), rule, Statistics(mean=np.zeros(7), channel_sd=np.ones(1)))
