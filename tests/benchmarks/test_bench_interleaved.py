from itertools import pairwise

import numpy as np
import pytest

from deepsim import benchmarks
from deepsim.benchmarks import interleaved
from deepsim.benchmarks.timing import Inputs
from deepsim.runtime.errors import NumericError


class Recorder:
    """A contender that writes down who was called."""

    def __init__(self, name, calls, image=7):
        self.name, self.calls, self.image = name, calls, image

    def encode(self, images):
        self.calls.append(self.name)
        return np.ones((len(images), 4), np.float32)

    def decode(self, features, full):
        self.calls.append(self.name)
        return np.full((len(features), 227, 227, 3), self.image, np.uint8)

    def reencode(self, images, iterations, keep):
        self.calls.append(self.name)
        return np.zeros((len(images), len(keep), 227, 227, 3), np.uint8)


def test_each_call_between_comes_right_after_one_of_the_other():
    calls, seen = [], []
    own, other = {"ours": Recorder("ours", calls)}, {"theirs": Recorder("theirs", calls)}
    rows = benchmarks.interleave(own, other, Inputs(227), (2,), 0.01, seen.append)
    assert [(row["what"], row["batch"], row["backend"], row["between"]) for row in rows] == [
        (what, 2, "ours", "theirs") for what in ("encode", "decode", "reencode")
    ]
    assert seen[1] == "decode x 2 ours between theirs"
    followed = [after for before, after in pairwise(calls) if before == "theirs"]
    assert followed.count("theirs") == 0 and followed.count("ours") >= sum(row["repeats"] for row in rows)


def test_figures_are_medians_over_rounds_and_the_ratio_is_of_one_round():
    figures = interleaved._figures([[0.010, 0.012, 0.5], [0.02]], [[0.012, 0.024, 0.030], [0.08, 0.08]])
    assert figures["alone_ms"] == pytest.approx(16) and figures["between_ms"] == pytest.approx(52)
    assert figures["ratio"] == pytest.approx((0.012 / 0.024 + 0.02 / 0.08) / 2) and figures["repeats"] == 5


def test_what_disagrees_is_not_timed_between():
    calls, refused = [], {}
    own, others = {"ours": Recorder("ours", calls)}, {"wrong": Recorder("wrong", calls, image=200)}
    with pytest.raises(NumericError, match="wrong: differs from ours by 193"):
        benchmarks.interleave(own, others, Inputs(227), (1,), 0.01)
    rows = benchmarks.interleave(own, others, Inputs(227), (1,), 0.01, refuse=refused.__setitem__)
    assert [row["what"] for row in rows] == ["encode", "reencode"] and list(refused) == ["wrong"]
