"""The order in which tests run: see conftest.py."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.conftest import pytest_collection_modifyitems


def item(name, slow=False, file="test_a.py"):
    return SimpleNamespace(name=name, path=Path(file), get_closest_marker=lambda mark: slow if mark == "slow" else None)


@pytest.fixture(autouse=True)
def two_processes(monkeypatch):
    monkeypatch.setenv("PYTEST_XDIST_WORKER_COUNT", "2")


def ordered(*items):
    listed = list(items)
    pytest_collection_modifyitems(listed)
    return [each.name for each in listed]


def test_long_tests_come_first_in_both_halves():
    quick = [item(f"test_quick{index}") for index in range(5)]
    slow = [item(f"test_slow[{index}]", slow=True) for index in range(3)]
    assert ordered(*quick[:2], *slow, *quick[2:]) == [
        *("test_slow[0]", "test_slow[2]", "test_quick0", "test_quick1"),
        *("test_slow[1]", "test_quick2", "test_quick3", "test_quick4"),
    ]
    assert ordered(*quick) == [each.name for each in quick]
    assert ordered(*slow) == ["test_slow[0]", "test_slow[2]", "test_slow[1]"]


def test_long_tests_that_share_a_fixture_stay_together():
    shared = [item(f"test_{name}[{number}]", slow=True) for number in (1, 2) for name in ("one", "two")]
    plain = [item(name, slow=True, file="test_b.py") for name in ("test_x", "test_y")]
    assert ordered(*shared, *plain) == ["test_one[1]", "test_two[1]", "test_x", "test_y", "test_one[2]", "test_two[2]"]


def test_every_process_begins_with_long_tests(monkeypatch):
    monkeypatch.setenv("PYTEST_XDIST_WORKER_COUNT", "3")
    slow = [item(f"test_slow[{index}]", slow=True) for index in range(4)]
    quick = [item(f"test_quick{index}") for index in range(5)]
    assert ordered(*quick, *slow) == [
        *("test_slow[0]", "test_slow[3]", "test_quick0"),
        *("test_slow[1]", "test_quick1", "test_quick2"),
        *("test_slow[2]", "test_quick3", "test_quick4"),
    ]
