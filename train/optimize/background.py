"""Work for the disk, done beside the computation: pictures are encoded and written by a thread of their own."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from types import TracebackType

_WAITING = 64  # pieces of work that may wait, before the computation waits for the disk


class Background:
    """Do pieces of work in order, in one thread. An error is raised by the next call, or at the end.

    >>> done = []
    >>> with Background() as background:
    ...     background.do(lambda: done.append(1))
    >>> done
    [1]
    """

    def __init__(self) -> None:
        self._work: queue.Queue[Callable[[], object] | None] = queue.Queue(_WAITING)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Background:
        """Start the thread."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait until all is done; raise what went wrong, unless another error is on its way."""
        self._work.put(None)
        self._thread.join()
        if error is None:
            self._raise()

    def do(self, work: Callable[[], object]) -> None:
        """Have a piece of work done soon; wait where too much of it waits."""
        self._raise()
        self._work.put(work)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            if self._error is None:
                try:
                    work()
                except BaseException as error:
                    self._error = error

    def _raise(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error
