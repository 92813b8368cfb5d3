"""Signals as requests: SIGINT and SIGTERM finish the step, save and stop; SIGUSR1 saves now and goes on."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any


class Signals:
    """Collect signals while training runs; a second SIGINT interrupts at once."""

    def __init__(self) -> None:
        self.stop: int | None = None
        self.save = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        """Install the handlers."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Restore the handlers that were there before."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGUSR1:
            self.save = True
        elif self.stop is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        else:
            self.stop = number
