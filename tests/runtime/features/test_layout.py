"""Orders of axes: named by the user, or the only one that fits."""

import re

import numpy as np
import pytest

from deepsim.runtime.errors import ShapeError, UsageError
from deepsim.runtime.features import fit_rows

VALUES = np.random.default_rng(0).standard_normal((3, 2, 4, 5)).astype(np.float32)


def test_fit_rows_and_its_hints():
    flat = VALUES.reshape(3, 40)
    np.testing.assert_array_equal(fit_rows(flat, (2, 4, 5), "f"), VALUES)
    assert np.shares_memory(fit_rows(VALUES, (2, 4, 5), "f"), VALUES)
    for other, order in ((flat.T, "(CHW)N"), (VALUES.T, "WHCN"), (np.moveaxis(VALUES, 0, -1), "CHWN")):
        with pytest.raises(ShapeError, match=re.escape(f"--axes {order}")):
            fit_rows(other, (2, 4, 5), "f")
        np.testing.assert_array_equal(fit_rows(other, (2, 4, 5), "f", order), VALUES)
    with pytest.raises(ShapeError, match="layer of this bundle"):
        fit_rows(flat[:, :39], (2, 4, 5), "f")


@pytest.mark.parametrize(
    ("axes", "turned"),
    [
        ("NCHW", lambda f: f),
        ("NHWC", lambda f: f.transpose(0, 2, 3, 1)),
        ("HWCN", lambda f: f.transpose(2, 3, 1, 0)),
        ("WHCN", lambda f: f.T),
        ("whcn", lambda f: f.T),
        ("CHWN", lambda f: f.transpose(1, 2, 3, 0)),
        ("N(CHW)", lambda f: f.reshape(len(f), -1)),
        ("N(CWH)", lambda f: f.transpose(0, 1, 3, 2).reshape(len(f), -1)),
        ("(HWC)N", lambda f: f.transpose(2, 3, 1, 0).reshape(-1, len(f))),
        ("C(HW)N", lambda f: f.transpose(1, 2, 3, 0).reshape(2, 9, -1)),
    ],
)
def test_any_order_of_axes_that_is_named(axes, turned):
    square = np.random.default_rng(1).standard_normal((5, 2, 3, 3)).astype(np.float32)
    np.testing.assert_array_equal(fit_rows(turned(square), (2, 3, 3), "f", axes), square)


def test_what_could_be_read_in_two_ways_is_asked_for():
    square = np.zeros((3, 3, 2, 5), np.float32)  # MatConvNet's, or an NCHW array as MATLAB sees it
    with pytest.raises(ShapeError, match="can be read as HWCN or WHCN"):
        fit_rows(square, (2, 3, 3), "f")
    for both in (np.zeros((4, 4)), np.zeros((18, 18))):
        with pytest.raises(ShapeError, match="can be read as"):
            fit_rows(both, (4,) if len(both) == 4 else (2, 3, 3), "f")
    assert fit_rows(np.zeros((4, 4)), (4,), "f", "NC").shape == (4, 4)


def test_trailing_axes_that_matlab_drops():
    values = np.arange(6, dtype=np.float32).reshape(1, 2, 3, 1)  # one photograph; one column
    for axes, seen in (("NCHW", values[..., 0]), ("HWCN", values.transpose(2, 3, 1, 0)[..., 0]), ("CHW", values[0])):
        np.testing.assert_array_equal(fit_rows(seen, (2, 3, 1), "f", axes), values)
    np.testing.assert_array_equal(fit_rows(values[0, 0, :, 0], (3,), "f", "C"), values[:1, 0, :, 0])


@pytest.mark.parametrize("axes", ["NCH", "NCHWW", "ABCD", "N(CH)", "(NC)HW", "NCHW ", "", "N((CHW))", "CN"])
def test_an_order_that_is_none(axes):
    with pytest.raises(UsageError, match="expected each of NCHW once"):
        fit_rows(VALUES, (2, 4, 5), "f", axes)


def test_features_without_extent_in_arrays_with_four_axes():
    codes = np.random.default_rng(2).standard_normal((5, 7)).astype(np.float32)
    np.testing.assert_array_equal(fit_rows(codes[:, :, None, None], (7,), "f"), codes)  # Caffe, PyTorch
    matconvnet = codes.T[None, None]  # (1, 1, C, N), read alike as HWCN and as WHCN
    with pytest.raises(ShapeError, match="can be read as HWCN, expected"):
        fit_rows(matconvnet, (7,), "f")
    for axes in ("HWCN", "WHCN"):
        np.testing.assert_array_equal(fit_rows(matconvnet, (7,), "f", axes), codes)
    np.testing.assert_array_equal(fit_rows(matconvnet[..., 0], (7,), "f", "HWCN"), codes[:1])  # N = 1, dropped
    with pytest.raises(ShapeError, match="expected NCHW of"):
        fit_rows(matconvnet, (7,), "f", "NCHW")
