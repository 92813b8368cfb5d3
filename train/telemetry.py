"""What a run tells while it trains: a progress bar, log.jsonl, TensorBoard when installed, and image grids."""

from __future__ import annotations

import io
import json
import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from deepsim.runtime.files import write_atomic
from deepsim.runtime.images import save_png
from deepsim.runtime.os_errors import disk_errors
from deepsim.runtime.run_folder import EVENTS, LOG, grid
from deepsim.train import objective
from deepsim.train.event_file import EventFile


class Telemetry:
    """Write the log of a run; on resume, lines behind ``start_step`` are dropped first.

    The bar shows losses and the time left on stderr when that is a terminal; otherwise one line per ``log_every``
    steps goes there.
    """

    def __init__(self, run: Path, start_step: int, steps: int, quiet: bool) -> None:
        self.run, self.quiet = run, quiet
        with disk_errors(run / LOG):
            self._began = time.monotonic() - self._truncate(start_step)
            self._file = (run / LOG).open("ab", buffering=0)
        self._bar = tqdm(total=steps, initial=start_step, unit="step", disable=True if quiet else None, smoothing=0.05)
        self._events = EventFile(run / EVENTS, start_step)

    def log(self, record: dict[str, Any]) -> None:
        """Append one line; ``record`` has a step, floats and None for what was not computed."""
        record = {**record, "seconds": round(time.monotonic() - self._began, 3)}
        with disk_errors(self.run / LOG):
            _append(self._file, json.dumps(record, allow_nan=False).encode() + b"\n")
        shown = {label: f"{record[name]:.4g}" for name, label in _shown().items() if record.get(name) is not None}
        self._bar.set_postfix(shown, refresh=False)
        if self._bar.disable and not self.quiet:
            figures = "  ".join(f"{label} {value}" for label, value in shown.items())
            print(f"step {record['step']}  {figures}  {record['seconds']:.0f} s", file=sys.stderr, flush=True)
        for name, value in record.items():
            if isinstance(value, (int, float)) and name != "step":
                self._events.scalar(name, value, record["step"])

    def advance(self) -> None:
        """Move the bar by one step."""
        self._bar.update()

    def grid(self, step: int, photos: NDArray[np.uint8], images: NDArray[np.uint8]) -> None:
        """Save photographs (N, side, side, 3) above their reconstructions as ``images/step-<step>.png``."""
        rows = [np.concatenate(list(batch), axis=1) for batch in (photos, images)]
        picture = np.concatenate(rows, axis=0)
        save_png(picture, grid(self.run, step))
        self._events.picture("reconstructions", picture, step)

    def close(self) -> None:
        """Close TensorBoard's events, the bar and the log."""
        self._events.close()
        self._bar.close()
        with disk_errors(self.run / LOG):
            self._file.close()

    def _truncate(self, start_step: int) -> float:
        """Keep the lines up to ``start_step``; return the training time they cover, in seconds."""
        path = self.run / LOG
        kept = [line for line in _lines(path) if line["step"] <= start_step] if start_step else []
        write_atomic(path, "".join(json.dumps(line) + "\n" for line in kept))
        return float(kept[-1]["seconds"]) if kept else 0.0


def _shown() -> dict[str, str]:
    """Return what the bar shows: the keys of a line of the log, and what it calls them."""
    terms = {term.name: term.label for term in objective.TERMS}
    others = {"discriminator_loss": "D", "validation_error": "error", "collapsed_units": "collapsed units"}
    return {"generator_loss": "loss", **terms, **others, "seconds_left": "seconds left"}


def _lines(path: Path) -> list[dict[str, Any]]:
    """Read the complete lines of a log; a last line cut off by a crash is left out."""
    if not path.exists():
        return []
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            break
    return found


def _append(file: io.FileIO, line: bytes) -> None:
    """Append a line whole; on a full disk nothing of it stays."""
    end = file.seek(0, os.SEEK_END)
    try:
        written = 0
        while written < len(line):
            written += file.write(line[written:])
    except OSError:
        with suppress(OSError):
            file.truncate(end)
        raise
