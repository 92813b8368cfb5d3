import threading

import pytest

from deepsim.runtime import prefetch as prefetch_module
from deepsim.runtime.errors import DeviceError
from deepsim.runtime.prefetch import Background, map_ahead, overlapped, prefetch


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


def test_map_keeps_the_order_and_runs_as_many_at_once_as_it_is_told():
    meeting = threading.Barrier(2, timeout=30)  # passes only when two calls are under way

    def work(index):
        meeting.wait()
        return index * 10

    assert list(map_ahead(work, iter(range(6)), 2)) == [0, 10, 20, 30, 40, 50]
    assert list(map_ahead(str, iter([]), 2)) == []
    assert list(map_ahead(str, [1, 2, 3], 1)) == ["1", "2", "3"]


def test_map_raises_after_the_results_before_it():
    def source():
        yield from (1, 2, 3)
        raise ValueError("third party")

    items = map_ahead(str, source(), 2)
    assert [next(items) for _ in range(3)] == ["1", "2", "3"]
    with pytest.raises(ValueError, match="third party"):
        next(items)

    items = map_ahead(lambda value: 6 // value, [3, 2, 0, 1], 2)
    assert [next(items), next(items)] == [2, 3]
    with pytest.raises(ZeroDivisionError):
        next(items)


def test_closing_a_map_waits_for_what_is_under_way():
    started, done = threading.Event(), []

    def work(index):
        if index == 1:
            started.set()
        done.append(index)
        return index

    items = map_ahead(work, iter(range(100)), 2)
    assert next(items) == 0
    items.close()
    assert started.is_set() and done == [0, 1]


def test_where_the_system_refuses_threads_items_are_computed_in_turn(monkeypatch, caplog):
    def refuse(*arguments, **options):
        raise RuntimeError("can't start new thread")

    closed = []

    def source():
        try:
            yield from (1, 2, 3)
        finally:
            closed.append(True)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    prefetch_module._tell.cache_clear()
    assert list(prefetch(source())) == list(prefetch(source())) == [1, 2, 3] and len(closed) == 2
    assert caplog.text.count("none more can run (can't start new thread); what would run at once") == 1
    items = prefetch(source())
    next(items)
    items.close()
    assert len(closed) == 3
    assert list(map_ahead(str, [1, 2], 1)) == ["1", "2"]
    assert list(map_ahead(str, [1, 2, 3], 2)) == ["1", "2", "3"]
    results = map_ahead(str, iter([1, 2]), 2)
    assert next(results) == "1" and caplog.text.count("none more can run") == 1
    results.close()


def test_an_error_of_the_function_is_not_taken_for_a_refused_thread():
    def fail(item):
        raise RuntimeError("of its own")

    with pytest.raises(RuntimeError, match="of its own"):
        list(map_ahead(fail, [1], 1))


def test_overlapped_keeps_the_order_and_raises_after_what_came_before():
    def items():
        yield from range(5)
        raise ValueError("the sixth")

    for width in (1, 3):
        results, met = overlapped(items(), lambda item: item * 10, width), []
        with pytest.raises(ValueError, match="the sixth"):
            for result in results:
                met.append(result)
        assert met == [(item, item * 10) for item in range(5)]


def test_overlapped_makes_applies_and_hands_over_at_once():
    """An item is made only when the one before is being applied, which waits for that: in turn nothing would come."""
    made = [threading.Event() for _ in range(4)]

    def items():
        for number in range(3):
            made[number].set()
            yield number
        made[3].set()

    def wait_for_the_next(number):
        return made[number + 1].wait(30)

    assert [result for _, result in overlapped(items(), wait_for_the_next, 1)] == [True] * 3


def test_closing_overlapped_closes_its_items():
    closed = threading.Event()

    def items():
        try:
            yield from range(1000)
        finally:
            closed.set()

    results = overlapped(items(), lambda item: item, 1)
    assert next(results) == (0, 0)
    results.close()
    assert closed.is_set()


def test_where_the_system_grants_one_thread_of_two_it_does_all(monkeypatch):
    start, granted = threading.Thread.start, []

    def grant_one(thread):
        if granted:
            raise RuntimeError("can't start new thread")
        granted.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", grant_one)
    names = list(map_ahead(lambda _: threading.current_thread().name, range(5), 2))
    assert names == ["deepsim-map-0"] * 5 and not granted[0].is_alive()


def test_the_background_raises_what_went_wrong():
    done = []

    def fail():
        raise DeviceError("disk: full")

    with pytest.raises(DeviceError, match="disk: full"), Background() as background:
        background.do(fail)
        background.do(lambda: done.append(1))
    assert done == []


def test_work_in_the_background_is_done_in_order_before_it_is_settled():
    done, gate = [], threading.Event()
    with Background() as background:
        background.do(gate.wait)
        for number in range(5):
            background.do(lambda number=number: done.append(number))
        assert done == []
        gate.set()
        background.settle()
        assert done == [0, 1, 2, 3, 4]


def test_where_no_thread_is_granted_work_is_done_at_once(monkeypatch, caplog):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    prefetch_module._tell.cache_clear()
    done = []
    with Background() as background:
        background.do(lambda: done.append(threading.current_thread()))
        assert done == [threading.main_thread()]
        background.settle()
    assert caplog.text.count("none more can run (can't start new thread)") == 1
