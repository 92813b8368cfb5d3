"""Run iterators and functions ahead of their consumer, and work beside it, in background threads."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from functools import cache
from queue import Queue, SimpleQueue
from types import TracebackType
from typing import Generic, TypeVar

_T = TypeVar("_T")
_R = TypeVar("_R")
_log = logging.getLogger("deepsim")
_WAITING = 64  # pieces of work that may wait in the background, before the caller waits for them


class _End:
    """Ends the queue; carries the exception that the iterator raised, if any."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


class _Producer(Generic[_T]):
    def __init__(self, source: Iterator[_T], depth: int) -> None:
        self.source = source
        self.queue: SimpleQueue[_T | _End] = SimpleQueue()
        self.free = threading.Semaphore(depth)
        self.stopped = threading.Event()

    def run(self) -> None:
        error: BaseException | None = None
        try:
            self.free.acquire()
            while not self.stopped.is_set():
                self.queue.put(next(self.source))
                self.free.acquire()
        except StopIteration:
            pass
        except BaseException as raised:  # handed to the consumer, which raises it
            error = raised
        finally:
            close = getattr(self.source, "close", None)
            if close is not None:  # a generator: let it clean up in the thread that ran it
                close()
            self.queue.put(_End(error))


@cache
def _tell(reason: str) -> None:
    """Warn, once for each reason, that what should run in a thread of its own does not."""
    _log.warning("threads: none more can run (%s); what would run at once runs one after the other.", reason)


def prefetch(source: Iterator[_T], depth: int = 2) -> Generator[_T, None, None]:
    """Yield the items of ``source`` in order, computed in a background thread up to ``depth`` items ahead.

    What ``source`` raises is raised here, after the items before it. Closing this generator early stops and joins the
    thread, which closes ``source``; an item that is being computed is waited for. Where the system grants no thread,
    a warning says so and items are computed when they are asked for.
    """
    producer = _Producer(source, depth)
    thread = threading.Thread(target=producer.run, name="deepsim-prefetch", daemon=True)
    try:
        thread.start()
    except RuntimeError as error:  # "can't start new thread"
        _tell(str(error))
        yield from source
        return
    try:
        while not isinstance(item := producer.queue.get(), _End):
            producer.free.release()
            yield item
        if item.error is not None:
            raise item.error
    finally:
        producer.stopped.set()
        producer.free.release()
        thread.join()


class _Workers(Generic[_T, _R]):
    """Threads that apply a function to what is submitted, as many as the system grants."""

    def __init__(self, function: Callable[[_T], _R], width: int) -> None:
        self.function = function
        self.jobs: SimpleQueue[tuple[Future[_R], _T] | None] = SimpleQueue()
        self.threads: list[threading.Thread] = []
        for number in range(width):
            thread = threading.Thread(target=self._run, name=f"deepsim-map-{number}", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # "can't start new thread"
                _tell(str(error))
                break
            self.threads.append(thread)

    def _run(self) -> None:
        while (job := self.jobs.get()) is not None:
            future, item = job
            try:
                future.set_result(self.function(item))
            except BaseException as error:  # handed to who asks for the result
                future.set_exception(error)

    def submit(self, item: _T) -> Future[_R]:
        future: Future[_R] = Future()
        self.jobs.put((future, item))
        return future

    def close(self) -> None:
        for _ in self.threads:
            self.jobs.put(None)
        for thread in self.threads:
            thread.join()


def map_ahead(function: Callable[[_T], _R], items: Iterable[_T], width: int) -> Iterator[_R]:
    """Yield ``function(item)`` in the order of the items, ``width`` of them under way at once in threads of their own.

    What ``function`` or ``items`` raises is raised here, after the results before it. Closing this generator early
    waits for what is under way. With a width of 1 there is no thread. Where the system grants fewer threads, or none,
    a warning says so, and fewer items are under way.
    """
    workers = _Workers(function, width if width > 1 else 0)
    if not workers.threads:
        yield from map(function, items)
        return
    source, failure = iter(items), None
    pending: deque[Future[_R]] = deque()
    try:
        while True:
            try:
                item = next(source)
            except StopIteration:
                break
            except Exception as error:
                failure = error
                break
            pending.append(workers.submit(item))
            if len(pending) == len(workers.threads):
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        workers.close()
    if failure is not None:
        raise failure


def overlapped(
    items: Generator[_T, None, None], function: Callable[[_T], _R], width: int
) -> Generator[tuple[_T, _R], None, None]:
    """Yield every item with ``function(item)``, in order.

    Making the items, applying the function (to ``width`` items at once) and what the caller does with a result overlap,
    a few items ahead at most. What ``items`` or ``function`` raises is raised here, after the results before it.
    Closing the generator stops all.
    """

    def applied() -> Iterator[tuple[_T, _R]]:
        source = prefetch(items)
        try:
            yield from map_ahead(lambda item: (item, function(item)), source, width)
        finally:
            source.close()

    results = prefetch(applied())
    try:
        yield from results
    finally:
        results.close()


class Background:
    """Do pieces of work, such as writing files, in order in one thread beside the caller.

    An error is raised by the next call, or at the end; work that waits behind it is left out. Where the system grants
    no thread, a warning says so and the work is done at once.

    >>> done = []
    >>> with Background() as background:
    ...     background.do(lambda: done.append(1))
    >>> done
    [1]
    """

    def __init__(self) -> None:
        self._work: Queue[Callable[[], object] | None] = Queue(_WAITING)
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = threading.Thread(target=self._run, name="deepsim-work", daemon=True)

    def __enter__(self) -> Background:
        """Start the thread."""
        assert self._thread is not None, "not begun before"
        try:
            self._thread.start()
        except RuntimeError as error:  # "can't start new thread"
            _tell(str(error))
            self._thread = None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait until all is done; raise what went wrong, unless another error is on its way."""
        if self._thread is not None:
            self._work.put(None)
            self._thread.join()
        if error is None:
            self._raise()

    def do(self, work: Callable[[], object]) -> None:
        """Have a piece of work done soon; wait where too much of it waits."""
        self._raise()
        if self._thread is None:
            work()
        else:
            self._work.put(work)

    def settle(self) -> None:
        """Wait until all that was asked for is done; raise what went wrong."""
        self._work.join()
        self._raise()

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            if self._error is None:
                try:
                    work()
                except BaseException as error:  # handed to the caller, which raises it
                    self._error = error
            self._work.task_done()

    def _raise(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error
