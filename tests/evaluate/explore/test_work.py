import asyncio
import threading

import pytest

from deepsim.evaluate.explore.work import Busy, Superseded, Work


class Slow:
    """A function that begins, then waits until it is let go."""

    def __init__(self):
        self.begun, self.let_go = threading.Event(), threading.Event()

    def __call__(self):
        self.begun.set()
        assert self.let_go.wait(20)
        return "slow"


def ended(coroutine):
    """Run a coroutine; what waits for ever is an error."""
    return asyncio.run(asyncio.wait_for(coroutine, 60))


async def started(work, function, view=None):
    task = asyncio.create_task(work.run(function, view))
    await asyncio.to_thread(function.begun.wait, 20)
    return task


def test_of_a_drag_only_the_first_and_the_newest_are_computed():
    computed = []

    async def drag():
        work, slow = Work(), Slow()
        first = await started(work, slow, "slider")
        tasks = [asyncio.create_task(work.run(lambda n=n: computed.append(n) or n, "slider")) for n in range(50)]
        await asyncio.sleep(0)
        done = await asyncio.gather(*tasks[:-1], return_exceptions=True)  # refused while the first still runs
        assert not slow.let_go.is_set()
        slow.let_go.set()
        assert await first == "slow" and await tasks[-1] == 49
        work.close()
        return done

    done = ended(drag())
    assert all(isinstance(error, Superseded) for error in done) and len(done) == 49
    assert computed == [49]


def test_other_views_keep_their_turn_and_their_order():
    order = []

    async def many():
        work, slow = Work(), Slow()
        first = await started(work, slow, "a")
        tasks = [asyncio.create_task(work.run(lambda v=view: order.append(v), view)) for view in ("b", None, "c", None)]
        await asyncio.sleep(0)
        slow.let_go.set()
        await asyncio.gather(first, *tasks)
        work.close()

    ended(many())
    assert order == ["b", None, "c", None]


def test_no_more_wait_than_may():
    async def flood():
        work, slow = Work(most_waiting=3), Slow()
        first = await started(work, slow)
        tasks = [asyncio.create_task(work.run(lambda: "late")) for _ in range(5)]
        await asyncio.sleep(0)
        done = await asyncio.gather(*tasks[3:], return_exceptions=True)
        slow.let_go.set()
        assert await asyncio.gather(first, *tasks[:3]) == ["slow", "late", "late", "late"]
        assert await work.run(lambda: "again") == "again"
        work.close()
        return done

    assert [type(error) for error in ended(flood())] == [Busy, Busy]


def test_an_error_and_a_cancelled_request_leave_the_queue_in_order():
    async def broken():
        work, slow = Work(), Slow()
        with pytest.raises(ZeroDivisionError):
            await work.run(lambda: 1 / 0)
        first = await started(work, slow)
        waiting, after = (asyncio.create_task(work.run(lambda: "after")) for _ in range(2))
        await asyncio.sleep(0)
        waiting.cancel()
        slow.let_go.set()
        assert await asyncio.gather(first, after) == ["slow", "after"]
        with pytest.raises(asyncio.CancelledError):
            await waiting
        given_up = asyncio.create_task(work.run(lambda: "never"))
        await asyncio.sleep(0)  # it has its turn now, and is cancelled before it uses it
        given_up.cancel()
        await asyncio.gather(given_up, return_exceptions=True)
        assert await work.run(lambda: "still") == "still"
        work.close()

    ended(broken())
