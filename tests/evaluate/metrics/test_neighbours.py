"""Nearest neighbours equal a sort of all distances, whatever the blocks."""

from __future__ import annotations

import numpy as np
import pytest

from deepsim.evaluate.metrics.neighbours import nearest
from deepsim.runtime.errors import NumericError, ShapeError


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("block_rows", [1, 6, 100])
def test_neighbours_equal_a_sort_of_all_distances(dtype, block_rows):
    rng = np.random.default_rng(4)
    queries, among = (rng.integers(0, 256, (count, 3, 11)).astype(dtype) for count in (9, 31))
    among[20] = among[4]  # of equal ones the first comes first
    queries[2] = among[4]
    told = []
    found = nearest(queries, among, 3, block_rows * among[0].nbytes, told.append)
    for number, query in enumerate(queries.astype(float)):
        distances = np.sqrt(((among.astype(float) - query) ** 2).sum((1, 2)))
        order = np.argsort(distances, kind="stable")[:3]
        assert found.rows[number].tolist() == order.tolist()
        assert found.distances[number] == pytest.approx(distances[order])
    assert found.rows[2, :2].tolist() == [4, 20] and found.distances[2, 0] == 0
    assert told[-1] == 9


def test_fewer_rows_than_neighbours():
    assert nearest(np.zeros((2, 1)), np.array([[2.0], [1.0]]), 5).rows.tolist() == [[1, 0], [1, 0]]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_what_does_not_fit_is_refused():
    for queries, among in ((np.zeros((1, 2)), np.zeros((1, 3))), (np.zeros((1, 2)), np.zeros((0, 2)))):
        with pytest.raises(ShapeError):
            nearest(queries, among)
    with pytest.raises(NumericError):
        nearest(np.zeros((1, 2)), np.array([[0.0, np.nan]]))
