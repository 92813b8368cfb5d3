"""Rows on the disk: what a kill leaves counts as far as its numbers go, and other jobs' rows are refused."""

from __future__ import annotations

import numpy as np
import pytest

from deepsim.evaluate.measure.spaces import split_space
from deepsim.evaluate.measure.store import RowStore
from deepsim.runtime.errors import UsageError

FORMATS = {"a.f32": ("<f4", (2, 3)), "b.u8": ("u1", (4,))}


def rows(first, count):
    numbers = np.arange(first, first + count)
    a = numbers[:, None, None] + np.arange(6.0).reshape(2, 3) / 10
    return {"a.f32": a.astype(np.float32), "b.u8": np.repeat(numbers[:, None], 4, axis=1).astype(np.uint8)}


def store(folder, **job):
    return RowStore(folder, FORMATS, {"of": "x", **job})


def test_rows_come_back_in_slices(tmp_path):
    opened = store(tmp_path / "s")
    opened.add([0, 1, 5], rows(0, 3))
    opened.add([6], rows(3, 1))
    assert len(opened) == 4
    read = opened.rows("a.f32")
    assert read.shape == (4, 2, 3) and read.dtype == np.float32
    np.testing.assert_array_equal(read[1:3], rows(1, 2)["a.f32"])
    np.testing.assert_array_equal(opened.rows("b.u8")[:], rows(0, 4)["b.u8"])
    assert read[4:9].shape == (0, 2, 3)
    opened.close()
    again = store(tmp_path / "s")
    assert again.index == [0, 1, 5, 6]
    again.add([7], rows(4, 1))
    np.testing.assert_array_equal(again.rows("b.u8")[:], rows(0, 5)["b.u8"])
    again.close()


def test_what_a_kill_cut_off_does_not_count(tmp_path):
    opened = store(tmp_path / "s")
    opened.add([3, 4, 8], rows(0, 3))
    opened.close()
    with (tmp_path / "s/b.u8").open("r+b") as file:
        file.truncate(2 * 4 + 1)  # the third row of one array is cut off
    with (tmp_path / "s/a.f32").open("ab") as file:
        file.write(b"torn")
    again = store(tmp_path / "s")
    assert again.index == [3, 4]
    again.add([8], rows(2, 1))
    np.testing.assert_array_equal(again.rows("a.f32")[:], rows(0, 3)["a.f32"])
    again.close()


def test_rows_are_cut_where_another_store_has_others(tmp_path):
    opened = store(tmp_path / "s")
    opened.add([3, 4, 8, 9], rows(0, 4))
    opened.agree_with([3, 4, 7])
    assert opened.index == [3, 4]
    opened.add([7], rows(2, 1))
    np.testing.assert_array_equal(opened.rows("b.u8")[:], rows(0, 3)["b.u8"])
    opened.agree_with([3, 4, 7, 11])
    assert opened.index == [3, 4, 7]
    opened.close()


def test_rows_of_another_job_are_refused(tmp_path):
    store(tmp_path / "s").close()
    with pytest.raises(UsageError, match=r"rows of of x, expected of y. Pass --overwrite"):
        store(tmp_path / "s", of="y")


def test_a_file_that_shrank_is_an_error_and_not_zeros(tmp_path):
    opened = store(tmp_path / "s")
    opened.add([0, 1], rows(0, 2))
    read = opened.rows("b.u8")
    with (tmp_path / "s/b.u8").open("r+b") as file:
        file.truncate(5)
    with pytest.raises(OSError, match="cut off"):
        read[:]
    opened.close()


def test_spaces_are_bundles_with_layers_or_without(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.deepsim").mkdir()
    (tmp_path / "odd:name").mkdir()
    found = [split_space(text) for text in ("a.deepsim", "a.deepsim:conv1,fc6:linear", "odd:name", "none:x")]
    assert [(str(path), layers) for path, layers in found] == [
        ("a.deepsim", []),
        ("a.deepsim", ["conv1", "fc6:linear"]),
        ("odd:name", []),
        ("none:x", []),
    ]
    with pytest.raises(UsageError, match="an empty name"):
        split_space("a.deepsim:")
