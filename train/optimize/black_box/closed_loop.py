"""The closed loop: codes to images, images to scores, scores to better codes, a generation at a time."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from deepsim.runtime.errors import CheckpointError, DataError, DeepsimError, DtypeError, ShapeError, UsageError
from deepsim.runtime.files import reserved, sha256
from deepsim.runtime.inputs import host_array, whole_number
from deepsim.runtime.inverter import Inverter
from deepsim.runtime.pixels import Pixels
from deepsim.runtime.prefetch import Background
from deepsim.train.optimize.black_box.loop_folder import LoopFolder
from deepsim.train.optimize.black_box.optimizer import CodeOptimizer, Codes, Floats, Start, State
from deepsim.train.optimize.black_box.presets import make_optimizer

Missing = Literal["refuse", "allow"]
_OPTIMIZER = "optimizer."  # begins the names of the optimiser's arrays in a state


@dataclass(frozen=True)
class Best:
    """The code with the highest score so far: its ``name``, such as "gen004_000080", ``score`` and ``code``.

    Under noise that score is too high on average: it is the highest of many.
    """

    name: str
    score: float
    code: Codes


@dataclass
class _Shown:
    """A generation that was handed out."""

    codes: Codes
    images: Pixels
    began: float
    decode_seconds: float
    handed_out: float


class ClosedLoop:
    """Hand out generations of codes and their images; take scores; go on until ``generations`` or :meth:`stop`.

    ``optimizer`` is a name of :data:`~deepsim.train.optimize.black_box.presets.PRESETS`, with ``seed``, ``start`` and
    ``settings`` as :func:`~deepsim.train.optimize.black_box.presets.make_optimizer` takes them, or an optimiser that
    was made before. Iterating yields (codes, images): float32 (n, *feature_shape) and uint8 RGB (n, side, side, 3),
    with ``full`` the generator's whole images. n may differ between generations.

    ``folder`` keeps the search (see :mod:`deepsim.train.optimize.black_box.loop_folder`): with ``resume`` a loop that
    stopped, or was killed, goes on with the very codes that it would have made. ``strip`` images of each generation are
    written side by side, best first.

    ``missing`` "refuse" raises DataError when a score is NaN or None. "allow" averages the presentations that there
    are; a code without any follows the optimiser's rule (XDream's genetic algorithm: once more; others: ranked last).

    >>> loop = ClosedLoop(inverter, "genetic", generations=3, settings={"population": 6})
    >>> for codes, images in loop:
    ...     loop.tell(images.mean(axis=(1, 2, 3)))
    >>> loop.best.name[:3], [line["generation"] for line in loop.log]
    ('gen', [0, 1, 2])
    """

    def __init__(
        self,
        inverter: Inverter,
        optimizer: str | CodeOptimizer = "cholesky",
        generations: int | None = None,
        folder: str | os.PathLike[str] | None = None,
        resume: bool = False,
        seed: int = 0,
        start: Start | None = None,
        settings: Mapping[str, Any] | None = None,
        missing: Missing = "refuse",
        full: bool = False,
        strip: int = 8,
    ) -> None:
        self.inverter, self.full, self.missing = inverter, bool(full), missing
        self.generations = None if generations is None else whole_number("generations", generations, 1, 1 << 30)
        if missing not in get_args(Missing):
            raise UsageError(f"missing: {missing!r}, expected {' or '.join(get_args(Missing))}.")
        self.strip = whole_number("strip", strip, 1, 1 << 10)
        inverter.decode(np.zeros((0, *inverter.feature_shape), np.float32))  # raises before anything is written
        dimensions = math.prod(inverter.feature_shape)
        if isinstance(optimizer, str):
            optimizer = make_optimizer(optimizer, dimensions, seed, start, settings)
        elif seed or start is not None or settings:
            raise UsageError("optimizer: made already, expected its name where seed, start or settings are given.")
        if optimizer.dimensions != dimensions:
            raise UsageError(f"optimizer: codes of {optimizer.dimensions}, expected {dimensions}, as the bundle takes.")
        self.optimizer = optimizer
        self.generation, self.best, self.log = 0, None, []  # type: int, Best | None, list[dict[str, Any]]
        self._first, self._previous = 0, 0  # numbers of the first code of this generation and of the one before
        self._folder = None if folder is None else LoopFolder(folder)
        self._resume, self._is_stopped, self._is_lost = resume, False, False
        self._shown: _Shown | None = None
        self._background = Background()

    def __iter__(self) -> Iterator[tuple[Codes, Pixels]]:
        """Yield (codes, images) of each generation. Raises UsageError where the last one's scores were not told."""
        if self._is_lost:
            raise UsageError(
                "loop: interrupted while it took scores, expected a folder that keeps them. Make a new one."
            )
        with (
            nullcontext() if self._folder is None else reserved(self._folder.path),
            Background() as self._background,
        ):
            self._begin()
            self._is_stopped, self._shown = False, None
            while not self._is_stopped and (self.generations is None or self.generation < self.generations):
                self._shown = shown = self._show()
                yield shown.codes.copy(), shown.images
                if self._shown is not None:
                    raise UsageError("loop: the next generation was asked for, expected the scores of this one first.")
            self._settle()
            if self._folder is not None and self.best is not None:
                self._folder.write_best(self._decode(self.best.code[None])[0])

    @property
    def names(self) -> list[str]:
        """Return the names of this generation's codes, such as "gen004_000080"."""
        return self._names(self.generation, self._first, len(self.optimizer.ask()))

    def stop(self) -> None:
        """End the loop after this generation."""
        self._is_stopped = True

    def tell(self, scores: Any) -> None:
        """Take the scores of the images that were handed out, higher is better: (n,), or (n, presentations).

        Presentations are averaged. Raises UsageError where no images were handed out, ShapeError, DtypeError;
        DataError for missing scores (see the class). After any of these, the scores can be told again.
        """
        shown, told = self._shown, time.perf_counter()
        if shown is None:
            raise UsageError("loop: scores without a generation, expected images that were handed out before.")
        trials = _trials(scores, len(shown.codes))
        values = self._averaged(trials)
        self._settle()
        names = self.names
        with self._again_after_an_error(unless=DeepsimError):  # which leaves the optimiser as it was
            self.optimizer.tell(values)
        searched = time.perf_counter()
        seconds = {"decode": shown.decode_seconds, "scores": told - shown.handed_out, "search": searched - told}
        record = _record(self.generation, names, values, trials)
        record |= {"seconds": searched - shown.began, **{f"{name}_seconds": value for name, value in seconds.items()}}
        self._improve(names, values, shown.codes)
        self.log.append(record)
        self._shown = None
        self._write(record, shown.images[self._best_of(record)])

    def _write(self, record: dict[str, Any], best_images: Pixels) -> None:
        """Go on to the next generation; keep this one's line, then the state, and its strip in the background."""
        generation, count = self.generation, record["codes"]
        self.generation, self._previous, self._first = generation + 1, self._first, self._first + count
        if self._folder is not None:
            with self._again_after_an_error():
                self._folder.write_line(record)
                self._keep()
            self._background.do(partial(self._folder.write_strip, generation, best_images))

    def _settle(self) -> None:
        """Wait for what is written in the background."""
        with self._again_after_an_error():
            self._background.settle()

    @contextmanager
    def _again_after_an_error(self, unless: type[BaseException] | tuple[()] = ()) -> Iterator[None]:
        """Go on from what the folder holds when the loop is iterated again after an error, such as Ctrl-C."""
        try:
            yield
        except unless:
            raise
        except BaseException:
            self._shown, self._is_lost = None, self._folder is None
            raise

    def _best_of(self, record: dict[str, Any]) -> NDArray[np.intp]:
        """Return the indices of a generation's best codes, best first."""
        return np.argsort(-np.array(record["scores"], np.float64))[: self.strip]

    def _begin(self) -> None:
        """Read what the folder holds: another process may have gone on with it since this loop was iterated."""
        if self._folder is None:
            return
        state = self._folder.begin(self._run(), self._resume)
        if state is not None:
            self._restore(state)
        self.log = self._folder.read_log(self.generation)
        if state is None:
            self._keep()
        self._resume, last = True, self.generation - 1
        if last >= 0 and not self._folder.has_strip(last):  # killed after the state was kept
            codes = self._folder.read_codes(last, [*map(int, self._best_of(self.log[last]))])
            self._folder.write_strip(last, self._decode(codes))

    def _run(self) -> dict[str, Any]:
        settings = {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self.optimizer.settings).items()}
        files = sorted(record.sha256 for record in self.inverter.bundle.manifest.files.values())
        return {
            "optimizer": type(self.optimizer).__name__,
            "settings": settings,
            "seed": self.optimizer.seed,
            "start": self.optimizer.start,
            "feature_shape": list(self.inverter.feature_shape),
            "bundle": sha256("".join(files).encode()),
            "geometry": self.inverter.geometry.to_json(),
            "whole_images": self.full,
        }

    def _keep(self) -> None:
        if self._folder is None:
            return
        own: State = {"numbers": np.array([self.generation, self._first, self._previous])}
        if self.best is not None:
            own |= {"best_name": np.array(self.best.name), "best_score": np.array(self.best.score)}
            own |= {"best_code": self.best.code}
        self._folder.write_state(own | {f"{_OPTIMIZER}{name}": value for name, value in self.optimizer.state().items()})

    def _restore(self, state: State) -> None:
        try:
            self.generation, self._first, self._previous = (int(number) for number in state["numbers"])
            self.best = None
            if "best_name" in state:
                self.best = Best(str(state["best_name"]), float(state["best_score"]), state["best_code"])
        except (KeyError, ValueError, TypeError) as error:
            raise CheckpointError(f"state: not that of a closed loop ({error}), expected its own.") from error
        own = {name.removeprefix(_OPTIMIZER): value for name, value in state.items() if name.startswith(_OPTIMIZER)}
        self.optimizer.restore(own)

    def _show(self) -> _Shown:
        began = time.perf_counter()
        codes = self.optimizer.ask().reshape(-1, *self.inverter.feature_shape)
        self._settle()
        if self._folder is not None:
            given = self.generation, codes, self.names, self._genealogy()
            self._background.do(partial(self._folder.write_codes, *given))
        images = self._decode(codes)
        return _Shown(codes, images, began, time.perf_counter() - began, time.perf_counter())

    def _decode(self, codes: Codes) -> Pixels:
        return self.inverter.decode(codes, full=self.full)

    def _genealogy(self) -> list[str] | None:
        """Say of each code where it comes from, in XDream's words; None where the optimiser has no parents."""
        if not self.optimizer.keeps_genealogy:
            return None
        origins = self.optimizer.origins
        if origins is None:
            words = {"normal": "standard_normal", "zeros": "zeros"}
            return [words.get(self.optimizer.start, "manual_init")] * len(self.names)
        before = self._names(self.generation - 1, self._previous, self._first - self._previous)
        joined = ("+".join(before[index] for index in parents) for parents in origins)
        return [f"{text}+mut" if "+" in text else text for text in joined]

    def _names(self, generation: int, first: int, count: int) -> list[str]:
        return [f"gen{generation:03d}_{first + index:06d}" for index in range(count)]

    def _averaged(self, trials: Floats) -> Floats:
        """Average the presentations (n, p) of each code. Raises DataError for a missing one that is not allowed."""
        missing = np.isnan(trials)
        if missing.any() and self.missing == "refuse":
            name = self.names[int(np.flatnonzero(missing.any(axis=1))[0])]
            raise DataError(f"scores: {int(missing.sum())} missing, the first of {name}, expected one for each image.")
        counts = np.count_nonzero(~missing, axis=1)
        sums = np.where(missing, 0, trials).sum(axis=1)
        return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)

    def _improve(self, names: list[str], values: Floats, codes: Codes) -> None:
        if np.isnan(values).all():
            return
        index = int(np.nanargmax(values))
        if self.best is None or values[index] > self.best.score:
            self.best = Best(names[index], float(values[index]), codes[index].copy())


def _trials(scores: Any, count: int) -> Floats:
    """Return scores as float64 (count, presentations), None as NaN. Raises DtypeError, ShapeError, DataError."""
    try:
        trials: NDArray[np.float64] = np.asarray(host_array(scores, "scores"), np.float64)
    except (TypeError, ValueError) as error:
        raise DtypeError(f"scores: not numbers ({error}), expected one for each image.") from error
    if trials.ndim not in (1, 2) or len(trials) != count or not trials.size:
        raise ShapeError(f"scores: shape {trials.shape}, expected ({count},) or ({count}, presentations).")
    if np.isinf(trials).any():
        raise DataError("scores: infinite, expected finite numbers, or NaN where one is missing.")
    return trials.reshape(count, -1)


def _record(generation: int, names: list[str], values: Floats, trials: Floats) -> dict[str, Any]:
    """Return a generation's line of the log; None where a score is missing."""
    scored = values[~np.isnan(values)]
    record: dict[str, Any] = {
        "generation": generation,
        "codes": len(values),
        "scored": len(scored),
        "best": float(scored.max()) if len(scored) else None,
        "mean": float(scored.mean()) if len(scored) else None,
        "sd": float(scored.std()) if len(scored) else None,
        "best_code": names[int(np.nanargmax(values))] if len(scored) else None,
        "scores": [_finite(value) for value in values.tolist()],
    }
    if trials.shape[1] > 1:
        record["trials"] = [[_finite(value) for value in row] for row in trials.tolist()]
    return record


def _finite(value: Any) -> Any:
    """Return a value as JSON takes it: None for NaN and infinities."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
