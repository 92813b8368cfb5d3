"""The genetic algorithm of P-XDream: parents drawn without replacement, by a softmax of the scores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepsim.runtime.errors import DataError, UsageError
from deepsim.train.optimize.black_box.optimizer import (
    COUNT,
    SIZE,
    CodeOptimizer,
    Floats,
    Origin,
    Start,
    State,
    check_settings,
    given_codes,
    random_text,
    restore_random,
)


@dataclass(frozen=True)
class PxdreamSettings:
    """``top`` of ``population`` codes are kept; the others have ``parents`` each, and mutate.

    Parents are drawn by softmax(scores / ``temperature``), without replacement. A child has each value from any of
    them. A value mutates with the probability ``mutation_rate``, by N(0, ``mutation_size``).
    """

    population: int = 50
    mutation_rate: float = 0.3
    mutation_size: float = 0.1
    parents: int = 2
    top: int = 2
    temperature: float = 1.0

    def __post_init__(self) -> None:
        check_settings(self, population=COUNT, mutation_rate=(0, 1), mutation_size=SIZE, temperature=SIZE)
        check_settings(self, parents=(1, self.population), top=(1, self.population - 1))


class PxdreamGenetic(CodeOptimizer):
    """Breed each generation from the last. Codes are float32 from the second generation on, as in the public code.

    ``start`` "normal" draws the population from N(0, 1); given codes are the population, all of it. "zeros" makes all
    codes equal, and only mutation tells them apart.
    """

    keeps_genealogy = True
    settings: PxdreamSettings

    def __init__(self, settings: PxdreamSettings, dimensions: int, seed: int, start: Start = "normal") -> None:
        super().__init__(settings, dimensions, seed, start)
        self._random = np.random.default_rng(self.seed)
        self._origins: list[Origin] | None = None
        size = (settings.population, self.dimensions)
        given = given_codes(start, self.dimensions, most=settings.population)
        if given is None:
            given = np.zeros(size) if isinstance(start, str) and start == "zeros" else self._random.normal(size=size)
        if len(given) != settings.population:
            raise UsageError(f"start: {len(given)} codes, expected {settings.population}, the whole population.")
        self._codes = given

    @property
    def least_scores(self) -> int:
        """Return how many codes are kept, or are parents of one."""
        return max(self.settings.top, self.settings.parents)

    @property
    def origins(self) -> list[Origin] | None:
        """Return each code's parents in the generation before; None for the first generation."""
        return self._origins

    def _advance(self, scores: Floats) -> Floats:
        scores = np.where(np.isnan(scores), -np.inf, scores)
        kept = np.argsort(scores)[-self.settings.top :]
        families = self._families(scores)
        count = len(families)
        lineage = self._random.choice(self.settings.parents, size=(count, self.dimensions))
        parent = np.take_along_axis(families, lineage, axis=1)  # of every value
        children = self._codes[parent, np.arange(self.dimensions)]
        chances = (self.settings.mutation_rate, 1 - self.settings.mutation_rate)
        changed = self._random.choice([True, False], size=children.shape, p=chances)
        children[changed] += self._random.normal(scale=self.settings.mutation_size, size=np.count_nonzero(changed))
        self._origins = [(int(one),) for one in kept] + [tuple(family) for family in families.tolist()]
        return np.concatenate([self._codes[kept], children]).astype(np.float32).astype(np.float64)

    def _families(self, scores: Floats) -> NDArray[np.int64]:
        """Draw the parents of every child. Raises DataError where too few codes have a chance."""
        weights = np.exp((scores - scores.max()) / self.settings.temperature)
        if np.count_nonzero(weights) < self.settings.parents:
            raise DataError(
                f"scores: all but {np.count_nonzero(weights)} are so far below the best that none becomes a parent, "
                f"expected {self.settings.parents} or more near it. Use a temperature of the order of the scores' SD."
            )
        chances, size = weights / weights.sum(), (self.settings.parents,)
        count = self.settings.population - self.settings.top
        draw = self._random.choice
        return np.stack([draw(len(scores), size, p=chances, replace=False) for _ in range(count)])

    def _own_state(self) -> State:
        width = self.settings.parents
        origins = [(*family, *[-1] * width)[:width] for family in self._origins or []]
        return {"origins": np.array(origins, np.int64).reshape(-1, width), "random": random_text(self._random)}

    def _restore_own(self, state: State) -> None:
        families = state["origins"].tolist()
        self._origins = [tuple(one for one in family if one >= 0) for family in families] or None
        restore_random(self._random, state["random"])
