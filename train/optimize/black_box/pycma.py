"""CMA-ES by the package ``cma``, full or diagonal: its own rule; this module only asks and tells."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from deepsim.runtime.errors import CheckpointError, UsageError, missing_extra
from deepsim.train.optimize.black_box.optimizer import (
    MOST,
    TINY,
    CodeOptimizer,
    Floats,
    Start,
    State,
    check_scores,
    given_codes,
)
from deepsim.train.settings import check_values, setting


@dataclass(frozen=True)
class CmaSettings:
    """Settings of :class:`Cma`."""

    population: int = setting(40, "Codes in a generation.", least=2, most=MOST)
    sigma: float = setting(2.0, "First step size.", least=TINY)
    diagonal: bool = setting(False, "Keep a variance for each value, not all covariances.")
    bounds: tuple[float, ...] = setting((), "Lowest and highest value of a code; none: no bounds.")

    def __post_init__(self) -> None:
        check_values(self)
        if self.bounds and (len(self.bounds) != 2 or not self.bounds[0] < self.bounds[1]):
            raise UsageError(f"bounds: {self.bounds}, expected a lowest and a higher value.")


class Cma(CodeOptimizer):
    """``cma.CMAEvolutionStrategy`` with its options popsize, CMA_diagonal and bounds; the others are as it has them.

    ``start`` "zeros" or "normal", or one given code, is the mean of the first generation. Its draws are those that the
    package makes after ``np.random.seed(seed)``; numpy's global source of random numbers is left alone. The package
    handles bounds, by a transformation near them.

    Its state is the list of all scores: :meth:`restore` computes the generations again from the seed, and compares the
    last codes with those that were kept. The full form does N x N arithmetic for each of them.
    """

    settings: CmaSettings

    def __init__(self, settings: CmaSettings, dimensions: int, seed: int, start: Start = "zeros") -> None:
        super().__init__(settings, dimensions, seed, start)
        self._start = given_codes(start, self.dimensions, most=1)
        self._normal = isinstance(start, str) and start == "normal"
        self._begin()

    @property
    def least_scores(self) -> int:
        """Return how many codes are recombined."""
        return self.settings.population // 2

    def _begin(self) -> None:
        strategy = _strategy()
        random = np.random.RandomState(self.seed)
        mean = self._start[0] if self._start is not None else np.zeros(self.dimensions)
        mean = random.randn(self.dimensions) if self._normal else mean
        options: dict[str, Any] = {
            "popsize": self.settings.population,
            "CMA_diagonal": self.settings.diagonal,
            "seed": np.nan,  # it seeds nothing, and draws from randn
            "randn": random.randn,
            "verbose": -9,
        }
        if self.settings.bounds:
            low, high = self.settings.bounds
            if not ((mean >= low) & (mean <= high)).all():
                raise UsageError(f"start: values outside {low:g} to {high:g}, expected a code within the bounds.")
            options["bounds"] = [low, high]
        self._strategy = strategy(mean, self.settings.sigma, options)
        self._scores: list[Floats] = []
        self._ask()

    def _ask(self) -> Floats:
        self._solutions = self._strategy.ask()
        self._codes = np.array(self._solutions, np.float64)
        return self._codes

    def _advance(self, scores: Floats) -> Floats:
        self._scores.append(scores)
        last = np.nanmin(scores) - (np.ptp(scores[~np.isnan(scores)]) + 1)  # only ranks count
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # on how it adapts, new ones in each generation
            self._strategy.tell(self._solutions, list(-np.where(np.isnan(scores), last, scores)))
        return self._ask()

    def _own_state(self) -> State:
        return {"scores": np.array(self._scores).reshape(-1, self.settings.population)}

    def _restore_own(self, state: State) -> None:
        kept, scores = state["codes"], state["scores"]
        self._begin()
        for row in scores:
            self._advance(check_scores(row, self.settings.population, self.least_scores))
        if kept.shape != self._codes.shape or not np.allclose(kept, self._codes, rtol=1e-6, atol=1e-6):
            raise CheckpointError(
                "state: the package cma computes other codes from the kept scores, expected those that were kept. "
                "Use its version of then."
            )


def _strategy() -> Any:
    """Return the package's class. Raises DeviceError where it is not installed."""
    try:
        from cma import CMAEvolutionStrategy
    except ModuleNotFoundError as error:
        if error.name != "cma":
            raise
        raise missing_extra("cma", "optimize") from error
    return CMAEvolutionStrategy
