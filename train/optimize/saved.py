"""The state of a run on the disk, from which it goes on bit by bit as if it had never stopped.

The folder ``.optimize`` in the output holds ``job.json`` (what the run is made of), ``done-*.safetensors`` (results
of a chunk), ``state-*.safetensors`` (the chunk under way) and, for L-BFGS-B, ``evaluations-*.f64`` (all that its
networks have computed: SciPy is told the same again).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deepsim.runtime.errors import CheckpointError, DataError, UsageError
from deepsim.runtime.files import write_atomic
from deepsim.runtime.os_errors import disk_errors
from deepsim.train.optimize.chunk import Chunk
from deepsim.train.optimize.lockstep import Array
from deepsim.train.optimize.rules import Rule
from deepsim.train.weights import read_weights, write_weights

FOLDER = ".optimize"
_JOB = "job.json"
_RULE = "rule/"


class Saved:
    """The state of a run in ``output``; ``job`` says what it is made of, and must be the same to go on.

    Raises UsageError when an earlier run left its state and neither ``resume`` nor ``overwrite`` is set, or when it was
    another job.
    """

    def __init__(self, output: Path, job: dict[str, Any], resume: bool, overwrite: bool) -> None:
        self.folder = output / FOLDER
        with disk_errors(self.folder):
            if self.folder.exists() and not resume:
                if not overwrite:
                    raise UsageError(f"{output}: an earlier run stopped there. Pass --resume to go on, or --overwrite.")
                shutil.rmtree(self.folder)
            self.folder.mkdir(parents=True, exist_ok=True)
            _check(self.folder / _JOB, job)

    def results(self, chunk: int) -> dict[str, np.ndarray[Any, Any]] | None:
        """Return the results of a chunk that is done; None for one that is not. Raises CheckpointError."""
        path = self._done(chunk)
        if not path.exists():
            return None
        return {name: tensor.numpy() for name, tensor in read_weights(path).items()}

    def finish(self, chunk: int, results: dict[str, np.ndarray[Any, Any]]) -> None:
        """Keep the results of a chunk; its state is of no more use."""
        write_weights(self._done(chunk), {name: torch.from_numpy(values) for name, values in results.items()})
        for path in (self._state(chunk), self._evaluations(chunk)):
            path.unlink(missing_ok=True)

    def save(self, number: int, chunk: Chunk, rule: Rule) -> None:
        """Keep the state of the chunk under way."""
        state = {f"{_RULE}{name}": tensor for name, tensor in rule.state.items()}
        write_weights(self._state(number), {"iteration": torch.tensor(chunk.iteration), **state, **chunk.tensors()})

    def restore(self, number: int, chunk: Chunk, rule: Rule) -> bool:
        """Put the kept state into a chunk as it begins; tell whether there was one. Raises CheckpointError."""
        path = self._state(number)
        if not path.exists():
            return False
        found = read_weights(path)
        iteration = int(found.pop("iteration").item())
        if found["variable"].shape != chunk.variable.shape:
            raise CheckpointError(f"{path}: state of another shape. Pass --overwrite to begin anew.")
        rule.state = {
            name.removeprefix(_RULE): _like(found.pop(name), chunk.variable)
            for name in list(found)
            if name.startswith(_RULE)
        }
        chunk.restore(found, iteration)
        return True

    def add_evaluation(self, number: int, losses: Array, gradients: Array) -> None:
        """Append what the networks computed for L-BFGS-B."""
        record = np.concatenate([losses[:, None], gradients], axis=1)
        with disk_errors(self.folder), self._evaluations(number).open("ab") as file:
            file.write(np.array(record.shape, np.int64).tobytes() + record.tobytes())

    def evaluations(self, number: int) -> Iterator[tuple[Array, Array]]:
        """Yield the whole records of L-BFGS-B's evaluations, and cut off what a killed process left behind them."""
        path, place = self._evaluations(number), 0
        if not path.exists():
            return
        with path.open("rb") as file:
            while len(head := file.read(16)) == 16:
                rows, columns = np.frombuffer(head, np.int64).tolist()
                data = file.read(8 * rows * columns)
                if len(data) < 8 * rows * columns:
                    break
                place = file.tell()
                record = np.frombuffer(data, np.float64).reshape(rows, columns)
                yield record[:, 0].copy(), record[:, 1:].copy()
        with path.open("r+b") as file:
            file.truncate(place)

    def remove(self) -> None:
        """Remove the state: the run is over."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _state(self, chunk: int) -> Path:
        return self.folder / f"state-{chunk:06d}.safetensors"

    def _evaluations(self, chunk: int) -> Path:
        return self.folder / f"evaluations-{chunk:06d}.f64"

    def _done(self, chunk: int) -> Path:
        return self.folder / f"done-{chunk:06d}.safetensors"


def _like(values: Tensor, other: Tensor) -> Tensor:
    return torch.empty_like(other).copy_(values)  # in the same order in memory


def _check(path: Path, job: dict[str, Any]) -> None:
    """Write down a new job; raise UsageError naming what differs in that of an earlier run."""
    if not path.exists():
        write_atomic(path, json.dumps(job, indent=2) + "\n")
        return
    try:
        before, now = _flat(json.loads(path.read_text(encoding="utf-8"))), _flat(job)
        differing = [name for name, value in now.items() if before.get(name) != value]
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: damaged ({error}). Pass --overwrite to begin anew.") from error
    if differing:
        name = differing[0]
        raise UsageError(
            f"{path.parent.parent}: begun with {name} {_short(before.get(name))}, expected {_short(now[name])}. "
            "Pass --overwrite to begin anew."
        )


def _flat(job: dict[str, Any]) -> dict[str, Any]:
    """Return a job's entries with those of its settings beside them, so that an error names the one that differs."""
    return {**{name: value for name, value in job.items() if name != "settings"}, **job.get("settings", {})}


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
