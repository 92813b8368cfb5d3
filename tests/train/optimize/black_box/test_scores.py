"""Scores from a unit of an encoder and from a user's function."""

import sys

import numpy as np
import pytest

from deepsim.runtime.errors import BundleError, DataError, ShapeError, UsageError
from deepsim.runtime.inverter import Inverter
from deepsim.train.optimize.black_box.scores import UnitScore, load_score, parse_unit, repeat
from tests.bundles import photographs, write_bundle


@pytest.fixture(scope="module")
def conv(tmp_path_factory):
    with Inverter(write_bundle(tmp_path_factory.mktemp("small"), "small"), "cpu") as opened:
        yield opened


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Return a module of scores in the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "users_scores.py").write_text(
        "def bright(images):\n    return images.mean(axis=(1, 2, 3))\n"
        "def broken(images):\n    return 1 / 0\n"
        "def one(images):\n    return 1.0\n"
        "def words(images):\n    return ['good'] * len(images)\n"
        "number = 3\n"
    )
    (tmp_path / "users_mistake.py").write_text("import nowhere_at_all\n")
    yield "users_scores"
    sys.modules.pop("users_scores", None)


def test_a_unit_of_a_vector(inverter):
    photos = photographs(3)
    assert (UnitScore(inverter, 11)(photos) == inverter.encode(photos)[:, 11]).all()


def test_a_unit_of_a_map_and_images_of_another_size(conv):
    photos = photographs(3)  # 227 pixels, for an encoder of 64
    scores = UnitScore(conv, (1, 2, 3))(photos)
    assert (scores == conv.encode(photos)[:, 1, 2, 3]).all() and np.ptp(scores) > 0


@pytest.mark.parametrize("unit", [20, -1, (1, 2, 3)])
def test_units_that_a_vector_lacks(inverter, unit):
    with pytest.raises(UsageError, match=r"expected an index within the \(20,\) features of layer fc6"):
        UnitScore(inverter, unit)


@pytest.mark.parametrize("unit", [5, (4, 0, 0), (0, 8, 0), (0, 0)])
def test_units_that_a_map_lacks(conv, unit):
    with pytest.raises(UsageError, match=r"expected c,y,x within the \(4, 8, 8\) features of layer conv1"):
        UnitScore(conv, unit)


def test_units_in_words():
    assert (parse_unit("12"), parse_unit("1,2,3")) == ((12,), (1, 2, 3))
    with pytest.raises(UsageError, match="--unit a: expected an index, or c,y,x"):
        parse_unit("a")


def test_a_bundle_without_an_encoder(tmp_path):
    from tests.bundles import write_kind

    with Inverter(write_kind(tmp_path, "none"), "cpu") as decoder, pytest.raises((UsageError, BundleError)):
        UnitScore(decoder, (0, 0, 0))(photographs(1))


def test_a_function(module):
    photos = photographs(2)
    trials = repeat(load_score(f"{module}:bright"), photos, 3)
    assert trials.shape == (2, 3) and (trials == photos.mean(axis=(1, 2, 3))[:, None]).all()


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("users_scores", "expected MODULE:FUNCTION"),
        (":bright", "expected MODULE:FUNCTION"),
        ("users_scores:dark", "no function of that name"),
        ("users_scores:number", "no function of that name"),
        ("nowhere_at_all:score", "not importable .*No module named 'nowhere_at_all'"),
        ("users_mistake:score", "not importable .*users_mistake.py line 1"),
    ],
)
def test_references_that_lead_nowhere(module, reference, message):
    with pytest.raises(UsageError, match=message):
        load_score(reference)


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("broken", DataError, "ZeroDivisionError: division by zero, .*users_scores.py line 4"),
        ("one", ShapeError, r"scores: shape \(\), expected \(2,\)"),
        ("words", DataError, "scores: not numbers"),
    ],
)
def test_functions_that_give_no_scores(module, name, error, message):
    with pytest.raises(error, match=message):
        repeat(load_score(f"{module}:{name}"), photographs(2), 1)
