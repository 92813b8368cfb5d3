"""The genetic algorithm of P-XDream: parents drawn without replacement, by a softmax of the scores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepsim.runtime.errors import DataError, UsageError
from deepsim.train.optimize.black_box.breeding import Breeder
from deepsim.train.optimize.black_box.optimizer import (
    MOST,
    TINY,
    Floats,
    Start,
    State,
    random_text,
    restore_random,
)
from deepsim.train.settings import check_values, setting


@dataclass(frozen=True)
class PxdreamSettings:
    """Settings of :class:`PxdreamGenetic`."""

    population: int = setting(50, "Codes in a generation.", least=2, most=MOST)
    mutation_rate: float = setting(0.3, "Probability that a value mutates.", least=0, most=1)
    mutation_size: float = setting(0.1, "SD of a mutation.", least=TINY)
    parents: int = setting(2, "Parents of a child, by softmax(scores / temperature), without replacement.", least=1)
    top: int = setting(2, "Best codes that are kept.", least=1)
    temperature: float = setting(1.0, "Of the softmax, in units of the scores.", least=TINY)

    def __post_init__(self) -> None:
        check_values(self)
        if self.top >= self.population:
            raise UsageError(f"top: {self.top}, expected less than the population, {self.population}.")
        if self.parents > self.population:
            raise UsageError(f"parents: {self.parents}, expected at most the population, {self.population}.")


class PxdreamGenetic(Breeder):
    """Breed each generation from the last. Codes are float32 from the second generation on, as in the public code.

    ``start`` "normal" draws the population from N(0, 1); given codes are the population, all of it. "zeros" makes all
    codes equal, and only mutation tells them apart.
    """

    settings: PxdreamSettings

    def __init__(self, settings: PxdreamSettings, dimensions: int, seed: int, start: Start = "normal") -> None:
        super().__init__(settings, dimensions, seed, start)
        self._random = np.random.default_rng(self.seed)
        given = self._population(start, self._random)
        if len(given) != settings.population:
            raise UsageError(f"start: {len(given)} codes, expected {settings.population}, the whole population.")
        self._codes = given

    @property
    def least_scores(self) -> int:
        """Return how many codes are kept, or are parents of one."""
        return max(self.settings.top, self.settings.parents)

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
        return {**self._origins_state(most=self.settings.parents), "random": random_text(self._random)}

    def _restore_own(self, state: State) -> None:
        self._restore_origins(state)
        restore_random(self._random, state["random"])
