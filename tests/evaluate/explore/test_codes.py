import numpy as np
import pytest

from deepsim.evaluate.explore.codes import ZERO, Codes, Forgotten
from deepsim.runtime.errors import DataError, ShapeError


def code(value):
    return np.full(8, value, np.float32)


def test_a_code_is_kept_as_it_was_and_cannot_be_changed():
    codes, values = Codes((8,)), code(1)
    name = codes.add(values)
    values[:] = 7
    assert (codes.get(name).values == 1).all()
    with pytest.raises(ValueError, match="read-only"):
        codes.get(name).values[0] = 3


def test_the_same_code_has_one_id_and_another_photograph_another():
    codes, photograph = Codes((8,)), np.zeros((2, 2, 3), np.uint8)
    assert codes.add(code(1)) == codes.add(code(1)) != codes.add(code(1), photograph)
    assert codes.add(code(1), photograph) != codes.add(code(1), photograph + 1)
    assert len(codes) == 3


def test_the_least_recently_used_is_forgotten_first_and_comes_back_under_its_id():
    codes = Codes((8,), most_bytes=3 * 32)
    names = [codes.add(code(value)) for value in range(3)]
    codes.get(names[0])
    codes.add(code(3))
    with pytest.raises(Forgotten, match="no longer kept"):
        codes.get(names[1])
    assert [int(codes.get(name).values[0]) for name in (names[0], names[2])] == [0, 2]
    assert codes.add(code(1)) == names[1] and len(codes) == 3


def test_photographs_count_among_the_bytes_and_the_newest_code_always_stays():
    codes = Codes((8,), most_bytes=100)
    first = codes.add(code(1), np.zeros((8, 8, 3), np.uint8))
    assert codes.get(first).photograph.shape == (8, 8, 3)
    codes.add(code(2))
    with pytest.raises(Forgotten):
        codes.get(first)


def test_what_is_no_code_is_refused():
    codes = Codes((8,))
    with pytest.raises(ShapeError, match=r"shape \(9,\), expected \(8,\)"):
        codes.add(np.zeros(9))
    with pytest.raises(DataError, match="NaN"):
        codes.add(np.full(8, np.nan))
    with pytest.raises(DataError, match="infinite"):
        codes.add(np.full(8, 1e300))
    for name in ("nothing", "../../etc/passwd", ""):
        with pytest.raises(Forgotten):
            codes.get(name)
    assert not codes.get(ZERO).values.any()
