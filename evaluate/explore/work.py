"""The one computation under way, and the few that wait: of one slider only the newest request is ever computed."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from deepsim.runtime.errors import DeepsimError

T = TypeVar("T")
MOST_WAITING = 8


class Superseded(DeepsimError):
    """A request that was not begun when a newer one of the same view came."""


class Busy(DeepsimError):
    """More requests than may wait."""


@dataclass(frozen=True, eq=False)
class _Waiting:
    view: str | None
    turn: asyncio.Future[None]


class Work:
    """Runs functions one at a time in a thread, in the order in which they came; each uses all CPUs anyway.

    Requests of one ``view``, such as the picture under a slider, replace each other while they wait. So a drag is at
    most one computation behind, however fast it asks. All methods are called in one event loop.
    """

    def __init__(self, most_waiting: int = MOST_WAITING) -> None:
        self._most = most_waiting
        self._queue: deque[_Waiting] = deque()
        self._running = False
        self._thread = ThreadPoolExecutor(1, "explore")

    async def run(self, function: Callable[[], T], view: str | None = None) -> T:
        """Return ``function()``, called when its turn comes. Raises what it raises, Superseded and Busy."""
        await self._turn(view)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, function)
        finally:
            self._running = False
            self._next()

    def close(self) -> None:
        """Wait for the computation under way and begin no other."""
        self._thread.shutdown(cancel_futures=True)

    async def _turn(self, view: str | None) -> None:
        for older in [each for each in self._queue if view is not None and each.view == view]:
            self._queue.remove(older)
            older.turn.set_exception(Superseded("image: a newer one was asked for, this one is not computed."))
        if self._running and len(self._queue) >= self._most:
            raise Busy(f"deepsim explore: {self._most} requests wait already, expected fewer. Try again.")
        waiting = _Waiting(view, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        self._next()
        try:
            await waiting.turn
        except asyncio.CancelledError:
            self._give_up(waiting)
            raise

    def _next(self) -> None:
        if not self._running and self._queue:
            self._running = True
            self._queue.popleft().turn.set_result(None)

    def _give_up(self, waiting: _Waiting) -> None:
        if waiting in self._queue:
            self._queue.remove(waiting)
        elif waiting.turn.done() and not waiting.turn.cancelled() and waiting.turn.exception() is None:
            self._running = False  # it had its turn, and does not use it
            self._next()
