"""A run into a folder: chunk after chunk, pictures and results written on the way, then codes and losses of all."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepsim.runtime.errors import NumericError
from deepsim.runtime.features import Labels, Rows, write_features
from deepsim.runtime.files import reserved, write_atomic
from deepsim.runtime.images import save_png
from deepsim.runtime.prefetch import Background
from deepsim.train.optimize.job import Job
from deepsim.train.optimize.loop import optimise_chunk
from deepsim.train.optimize.outcome import Outcome
from deepsim.train.optimize.recorder import Recorder, Rhythm
from deepsim.train.optimize.saved import Saved
from deepsim.train.signals import Signals

CODES, LOSSES, SETTINGS = "codes.npy", "losses.json", "settings.json"
_log = logging.getLogger("deepsim")
Results = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Output:
    """Where results go: the folder, the picture of each target, and whether its whole picture is drawn."""

    folder: Path
    pictures: Sequence[Path]
    full: bool = False

    @property
    def files(self) -> list[Path]:
        """Return every file that a run writes in the end."""
        return [*self.pictures, *(self.folder / name for name in (CODES, LOSSES, SETTINGS))]


@dataclass(frozen=True)
class Summary:
    """What a run did: its targets, their losses (NaN where there is none), and those that ended early."""

    names: tuple[str, ...]
    losses: NDArray[np.float64]
    ended: NDArray[np.int64]


def run(
    job: Job, output: Output, record: dict[str, Any], resume: bool, overwrite: bool, rhythm: Rhythm, quiet: bool
) -> Summary:
    """Optimise all targets of a job into a folder; ``record`` says what the run is made of.

    Raises :class:`~deepsim.train.optimize.recorder.Stopped` on a signal, with the state saved; NumericError when no
    target has a finite loss.
    """
    output.folder.mkdir(parents=True, exist_ok=True)
    with reserved(output.folder / CODES):
        saved = Saved(output.folder, record, resume, overwrite)
        with Signals() as signals, Background() as background:
            stems = {name: path.stem for name, path in zip(job.targets.names, output.pictures, strict=True)}
            recorder = Recorder(job, output.folder, saved, background, signals, stems, rhythm, quiet)
            try:
                _all_chunks(job, output, saved, background, recorder)
            finally:
                recorder.close()
        summary = _publish(job, output, saved, record)
        saved.remove()
    return summary


def _all_chunks(job: Job, output: Output, saved: Saved, background: Background, recorder: Recorder) -> None:
    for number, chunk in enumerate(job.chunks):
        if saved.results(number) is not None:
            continue
        recorder.at(number)
        found = optimise_chunk(job, chunk, recorder)
        _tell_ended(found)
        for place, image in zip(chunk, found.full if output.full else found.images, strict=True):
            if np.isfinite(found.losses[place - chunk.start]):
                background.do(_saving(image, output.pictures[place]))
        background.do(_finishing(saved, number, _results(found)))  # after its pictures


def _saving(image: NDArray[np.uint8], path: Path) -> Callable[[], None]:
    return lambda: save_png(image, path)


def _finishing(saved: Saved, number: int, results: Results) -> Callable[[], None]:
    return lambda: saved.finish(number, results)


def _tell_ended(found: Outcome) -> None:
    for name, loss, when in zip(found.names, found.losses, found.ended, strict=True):
        if when:
            rest = (
                f"its best before is the result, with a loss of {loss:.4g}" if np.isfinite(loss) else "it has no result"
            )
            _log.warning("%s: its loss was not finite in iteration %d; %s.", name, when, rest)


def _results(found: Outcome) -> Results:
    arrays = {name: getattr(found, name) for name in ("codes", "losses", "starts", "iterations", "ended")}
    return {**arrays, **{f"layer/{tap}": values for tap, values in found.layer_losses.items()}}


def _publish(job: Job, output: Output, saved: Saved, record: dict[str, Any]) -> Summary:
    """Write codes, losses and settings from the results of all chunks."""
    numbers, shape = range(len(job.chunks)), job.evaluator.pictures.shape
    names = job.targets.names

    def results() -> Iterator[Results]:
        for number in numbers:
            found = saved.results(number)
            assert found is not None, f"chunk {number} is done"
            yield found

    def blocks() -> Iterator[NDArray[np.float32]]:
        for found in results():
            yield found["codes"]

    plain = [{key: values for key, values in found.items() if key != "codes"} for found in results()]
    whole = {key: np.concatenate([found[key] for found in plain]) for key in plain[0]}
    if not np.isfinite(whole["losses"]).any():
        raise NumericError(
            f"{output.folder}: no target has a finite loss, expected one. Lower --step, look at the targets."
        )
    write_features(
        output.folder / CODES, Rows((len(names), *shape), blocks), Labels(tuple(names), tuple(range(len(names))))
    )
    write_atomic(output.folder / LOSSES, json.dumps(_table(names, whole), indent=2) + "\n")
    write_atomic(output.folder / SETTINGS, json.dumps(record, indent=2) + "\n")
    return Summary(names, whole["losses"], whole["ended"])


def _table(names: tuple[str, ...], whole: Results) -> list[dict[str, Any]]:
    """Return one record for each target, as JSON has it: None for what is not finite."""
    layers = [key for key in whole if key.startswith("layer/")]
    return [
        {
            "target": name,
            "loss": _finite(whole["losses"][row]),
            "layers": {key.removeprefix("layer/"): _finite(whole[key][row]) for key in layers},
            "start": int(whole["starts"][row]),
            "iterations": int(whole["iterations"][row]),
            "ended_in": int(whole["ended"][row]) or None,
        }
        for row, name in enumerate(names)
    ]


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
