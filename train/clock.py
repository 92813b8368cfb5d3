"""The time that a run has trained, over all its resumptions, and how much of a budget of minutes is left.

clock.json in the run's folder maps every checkpoint to the seconds up to it, so that a resumed run goes on with what is
left. It is written before the checkpoint that it names.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from deepsim.runtime.errors import CheckpointError
from deepsim.runtime.files import write_atomic
from deepsim.runtime.run_folder import CLOCK, checkpoints

_RECENT = 10  # steps, of which the slowest is what the next one may take
_SLOW_DISK = 50e6  # bytes per second, until a checkpoint has been timed


class Elapsed(NamedTuple):
    """What clock.json keeps for a checkpoint: the seconds of training up to it, and those of a slow step of late."""

    seconds: float = 0.0
    step: float = 0.0


NONE = Elapsed()


class Clock:
    """Count the seconds of training from ``elapsed`` on, once started. ``minutes`` is the budget of the run; 0: none.

    A run with a budget stops while there is still time for its last validation and checkpoint.
    """

    def __init__(self, minutes: float, elapsed: Elapsed = NONE, now: Callable[[], float] = time.monotonic) -> None:
        self.budget = 60 * minutes
        self._now, self._elapsed = now, elapsed.seconds
        self.start()
        self._steps = deque([elapsed.step], maxlen=_RECENT)
        self._validation = self._checkpoint = 0.0

    def start(self) -> None:
        """Begin to count; the time before is the program's, not the training's."""
        self._began, self._last = self._now() - self._elapsed, self._now()

    @property
    def seconds(self) -> float:
        """Return the seconds of training so far."""
        return self._now() - self._began

    @property
    def elapsed(self) -> Elapsed:
        """Return what to record for a checkpoint of now."""
        return Elapsed(round(self.seconds, 3), round(max(self._steps), 3))

    @property
    def left(self) -> float:
        """Return the seconds of the budget that are left, at least 0."""
        return max(0.0, self.budget - self.seconds)

    @property
    def share(self) -> float:
        """Return the share 0-1 of the budget for steps that has passed; 0 without a budget."""
        if self.budget == 0:
            return 0.0
        return min(1.0, self.seconds / max(self.budget - self._reserve, 1e-9))

    @property
    def is_over(self) -> bool:
        """Tell whether another step, with the end of the run after it, would go beyond the budget."""
        return self.budget > 0 and self.left <= self._reserve

    def expect_checkpoint(self, size: int) -> None:
        """Say how many bytes a checkpoint has, by which its time is guessed until one has been timed."""
        self._checkpoint = size / _SLOW_DISK

    def begin_step(self) -> None:
        """Note that a step begins, its batch included."""
        self._last = self._now()

    def end_step(self) -> None:
        """Note that the step is done."""
        self._steps.append(self._now() - self._last)

    def time_validation(self, seconds: float) -> None:
        """Note how long a validation with its pictures took."""
        self._validation = _expected(seconds, self._validation)

    def time_checkpoint(self, seconds: float) -> None:
        """Note how long a checkpoint took."""
        self._checkpoint = _expected(seconds, self._checkpoint)

    @property
    def _reserve(self) -> float:
        return max(self._steps) + self._validation + self._checkpoint


def _expected(found: float, before: float) -> float:
    """Expect the longer of both times; one slow disk access is forgotten in a few checkpoints, not at once."""
    return max(found, 0.8 * before)


def write_clock(run: Path, checkpoint: str, elapsed: Elapsed) -> None:
    """Record the time up to a checkpoint that is about to be saved; drop those of checkpoints that are gone."""
    path = run / CLOCK
    known = {name: value for name, value in _read(path).items() if (checkpoints(run) / name).exists()}
    records = {name: value._asdict() for name, value in {**known, checkpoint: elapsed}.items()}
    write_atomic(path, json.dumps(records, indent=2) + "\n")


def read_clock(run: Path, checkpoint: str) -> Elapsed | None:
    """Return the time of training up to a checkpoint; None where it was not recorded.

    Raises CheckpointError when the record is damaged.
    """
    return _read(run / CLOCK).get(checkpoint)


def _read(path: Path) -> dict[str, Elapsed]:
    if not path.exists():
        return {}
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
        return {name: Elapsed(float(record["seconds"]), float(record["step"])) for name, record in records.items()}
    except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise CheckpointError(f"{path}: not readable ({error}), expected seconds by checkpoint. Restore it.") from error
