"""Weird inputs: a result or a typed error, and the next call unchanged."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from deepsim.runtime import inputs
from deepsim.runtime.errors import DataError, DeepsimError, OutOfMemory, UsageError
from tests.bundles import photographs

BOUNDED = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
FEATURES = np.ones((2, 20), np.float32)

dtypes = st.one_of(hnp.scalar_dtypes(), hnp.unicode_string_dtypes(max_len=3), hnp.byte_string_dtypes(max_len=3))
arrays = hnp.arrays(dtypes, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
vectors = hnp.arrays(hnp.floating_dtypes(), st.tuples(st.integers(0, 3), st.integers(19, 21)))
texts = st.text(st.characters(exclude_characters="\n"), max_size=5)  # a path with a line break is shown as it is
scraps = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), texts, st.binary(max_size=5), arrays, vectors)
anything = st.one_of(scraps, st.lists(scraps, max_size=3), st.dictionaries(st.text(max_size=2), scraps, max_size=2))
images = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=4, min_side=0, max_side=3))


def answer(method, *arguments):
    """Return a result, or None for a typed error; let everything else fail the test."""
    try:
        return method(*arguments)
    except DeepsimError as error:
        assert "\n" not in str(error) and str(error).count(": ") >= 1 and str(error).endswith(".")
        return None


@BOUNDED
@given(value=anything)
def test_decode_answers_anything(tiny, value):
    wanted = tiny.decode(FEATURES)
    result = answer(tiny.decode, value)
    assert result is None or (result.shape[1:] == (227, 227, 3) and result.dtype == np.uint8)
    np.testing.assert_array_equal(tiny.decode(FEATURES), wanted)


@BOUNDED
@given(value=st.one_of(anything, images, st.lists(images, max_size=2)))
def test_encode_answers_anything(tiny, value):
    result = answer(tiny.encode, value)
    assert result is None or (result.shape[1:] == (20,) and np.isfinite(result).all())


@BOUNDED
@given(
    iterations=st.one_of(st.integers(0, 3), scraps),
    keep=st.one_of(scraps, st.lists(st.integers(-1, 3), max_size=3), st.tuples(scraps)),
)
def test_reencode_answers_any_iterations(tiny, iterations, keep):
    iterations = min(iterations, 3) if isinstance(iterations, int) else iterations
    answer(tiny.reencode, np.empty((0, 227, 227, 3), np.uint8), iterations, keep)


@BOUNDED
@given(a=scraps, b=scraps, steps=st.one_of(st.integers(-1, 4), st.none(), st.floats()))
def test_interpolate_answers_anything(tiny, a, b, steps):
    answer(tiny.interpolate, a, b, steps)


def test_feature_rows_are_float32_and_contiguous():
    rows = inputs.feature_rows(np.arange(12, dtype=np.float64).reshape(3, 4)[:, ::2])
    assert rows.dtype == np.float32 and rows.flags.c_contiguous and rows.tolist() == [[0, 2], [4, 6], [8, 10]]
    with pytest.raises(DataError, match="infinite"):
        inputs.feature_rows(np.array([[3.5e38]]))  # finite, but not as float32


def test_photographs_are_not_copied():
    photos = photographs(2)
    assert inputs.check_photos(photos) is photos
    assert inputs.check_photos(photos[0]).shape == (1, 227, 227, 3)
    assert inputs.check_photos("a.png") == ["a.png"]


def test_is_features_tells_features_from_photographs():
    assert inputs.is_features(np.zeros((96, 27, 27), np.float16), (96, 27, 27))
    assert inputs.is_features(np.zeros((1, 20)), (20,))
    assert not inputs.is_features(np.zeros((2, 20)), (20,))
    assert not inputs.is_features(np.zeros((3, 4, 3), np.uint8), (3, 4, 3))
    assert not inputs.is_features("photo.jpg", (20,))


def test_allocate_refuses_what_no_machine_holds():
    assert inputs.allocate((2, 3), np.uint8).shape == (2, 3)
    with pytest.raises(OutOfMemory, match="9,223,372,036,854,775,808 bytes"):
        inputs.allocate((1 << 60, 2), np.float32)


def test_check_keep():
    assert inputs.check_keep(8, [1, np.int64(4), 8]) == (1, 4, 8)
    with pytest.raises(UsageError, match="increasing"):
        inputs.check_keep(8, (4, 4))
