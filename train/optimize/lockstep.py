"""SciPy's L-BFGS-B for many variables at once: each has a thread of its own, all wait until one batch answers them.

SciPy asks for one evaluation after the other. The threads only ask; the networks run in the caller's thread, once
for all that wait. So every variable takes the steps that SciPy alone would take.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepsim.runtime.errors import missing_extra

Array = NDArray[np.float64]
Evaluate = Callable[[list[int], Array], tuple[Array, Array]]
"""Gets rows and their variables (n, d); returns losses (n,) and gradients (n, d)."""
Limits = tuple[Array | None, Array | None]


class _Stopped(Exception):  # no error: it unwinds SciPy
    """The caller needs no more of a row."""


@dataclass(frozen=True)
class Minimum:
    """Where L-BFGS-B stopped: the variable (d,), its loss, SciPy's iterations and its message."""

    variable: Array
    loss: float
    iterations: int
    message: str


class _Row:
    """One run of SciPy in a thread, which asks through ``asked`` and gets its answers one by one."""

    def __init__(self, number: int, asked: queue.SimpleQueue[tuple[int, Any]]) -> None:
        self._number, self._asked = number, asked
        self.answers: queue.SimpleQueue[tuple[float, Array] | None] = queue.SimpleQueue()

    def run(self, start: Array, limits: Limits, iterations: int) -> None:
        from scipy.optimize import Bounds, minimize

        lower, upper = (limit if limit is not None else np.full(start.shape, sign * np.inf)
                        for limit, sign in zip(limits, (-1, 1), strict=True))  # fmt: skip
        try:
            found = minimize(
                self._ask,
                start,
                jac=True,
                method="L-BFGS-B",
                bounds=Bounds(lower, upper),
                options={"maxiter": iterations},
            )
            result: Any = Minimum(found.x, float(found.fun), int(found.nit), str(found.message))
        except _Stopped:
            result = None
        except BaseException as error:  # it is raised again in the caller's thread
            result = error
        self._asked.put((self._number, result))

    def _ask(self, variable: Array) -> tuple[float, Array]:
        self._asked.put((self._number, variable.copy()))
        answer = self.answers.get()
        if answer is None:
            raise _Stopped
        return answer


def minimise(evaluate: Evaluate, starts: Array, limits: Limits, iterations: int) -> list[Minimum | None]:
    """Minimise every row of ``starts`` (n, d) by L-BFGS-B within ``limits`` (d,); SciPy's defaults else.

    A row whose loss or gradient is not finite ends, and has None. Raises DeviceError without SciPy, and whatever
    ``evaluate`` raises.
    """
    try:
        import scipy.optimize  # noqa: F401
    except ImportError as error:
        raise missing_extra("scipy", "optimize") from error
    asked: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()
    rows = [_Row(number, asked) for number in range(len(starts))]
    threads = [
        threading.Thread(target=row.run, args=(start, limits, iterations), daemon=True)
        for row, start in zip(rows, starts, strict=True)
    ]
    for thread in threads:
        thread.start()
    try:
        return _answer(rows, asked, evaluate)
    finally:
        for row in rows:
            row.answers.put(None)
        for thread in threads:
            thread.join()


def _answer(
    rows: Sequence[_Row], asked: queue.SimpleQueue[tuple[int, Any]], evaluate: Evaluate
) -> list[Minimum | None]:
    """Evaluate what all running rows wait for, again and again, until none runs."""
    found: list[Minimum | None] = [None] * len(rows)
    running, waiting = len(rows), dict[int, Array]()
    while running:
        number, message = asked.get()
        if isinstance(message, BaseException):
            raise message
        if isinstance(message, np.ndarray):
            waiting[number] = message
        else:
            found[number] = message
            running -= 1
        if waiting and len(waiting) == running:
            _reply(rows, waiting, evaluate)
            waiting.clear()
    return found


def _reply(rows: Sequence[_Row], waiting: dict[int, Array], evaluate: Evaluate) -> None:
    numbers = sorted(waiting)
    losses, gradients = evaluate(numbers, np.stack([waiting[number] for number in numbers]))
    for number, loss, gradient in zip(numbers, losses, gradients, strict=True):
        usable = np.isfinite(loss) and np.isfinite(gradient).all()
        rows[number].answers.put((float(loss), gradient) if usable else None)
