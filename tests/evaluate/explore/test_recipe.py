import numpy as np
import pytest

from deepsim.evaluate.explore.groups import Group
from deepsim.evaluate.explore.recipe import Direction, Recipe
from deepsim.runtime.errors import UsageError

SHAPE = (4, 3, 5)
RNG = np.random.default_rng(5)
CODES = {name: RNG.standard_normal(SHAPE).astype(np.float32) for name in "abcd"} | {"zero": np.zeros(SHAPE, np.float32)}


def make(**given):
    return Recipe.from_json({"start": "a", **given}, SHAPE).make(CODES.__getitem__)


def test_a_code_alone_is_itself():
    assert (make() == CODES["a"]).all() and (make(end="b", mix=0) == CODES["a"]).all()
    assert (make(end="b", mix=1) == CODES["b"]).all()


def test_the_line_the_directions_and_the_groups_in_this_order():
    made = make(
        end="b",
        mix=0.25,
        directions=[{"start": "c", "end": "d", "amount": -2}, {"end": "c", "amount": 0.5}],
        groups=[{"scale": 0, "channels": [1, 3]}, {"scale": 3, "rows": [0, 1], "columns": [2, 5]}],
    )
    a, b, c, d = (CODES[name].astype(float) for name in "abcd")
    expected = 0.75 * a + 0.25 * b - 2 * (d - c) + 0.5 * c
    expected[1:3] = 0
    expected[:, 0, 2:] *= 3
    np.testing.assert_allclose(made, expected, rtol=1e-5, atol=1e-6)
    assert made.dtype == np.float32 and not make(groups=[{"scale": 0}]).any()


def test_groups_compound():
    assert np.allclose(make(groups=[{"scale": 0.5}, {"scale": 0.5, "channels": [0, 1]}])[0], CODES["a"][0] / 4)


def test_the_largest_channels_of_a_block():
    code = np.zeros(SHAPE, np.float32)
    code[0, 0, 0], code[1], code[2, 2, 4], code[3, 1, 1] = 90, 2, -40, 30
    whole = Group(0, largest=2).units(code)
    assert whole.any(axis=(1, 2)).tolist() == [True, False, True, False] and whole[0].all()
    block = Group(0, rows=(1, 2), columns=(0, 3), largest=2).units(code)
    assert block.any(axis=(1, 2)).tolist() == [False, True, False, True] and block.sum() == 2 * 3
    within = Group(0, channels=(1, 3), largest=1).units(code)
    assert within.any(axis=(1, 2)).tolist() == [False, False, True, False]
    assert (Group(0, channels=(1, 3), largest=1, outside=True).units(code) == ~within).all()


def test_units_of_a_vector_by_range_and_by_size():
    code = np.array([1, -5, 2, 4], np.float32)
    assert Group(2, channels=(1, 3)).apply(code).tolist() == [1, -10, 4, 4]
    assert Group(0, largest=2).apply(code).tolist() == [1, 0, 2, 0]
    assert Group(0, largest=2, outside=True).apply(code).tolist() == [0, -5, 0, 4]
    assert Group(-1, largest=9).apply(code).tolist() == [-1, 5, -2, -4]


def test_a_direction_without_a_start_is_a_code_itself():
    assert Direction.from_json({"end": "b", "amount": 1}) == Direction("b", "zero", 1.0)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"start": None}, "recipe: start None, expected a text of 1 to 64 characters."),
        ({"start": "x" * 65}, "expected a text of 1 to 64 characters"),
        ({"mix": 1.01}, "recipe: mix 1.01, expected a number from 0 to 1."),
        ({"mix": float("nan")}, "recipe: mix nan, expected a number"),
        ({"mix": "half"}, "recipe: mix 'half', expected a number"),
        ({"mix": True}, "recipe: mix True, expected a number"),
        ({"mix": 10**400}, "recipe: mix 1000"),
        ({"path": "/etc/passwd"}, "recipe: unknown field 'path', expected start, end"),
        ({"directions": {}}, "recipe: directions an object, expected a list of at most 32."),
        ({"directions": [{"end": "b", "amount": 1}] * 33}, "expected a list of at most 32"),
        ({"directions": [{"amount": 1}]}, "direction: end None, expected a text"),
        ({"directions": [{"end": "b", "amount": 1e9}]}, "direction: amount 1000000000.0, expected a number from -16"),
        ({"groups": [7]}, "group: a number, expected an object."),
        ({"groups": [{"scale": None}]}, "group: scale None, expected a number from -8 to 8."),
        ({"groups": [{"scale": 0, "channels": [0, 5]}]}, "group: channels a list, expected two whole numbers"),
        ({"groups": [{"scale": 0, "rows": [2, 2]}]}, "group: rows a list, expected two whole numbers"),
        ({"groups": [{"scale": 0, "columns": [-1, 2]}]}, "group: columns a list"),
        ({"groups": [{"scale": 0, "columns": [0, True]}]}, "group: columns a list"),
        ({"groups": [{"scale": 0, "largest": 0}]}, "group: largest 0, expected a whole number from 1 to 4."),
        ({"groups": [{"scale": 0, "outside": 1}]}, "group: outside 1, expected true or false."),
    ],
)
def test_what_is_no_recipe_is_refused_by_its_field(given, line):
    with pytest.raises(UsageError) as refused:
        make(**given)
    assert line in str(refused.value) and "\n" not in str(refused.value)


def test_a_vector_has_no_rows():
    with pytest.raises(UsageError, match="rows of a code without any"):
        Recipe.from_json({"start": "a", "groups": [{"scale": 0, "rows": [0, 1]}]}, (20,))
    with pytest.raises(UsageError, match="recipe: a list, expected an object"):
        Recipe.from_json([], (20,))
