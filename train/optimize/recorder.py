"""What is told and kept of a run on its way: progress, the log, snapshots, and its state by the clock."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from deepsim.runtime.images import save_png
from deepsim.runtime.os_errors import disk_errors
from deepsim.runtime.pixels import Pixels
from deepsim.runtime.prefetch import Background
from deepsim.train.optimize.chunk import Chunk
from deepsim.train.optimize.evaluation import Evaluated
from deepsim.train.optimize.job import Job
from deepsim.train.optimize.lockstep import Array
from deepsim.train.optimize.loop import draw
from deepsim.train.optimize.randomness import Stream
from deepsim.train.optimize.rules import Rule
from deepsim.train.optimize.saved import Saved
from deepsim.train.signals import Signals

LOG = "losses.jsonl"


class Stopped(Exception):
    """A signal asked the run to stop; its state is saved. ``signal`` is its number."""

    def __init__(self, signal: int) -> None:
        super().__init__(f"signal {signal}")
        self.signal = signal


@dataclass(frozen=True)
class Rhythm:
    """How often things happen: seconds between saved states, iterations between log lines and snapshots (0: none)."""

    save_seconds: float = 60.0
    log_every: int = 10
    snapshot_every: int = 0


class Recorder:
    """Watches a run in ``output``; pictures of snapshots go to ``snapshots/TARGET/``, named by ``stems``."""

    def __init__(
        self,
        job: Job,
        output: Path,
        saved: Saved,
        background: Background,
        signals: Signals,
        stems: Mapping[str, str],
        rhythm: Rhythm,
        quiet: bool,
    ) -> None:
        self._job, self._output, self._saved, self._background = job, output, saved, background
        self._signals, self._stems, self._rhythm = signals, stems, rhythm
        self._number, self._last = 0, time.monotonic()
        settings = job.evaluator.settings
        self._by_lbfgs = settings.optimizer == "lbfgs"
        self._total = settings.iterations
        self._bar = tqdm(unit="iteration", disable=True if quiet else None)

    def at(self, number: int) -> None:
        """Say which chunk comes next."""
        self._number = number

    def begin(self, chunk: Chunk, rule: Rule) -> None:
        """Put an earlier run's state into a chunk."""
        if not self._by_lbfgs:
            self._saved.restore(self._number, chunk, rule)
        count = len(self._job.chunks)
        self._bar.set_description(f"targets {self._number + 1} of {count}" if count > 1 else "targets")
        self._bar.reset(None if self._by_lbfgs else self._total)
        self._bar.update(chunk.iteration)

    def iterated(self, chunk: Chunk, rule: Rule, found: Evaluated | None) -> None:
        """Tell, log, draw and save what is due; raise Stopped where a signal asks for it."""
        self._bar.update()
        if found is None:
            return
        done = self._by_lbfgs is False and chunk.iteration == self._total
        if chunk.iteration % self._rhythm.log_every == 0 or done:
            self._log(chunk)
        if self._rhythm.snapshot_every and chunk.iteration % self._rhythm.snapshot_every == 0:
            self._snapshot(chunk)
        due = time.monotonic() - self._last >= self._rhythm.save_seconds
        if not self._by_lbfgs and (due or self._signals.stop is not None) and not done:
            self._saved.save(self._number, chunk, rule)
            self._last = time.monotonic()
        if self._signals.stop is not None and not done:
            raise Stopped(self._signals.stop)

    def replay(self) -> Iterator[tuple[Array, Array]]:
        """Yield what an earlier run of L-BFGS-B evaluated."""
        return self._saved.evaluations(self._number)

    def evaluated(self, losses: Array, gradients: Array) -> None:
        """Keep what the networks computed for L-BFGS-B."""
        self._saved.add_evaluation(self._number, losses, gradients)

    def close(self) -> None:
        """Take the bar away."""
        self._bar.close()

    def _log(self, chunk: Chunk) -> None:
        losses = chunk.kept_loss.double().cpu().tolist()
        finite = [loss for loss in losses if np.isfinite(loss)]
        if finite:
            self._bar.set_postfix(loss=f"{np.mean(finite):.4g}", refresh=False)
        lines = [
            json.dumps({"target": stream.name, "start": stream.start, "iteration": chunk.iteration, "loss": loss})
            for stream, loss in zip(chunk.streams, losses, strict=True)
            if np.isfinite(loss)
        ]
        with disk_errors(self._output / LOG), (self._output / LOG).open("a", encoding="utf-8") as file:
            file.write("".join(f"{line}\n" for line in lines))

    def _snapshot(self, chunk: Chunk) -> None:
        _, images = draw(self._job, chunk.kept)
        self._background.do(lambda number=chunk.iteration: self._save(chunk.streams, images, number))  # type: ignore[misc]

    def _save(self, streams: tuple[Stream, ...], images: Pixels, iteration: int) -> None:
        for stream, image in zip(streams, images, strict=True):
            start = f"-start{stream.start}" if self._job.starts > 1 else ""
            save_png(image, self._output / "snapshots" / self._stems[stream.name] / f"{iteration:06d}{start}.png")
