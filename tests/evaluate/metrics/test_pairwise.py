"""N over any number of rows: streamed, exact, equal to brute force, in memory that does not grow."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest

from deepsim.evaluate.metrics.pairwise import squared_distances, streamed_mean_distance
from deepsim.evaluate.metrics.rows import blocks
from deepsim.runtime.errors import NumericError, ShapeError
from deepsim.runtime.metrics import mean_pairwise_distance


def rows_of(dtype, count=23, width=2500):
    rng = np.random.default_rng(1)
    values = rng.integers(0, 256, (count, width // 5, 5)) if dtype == np.uint8 else rng.normal(90, 3, (count, width))
    return values.astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32, np.float64])
@pytest.mark.parametrize("block_rows", [1, 5, 22, 100])
def test_blocks_of_any_size_equal_brute_force(dtype, block_rows):
    rows = rows_of(dtype)
    block_bytes = block_rows * rows[0].nbytes
    assert streamed_mean_distance(rows, block_bytes) == pytest.approx(mean_pairwise_distance(rows), rel=1e-12)


def test_bytes_are_compared_in_whole_numbers():
    rng = np.random.default_rng(2)
    a, b = (rng.choice([0, 255], (4, 9000)).astype(np.uint8) for _ in range(2))
    exact = [[sum((int(p) - int(q)) ** 2 for p, q in zip(x, y, strict=True)) for y in b] for x in a]
    assert squared_distances(a, b).tolist() == exact


def test_close_rows_far_from_zero_keep_their_distance():
    rows = np.full((3, 50), 1e6)
    rows[1] += 1e-3
    rows[2] -= 1e-3
    assert streamed_mean_distance(rows, 1) == pytest.approx((2 * 1e-3 + 2e-3) * math.sqrt(50) / 3, rel=1e-4)


def test_blocks_of_an_earlier_run_are_not_computed_again():
    rows, first, told = rows_of(np.float32), {}, []
    whole = streamed_mean_distance(
        rows, 4 * rows[0].nbytes, finished=lambda block, total, _: first.update({block: total})
    )
    assert sorted(first) == [0, 1, 2, 3, 4, 5]
    known = {block: first[block] for block in (0, 1, 2)}
    rows[:4] = np.nan  # the first block is not read again
    again = streamed_mean_distance(
        rows, 4 * rows[0].nbytes, known, lambda block, total, share: told.append((block, total, share))
    )
    assert again == whole and [block for block, _, _ in told] == [0, 1, 2, 3, 4, 5]
    shares = [share for *_, share in told]
    assert (
        shares == sorted(shares) and shares[-1] == pytest.approx(1) and shares[0] == pytest.approx(1 - (19 / 23) ** 2)
    )


class Counted:
    """Rows that are made when they are read, so that only what the function keeps is in memory."""

    dtype = np.dtype(np.uint8)

    def __init__(self, count):
        self.shape = (count, 1000)

    def __getitem__(self, part):
        numbers = np.arange(*part.indices(self.shape[0]))[:, None]
        return ((numbers * 37 + np.arange(1000) * (1 + numbers % 7)) % 256).astype(np.uint8)


def test_memory_is_that_of_a_few_blocks():
    tracemalloc.start()
    streamed_mean_distance(Counted(2048), 64 * 1000)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 4e6  # all distances would take 34e6


def test_a_part_of_many_rows_equals_brute_force():
    many = Counted(700)
    assert streamed_mean_distance(many, 1 << 18) == pytest.approx(mean_pairwise_distance(many[0:700]), rel=1e-12)


def test_slices_cover_all_rows_once():
    assert [part.indices(7)[:2] for part in blocks(7, 3, 1, 9)] == [(0, 3), (3, 6), (6, 7)]
    assert blocks(2, 1000, 8, 1) == [slice(0, 1), slice(1, 2)]
    assert [part.stop for part in blocks(2500, 1, 1)] == [1024, 2048, 2500]  # whose distances take memory too


@pytest.mark.parametrize(
    ("rows", "error"),
    [
        (np.zeros((1, 3)), ShapeError),
        (np.zeros(3), ShapeError),
        (np.array([[0.0], [np.nan]]), NumericError),
        (np.array([[np.inf], [0.0]]), NumericError),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_undefined_distances_are_refused(rows, error):
    with pytest.raises(error):
        streamed_mean_distance(rows)


def test_rows_of_other_widths_are_refused():
    with pytest.raises(ShapeError):
        squared_distances(np.zeros((1, 2)), np.zeros((1, 3)))
