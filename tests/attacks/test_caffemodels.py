"""Caffe models that are cut or changed by a byte: a typed error or the same weights, never others without a word.

``damage_caffemodels.py`` does the same to any files, at as many places as wanted.
"""

import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "attacks"))

from damage_caffemodels import damage, outcome, reader_for, structure  # noqa: E402

FILES = ("norm1", "variants/v1", "variants/unpacked", "variants/training_layers")


@pytest.mark.parametrize("name", FILES)
def test_damage_is_refused_or_changes_nothing_else(name):
    data = (ROOT / f"data/caffe/{name}.caffemodel").read_bytes()
    read, whole = reader_for(data)
    counts = Counter((kind, outcome(read, whole, damaged)) for kind, _, damaged in damage(data, cuts=40, flips=100))
    assert not [key for key in counts if key[1] == "wrong"]
    assert counts["cut", "refused"] + counts["cut", "same"] == 40 and counts["cut", "refused"] > 30
    assert counts["flip between arrays", "refused"] > 50


def test_the_places_between_arrays_are_found():
    data = (ROOT / "data/caffe/norm1.caffemodel").read_bytes()
    assert 1000 < len(structure(data)) < 6000


def test_an_outcome_tells_other_weights_from_the_same():
    data = (ROOT / "data/caffe/norm1.caffemodel").read_bytes()
    read, whole = reader_for(data)
    weights = whole[0].weights["Rconv6.weight"].tobytes()
    place = data.index(weights[:64])
    assert outcome(read, whole, data) == "same"
    assert outcome(read, whole, data[: place + 2] + b"\x00" + data[place + 3 :]) == "one number"
    assert outcome(read, whole, data[:place] + bytes(16) + data[place + 16 :]) == "wrong"
    assert outcome(read, whole, data[:-1]) == "refused"
