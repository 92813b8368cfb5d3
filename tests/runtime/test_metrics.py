from __future__ import annotations

import math

import numpy as np
import pytest

from deepsim.runtime.errors import NumericError, ShapeError
from deepsim.runtime.metrics import euclidean_distances, mean_pairwise_distance, normalized_error, psnr, rmse


def loop_distance(a, b) -> float:
    return math.sqrt(sum((float(x) - float(y)) ** 2 for x, y in zip(a.ravel(), b.ravel(), strict=True)))


def loop_pairs(rows) -> float:
    total, pairs = 0.0, 0
    for i in range(len(rows)):
        for j in range(i + 1, len(rows)):
            total, pairs = total + loop_distance(rows[i], rows[j]), pairs + 1
    return total / pairs


def arrays(dtype, shape=(5, 3, 4, 2)):
    rng = np.random.default_rng(0)
    values = rng.integers(0, 256, (2, *shape)) if dtype == np.uint8 else rng.normal(7, 3, (2, *shape))
    return values.astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_errors_equal_double_loops(dtype):
    a, b = arrays(dtype)
    distances = [loop_distance(x, y) for x, y in zip(a, b, strict=True)]
    assert euclidean_distances(a, b) == pytest.approx(distances)
    assert rmse(a, b) == pytest.approx([d / math.sqrt(24) for d in distances])
    assert psnr(a, b) == pytest.approx([20 * math.log10(255 / (d / math.sqrt(24))) for d in distances])
    assert mean_pairwise_distance(b) == pytest.approx(loop_pairs(b))
    assert normalized_error(a, b) == pytest.approx(np.mean(distances) / loop_pairs(b))


def test_reference_other_than_b_normalizes():
    a, b = arrays(np.float32)
    reference = np.random.default_rng(1).normal(size=(7, 3, 4, 2))
    expected = np.mean([loop_distance(x, y) for x, y in zip(a, b, strict=True)]) / loop_pairs(reference)
    assert normalized_error(a, b, reference) == pytest.approx(expected)


def test_wide_rows_cross_the_chunk_border():
    rows = np.random.default_rng(2).integers(0, 256, (4, 20_000), dtype=np.uint8)
    expected = np.mean([np.linalg.norm(rows[i].astype(float) - rows[j]) for i in range(4) for j in range(i + 1, 4)])
    assert mean_pairwise_distance(rows) == pytest.approx(expected)


def test_close_rows_far_from_zero_keep_their_distance():
    rows = np.full((3, 50), 1e6)
    rows[1] += 1e-3
    rows[2] -= 1e-3
    assert mean_pairwise_distance(rows) == pytest.approx((2 * 1e-3 + 2e-3) * math.sqrt(50) / 3, rel=1e-4)


def test_uint8_differences_do_not_wrap():
    black, white = np.zeros((1, 2), np.uint8), np.full((1, 2), 255, np.uint8)
    assert rmse(black, white)[0] == 255
    assert psnr(black, white)[0] == 0
    assert psnr(white, white)[0] == math.inf


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: rmse(np.zeros((2, 3)), np.zeros((2, 4))), ShapeError),
        (lambda: euclidean_distances(np.zeros(3), np.zeros(3)), ShapeError),
        (lambda: mean_pairwise_distance(np.zeros((1, 3))), ShapeError),
        (lambda: normalized_error(np.zeros((0, 3)), np.zeros((0, 3)), np.eye(3)), ShapeError),
        (lambda: normalized_error(np.zeros((2, 3)), np.eye(3)[:2], np.eye(4)), ShapeError),
        (lambda: normalized_error(np.ones((2, 3)), np.zeros((2, 3))), NumericError),
        (lambda: rmse(np.full((1, 2), np.nan), np.zeros((1, 2))), NumericError),
        (lambda: mean_pairwise_distance(np.array([[np.inf], [0.0]])), NumericError),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_undefined_errors_are_refused(call, error):
    with pytest.raises(error):
        call()
