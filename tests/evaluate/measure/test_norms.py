"""N is computed once for a set of rows, goes on after a kill, and is not defined for too few or equal rows."""

from __future__ import annotations

import numpy as np
import pytest

from deepsim.evaluate.measure import norms as module
from deepsim.evaluate.measure.norms import Norms
from deepsim.runtime.errors import DataError
from deepsim.runtime.metrics import mean_pairwise_distance


def test_n_is_kept_with_the_identity_of_its_rows(tmp_path, monkeypatch):
    rows, norms = np.random.default_rng(0).normal(size=(9, 4)), Norms(tmp_path)
    assert not norms.knows(["a"])
    found = norms.mean_distance(rows, "space", "a")
    assert found == pytest.approx(mean_pairwise_distance(rows))
    monkeypatch.setattr(module, "streamed_mean_distance", lambda *_: pytest.fail("computed twice"))
    assert norms.mean_distance(rows, "space", "a") == norms.known("a") == found
    assert norms.entries(["a", "none"]) == [{"space": "space", "photographs": 9, "mean_distance": found}]


def test_lines_that_a_kill_tore_do_not_count(tmp_path, monkeypatch):
    rows, norms = np.random.default_rng(1).normal(size=(8, 4)), Norms(tmp_path)
    monkeypatch.setattr(module, "BLOCK_BYTES", 2 * 4 * 8)
    known = []
    monkeypatch.setattr(module, "streamed_mean_distance", lambda rows, size, sums, finished: known.append(sums) or 3.0)
    path = norms._progress("b")
    path.write_text('{"block": 0, "total": 5.5}\nnot json\n{"block": 1}\n[1]\n{"block": 2, "to')
    assert norms.mean_distance(rows, "space", "b") == 3.0
    assert known == [{0: 5.5}] and not path.exists()


def test_too_few_or_equal_rows_have_none(tmp_path):
    norms = Norms(tmp_path)
    assert norms.mean_distance(np.zeros((1, 2)), "space", "one") is None
    assert norms.mean_distance(np.zeros((3, 2)), "space", "equal") is None
    assert norms.knows(["one", "equal"]) and norms.known("equal") is None


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_damaged_file_is_refused(tmp_path, text):
    (tmp_path / "norms.json").write_text(text)
    with pytest.raises(DataError, match=r"norms\.json"):
        Norms(tmp_path).knows(["a"])
