"""What every optimiser of codes is: ask for a generation of codes, tell their scores; its state can be kept.

Scores are maximised. An optimiser computes in float64, and its codes are float32. Its draws come from numpy's
``RandomState`` or ``Generator``, as those of the public code do, so that a seed gives the codes that the public code
draws from that seed.
"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from deepsim.runtime.errors import CheckpointError, DataError, DtypeError, ShapeError, UsageError
from deepsim.runtime.files import sha256
from deepsim.runtime.inputs import host_array, whole_number

Codes: TypeAlias = NDArray[np.float32]
Floats: TypeAlias = NDArray[np.float64]
State: TypeAlias = dict[str, NDArray[Any]]
Start: TypeAlias = "Literal['normal', 'zeros'] | NDArray[np.floating[Any]]"
Origin: TypeAlias = tuple[int, ...]  # indices of a code's parents in the generation before; one: it was kept

MAX_SEED = (1 << 32) - 1
MOST = 1 << 16  # codes in a generation
TINY = 1e-12  # the least size of a step


class CodeOptimizer(ABC):
    """One search for codes of ``dimensions`` values each; ``seed`` decides all of its draws.

    ``start`` is "normal" (draws from N(0, 1)), "zeros", or given codes (n, dimensions); what a rule makes of them is
    said in its class. ``settings`` is the rule's record, as :data:`deepsim.train.optimize.black_box.presets.PRESETS`
    holds it.
    """

    keeps_genealogy: ClassVar[bool] = False

    def __init__(self, settings: Any, dimensions: int, seed: int, start: Start) -> None:
        self.settings = settings
        self.start = start if isinstance(start, str) else f"given codes {_digest(start)}"
        self.dimensions = whole_number("dimensions", dimensions, 2, 1 << 24)
        self.seed = whole_number("seed", seed, 0, MAX_SEED)
        self._codes: Floats = np.zeros((0, dimensions))

    def ask(self) -> Codes:
        """Return the codes of this generation, float32 (n, dimensions); the same until their scores are told."""
        return self._codes.astype(np.float32)

    def tell(self, scores: Any) -> None:
        """Take the scores (n,) of the codes of :meth:`ask`, higher is better, and prepare the next generation.

        NaN is a missing score: such a code ranks last, where the rule does not say otherwise. Raises ShapeError,
        DtypeError; DataError for infinite scores and where fewer codes have one than the rule selects.
        """
        self._codes = self._advance(check_scores(scores, len(self._codes), self.least_scores))

    @property
    @abstractmethod
    def least_scores(self) -> int:
        """Return how many codes of a generation need a score."""

    @property
    def origins(self) -> list[Origin] | None:
        """Return each code's parents in the generation before; None where the rule has no parents, or at the start."""
        return None

    @abstractmethod
    def _advance(self, scores: Floats) -> Floats:
        """Return the codes of the next generation, from the scores of these."""

    def state(self) -> State:
        """Return all that decides what follows, as arrays."""
        return {"codes": self._codes, **self._own_state()}

    def restore(self, state: State) -> None:
        """Go on from what :meth:`state` returned. Raises CheckpointError for the state of another search."""
        try:
            codes = state["codes"]
            if codes.dtype != np.float64 or codes.ndim != 2 or codes.shape[1] != self.dimensions:
                raise ValueError(f"codes {codes.dtype} {codes.shape}, expected float64 (n, {self.dimensions})")
            self._codes = codes
            self._restore_own(state)
        except (KeyError, ValueError, TypeError, IndexError) as error:
            raise CheckpointError(f"state: not that of such an optimiser ({error}), expected its own.") from error

    @abstractmethod
    def _own_state(self) -> State: ...

    @abstractmethod
    def _restore_own(self, state: State) -> None: ...


def _digest(start: Any) -> str:
    """Tell given codes from all others."""
    return sha256(np.ascontiguousarray(host_array(start, "start")).tobytes())[:16]


def check_scores(scores: Any, count: int, least: int) -> Floats:
    """Return scores as float64 (count,), NaN where one is missing. Raises as :meth:`CodeOptimizer.tell`."""
    array = np.asarray(host_array(scores, "scores"))
    if array.dtype.kind not in "fiu":
        raise DtypeError(f"scores: {array.dtype}, expected numbers.")
    if array.shape != (count,):
        raise ShapeError(f"scores: shape {array.shape}, expected ({count},), one for each code.")
    values = array.astype(np.float64)
    if np.isinf(values).any():
        raise DataError("scores: infinite, expected finite numbers, or NaN where one is missing.")
    scored = int(np.isfinite(values).sum())
    if scored < min(least, count):
        raise DataError(f"scores: {scored} of {count} codes have one, expected at least {min(least, count)}.")
    return values


def given_codes(start: Start, dimensions: int, most: int | None = None) -> Floats | None:
    """Return given codes as float64 (n, dimensions); None for "normal" and "zeros".

    Raises UsageError for another word or more than ``most`` codes, ShapeError, DataError for NaN.
    """
    if isinstance(start, str):
        if start not in ("normal", "zeros"):
            raise UsageError(f"start: {start!r}, expected normal, zeros or codes.")
        return None
    codes = np.asarray(host_array(start, "start"))
    if codes.dtype.kind != "f":
        raise DtypeError(f"start: {codes.dtype}, expected codes of floating point.")
    rows = codes[None] if codes.shape == (dimensions,) else codes
    if rows.ndim < 2 or not len(rows) or math.prod(rows.shape[1:]) != dimensions:
        raise ShapeError(f"start: shape {codes.shape}, expected codes (n, {dimensions}).")
    codes = rows.reshape(len(rows), dimensions)
    if most is not None and len(codes) > most:
        raise UsageError(f"start: {len(codes)} codes, expected at most {most}.")
    if not np.isfinite(codes).all():
        raise DataError("start: NaN or infinite values, expected finite codes.")
    return codes.astype(np.float64)


def random_text(source: np.random.RandomState | np.random.Generator) -> NDArray[np.str_]:
    """Return the state of a source of random numbers as an array of one text, for :func:`restore_random`."""
    if isinstance(source, np.random.RandomState):
        state: Any = source.get_state(legacy=False)
    else:
        state = source.bit_generator.state
    return np.array(json.dumps(state, default=lambda array: array.tolist()))


def restore_random(source: np.random.RandomState | np.random.Generator, text: NDArray[np.str_]) -> None:
    """Bring a source of random numbers into a state of :func:`random_text`. Raises ValueError, TypeError, KeyError."""
    state = json.loads(str(text))
    if isinstance(source, np.random.RandomState):
        state["state"]["key"] = np.array(state["state"]["key"], np.uint32)
        source.set_state(state)
    else:
        source.bit_generator.state = state
