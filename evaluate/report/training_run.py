"""Read what training left in its run folder: the configuration, the log, the sample grids and the mean image."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepsim.runtime.errors import DataError
from deepsim.runtime.images import read_image
from deepsim.runtime.run_folder import CONFIG, DATA, LOG, MEAN_IMAGE, newest_grid


@dataclass(frozen=True)
class TrainingRun:
    """One run folder: ``config`` as training wrote it, ``lines`` of the log in order of their step."""

    path: Path
    config: dict[str, Any]
    lines: tuple[dict[str, Any], ...]

    @classmethod
    def open(cls, path: Path) -> TrainingRun:
        """Read a run folder. A torn last log line, as a running or killed training leaves it, is not counted.

        Raises DataError when there is no such folder, or config.json or log.jsonl is missing or damaged.
        """
        if not path.is_dir():
            raise DataError(f"{path}: no such folder, expected a training run. Check --run.")
        return cls(path, _read_json(path / CONFIG), tuple(_read_log(path / LOG)))

    @cached_property
    def data(self) -> str | None:
        """Return what the run trained on, in words; None when it does not say."""
        words = self._images.get("training")
        return words if isinstance(words, str) else None

    @property
    def validated_on(self) -> str:
        """Return what the image error is measured on, in words."""
        known = {
            "held-out": "held-out images",
            "given": "images given for validation",
            "training": "training images, of which none was held out",
        }
        return known.get(str(self._images.get("validation_on")), "images that the run does not name")

    @cached_property
    def _images(self) -> dict[str, Any]:
        path = self.path / DATA
        return _read_json(path) if path.exists() else {}

    @property
    def steps(self) -> int:
        """Return the number of the last logged step, 0 for an empty log."""
        return int(self.lines[-1]["step"]) if self.lines else 0

    @property
    def seconds(self) -> float:
        """Return the training time at the last logged step, in seconds."""
        return float(self.lines[-1].get("seconds") or 0) if self.lines else 0.0

    @property
    def images_seen(self) -> int | None:
        """Return how many images passed through training, repeats counted; None when the batch is not recorded."""
        batch = self.config.get("batch")
        return self.steps * batch if isinstance(batch, int) else None

    @cached_property
    def mean_image(self) -> NDArray[np.uint8] | None:
        """Return the mean of the training crops, (side, side, 3) uint8 RGB; None when the run has none."""
        path = self.path / MEAN_IMAGE
        return read_image(path) if path.exists() else None

    @property
    def last_grid(self) -> tuple[int, NDArray[np.uint8]] | None:
        """Return step and pixels (H, W, 3) of the last sample grid; None when the run has none."""
        found = newest_grid(self.path)
        if found is None:
            return None
        step, path = found
        return self.steps if step is None else step, read_image(path)

    def series(self, name: str) -> list[tuple[int, float]]:
        """Return (step, value) of every logged finite number called ``name``; a lambda of 0 leaves none."""
        lines = [line for line in self.lines if _is_number(line.get(name))]
        return [(int(line["step"]), float(line[name])) for line in lines]

    def pauses(self, network: str) -> list[tuple[int, int]]:
        """Return the (first, last) steps of every stretch in which ``network`` did not train.

        ``network`` is "discriminator" or "generator". A stretch ends at the next logged step that trains.
        """
        stretches: list[tuple[int, int]] = []
        start: int | None = None
        for line in self.lines:
            paused = line.get(f"{network}_trains") is False
            if paused and start is None:
                start = int(line["step"])
            elif not paused and start is not None:
                stretches.append((start, int(line["step"])))
                start = None
        return stretches if start is None else [*stretches, (start, self.steps)]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}), expected a run's {path.name}. Check --run.") from error
    if not isinstance(config, dict):
        raise DataError(f"{path}: {type(config).__name__}, expected a JSON object. Check --run.")
    return config


def _read_log(path: Path) -> list[dict[str, Any]]:
    try:
        texts = path.read_text("utf-8", errors="replace").splitlines()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error}), expected a run's log. Check --run.") from error
    lines = {}
    for number, text in enumerate(texts, 1):
        line = _parse(text)
        if line is not None:
            lines[line["step"]] = line  # a resumed run may log a step twice: the later one counts
        elif number < len(texts):
            raise DataError(f"{path}: line {number} is no log line, expected a JSON object with a step. Check the run.")
    return [lines[step] for step in sorted(lines)]


def _parse(text: str) -> dict[str, Any] | None:
    try:
        line = json.loads(text)
    except ValueError:
        return None
    return line if isinstance(line, dict) and isinstance(line.get("step"), int) else None


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
