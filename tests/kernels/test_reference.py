"""The numpy twins against the definitions, written out as loops over single elements."""

import numpy as np
import pytest

from deepsim.kernels import reference

RNG = np.random.default_rng(7)


def loops_convolve(x, weight, bias, stride, padding, groups):
    n, _c, h, w = x.shape
    out, per_group, k, _ = weight.shape
    ho, wo = (h + 2 * padding - k) // stride + 1, (w + 2 * padding - k) // stride + 1
    y = np.zeros((n, out, ho, wo))
    for b, o, i, j in np.ndindex(y.shape):
        total = bias[o]
        group = o // (out // groups)
        for ci, r, s in np.ndindex(per_group, k, k):
            row, column = i * stride + r - padding, j * stride + s - padding
            if 0 <= row < h and 0 <= column < w:
                total += x[b, group * per_group + ci, row, column] * weight[o, ci, r, s]
        y[b, o, i, j] = total
    return y


def loops_upconvolve(x, weight, bias, stride, padding, output_padding=0):
    """Scatter: every input pixel adds its kernel to the output (the transposed convolution's definition)."""
    n, _c, h, w = x.shape
    _, out, k, _ = weight.shape
    full = np.zeros((n, out, (h - 1) * stride + k + output_padding, (w - 1) * stride + k + output_padding))
    for b, ci, i, j in np.ndindex(x.shape):
        full[b, :, i * stride : i * stride + k, j * stride : j * stride + k] += x[b, ci, i, j] * weight[ci]
    stop = -padding or None
    return full[:, :, padding:stop, padding:stop] + bias[:, None, None]


@pytest.mark.parametrize(
    ("c", "out", "k", "stride", "padding", "groups", "h", "w"),
    [(4, 6, 3, 1, 1, 2, 5, 4), (3, 2, 5, 2, 2, 1, 7, 6), (2, 3, 2, 1, 0, 1, 4, 4), (3, 4, 11, 4, 0, 1, 19, 15)],
)
def test_convolve_equals_the_loops(c, out, k, stride, padding, groups, h, w):
    x, weight = RNG.standard_normal((2, c, h, w)), RNG.standard_normal((out, c // groups, k, k))
    bias = RNG.standard_normal(out)
    expected = loops_convolve(x, weight, bias, stride, padding, groups)
    np.testing.assert_allclose(reference.convolve(x, weight, bias, stride, padding, groups), expected, atol=1e-12)


@pytest.mark.parametrize(
    ("k", "stride", "padding", "output_padding"),
    [(4, 2, 1, 0), (3, 1, 1, 0), (4, 2, 0, 0), (2, 2, 0, 0), (5, 2, 2, 1), (3, 3, 1, 2)],
)
def test_bed_of_nails_and_a_convolution_are_the_transposed_convolution(k, stride, padding, output_padding):
    x, weight, bias = RNG.standard_normal((2, 3, 4, 5)), RNG.standard_normal((3, 2, k, k)), RNG.standard_normal(2)
    expected = loops_upconvolve(x, weight, bias, stride, padding, output_padding)
    found = reference.upconvolve(x, weight, bias, stride, padding, output_padding=output_padding)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_bed_of_nails_inserts_zeros_between_pixels():
    spread = reference.bed_of_nails(np.array([[[[1.0, 2.0], [3.0, 4.0]]]]), 2)
    np.testing.assert_array_equal(spread[0, 0], [[1, 0, 2], [0, 0, 0], [3, 0, 4]])


def test_upconv_lrelu_doubles_the_size_and_leaks():
    x = -np.ones((1, 1, 2, 2))
    y = reference.upconv_lrelu(x, np.ones((1, 1, 4, 4)), np.zeros(1))
    assert y.shape == (1, 1, 4, 4)
    np.testing.assert_allclose(y[0, 0], -0.3 * np.array([[1, 2, 2, 1], [2, 4, 4, 2], [2, 4, 4, 2], [1, 2, 2, 1]]))


def test_local_response_norm_follows_the_formula():
    x = 100 * RNG.standard_normal((1, 7, 2, 2))
    expected = np.empty_like(x)
    for b, c, i, j in np.ndindex(x.shape):
        neighbours = [x[b, d, i, j] ** 2 for d in range(max(0, c - 2), min(7, c + 3))]
        expected[b, c, i, j] = x[b, c, i, j] / (1 + 1e-4 / 5 * sum(neighbours)) ** 0.75
    np.testing.assert_allclose(reference.local_response_norm(x), expected, rtol=1e-13)


@pytest.mark.parametrize(
    ("size", "ceil_mode", "extent"), [(55, True, 27), (62, True, 31), (62, False, 30), (6, True, 3)]
)
def test_max_pool_rounds_as_caffe_does(size, ceil_mode, extent):
    x = RNG.standard_normal((1, 2, size, size))
    y = reference.max_pool(x, 3, 2, ceil_mode)
    assert y.shape == (1, 2, extent, extent)
    for i, j in np.ndindex(extent, extent):
        np.testing.assert_array_equal(y[..., i, j], x[:, :, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].max((2, 3)))
