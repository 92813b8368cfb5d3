import threading

import pytest

from deepsim.runtime.prefetch import prefetch


def test_order_and_end():
    assert list(prefetch(iter(range(100)), depth=3)) == list(range(100))
    assert list(prefetch(iter([]))) == []


def test_error_comes_after_the_items_before_it():
    def source():
        yield 1
        raise ValueError("third party")

    items = prefetch(source())
    assert next(items) == 1
    with pytest.raises(ValueError, match="third party"):
        next(items)
    assert list(items) == []


def test_it_runs_in_another_thread_and_at_most_depth_ahead():
    made, threads, reached = [], set(), threading.Event()

    def source():
        for index in range(10):
            made.append(index)
            threads.add(threading.current_thread())
            if index == 2:
                reached.set()
            yield index

    items = prefetch(source(), depth=2)
    assert made == []  # nothing before the first item is asked for
    assert next(items) == 0
    assert reached.wait(10)  # 0 was taken, so 1 and 2 are made without being asked for
    items.close()
    assert made == [0, 1, 2] and threading.current_thread() not in threads


def test_closing_stops_the_thread_and_closes_the_source():
    closed = threading.Event()

    def source():
        try:
            while True:
                yield 0
        finally:
            closed.set()

    items = prefetch(source())
    next(items)
    items.close()
    assert closed.is_set()
    assert not [thread for thread in threading.enumerate() if thread.name == "deepsim-prefetch"]


def test_closing_before_the_start_starts_nothing():
    prefetch(iter(int, 1)).close()
    assert not [thread for thread in threading.enumerate() if thread.name == "deepsim-prefetch"]
