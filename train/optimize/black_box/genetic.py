"""The genetic algorithm of XDream (Ponce et al. 2019), in its settings and in those of the ActMax benchmark."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepsim.runtime.errors import UsageError
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

_LEAST_TEMPERATURE = 1e-8  # where all scores are equal
_CAP = 95  # percentile


@dataclass(frozen=True)
class GeneticSettings:
    """Settings of :class:`Genetic`.

    A parent is drawn with a probability in proportion to exp((s - best) / T), T = SD(s) / ``selectivity``.
    """

    population: int = setting(20, "Codes in a generation.", least=2, most=MOST)
    mutation_rate: float = setting(0.5, "Probability that a value mutates.", least=0, most=1)
    mutation_size: float = setting(0.5, "SD of a mutation.", least=TINY)
    selectivity: float = setting(2.0, "How strongly scores decide who becomes a parent.", least=TINY)
    heritability: float = setting(0.5, "Probability that a value comes from the first parent.", least=0, most=1)
    conserve: int = setting(1, "Best codes that are kept.", least=0)
    cap: bool = setting(True, "Count scores above the 95th percentile as that.")

    def __post_init__(self) -> None:
        check_values(self)
        if self.conserve >= self.population:
            raise UsageError(f"conserve: {self.conserve}, expected less than the population, {self.population}.")


class Genetic(Breeder):
    """Breed each generation from the last; codes without a score are carried into the next as they are (XDream's rule).

    ``start`` "normal" draws the population from N(0, 1). Given codes are the first of the population; the others
    are children of them, mutated (XDream's rule; it shuffles given codes, here they keep their order). "zeros"
    makes all codes equal, and only mutation tells them apart.
    """

    settings: GeneticSettings

    def __init__(self, settings: GeneticSettings, dimensions: int, seed: int, start: Start = "normal") -> None:
        super().__init__(settings, dimensions, seed, start)
        self._random = np.random.RandomState(self.seed)
        given = self._population(start, self._random)
        missing = settings.population - len(given)
        if missing:
            children, _ = self._mate(given, np.ones(len(given)), missing)
            given = np.concatenate([given, self._mutate(children)])
        self._codes = given

    @property
    def least_scores(self) -> int:
        """Return 0: a generation without any score is asked once more."""
        return 0

    def _advance(self, scores: Floats) -> Floats:
        scored, unscored = np.flatnonzero(~np.isnan(scores)), np.flatnonzero(np.isnan(scores))
        order = scored[np.argsort(scores[scored])[::-1]]
        conserved = order[: max(0, min(self.settings.conserve, len(self._codes) - len(unscored)))]
        count = len(self._codes) - len(conserved) - len(unscored)
        bred, parents = self._breed(order, scores[order], count)
        self._origins = [(int(one),) for one in conserved]
        self._origins += [(int(order[a]), int(order[b])) for a, b in parents]
        self._origins += [(int(one),) for one in unscored]
        return np.concatenate([self._codes[conserved], bred, self._codes[unscored]])

    def _breed(self, order: NDArray[np.int64], scores: Floats, count: int) -> tuple[Floats, NDArray[np.int64]]:
        """Return ``count`` mutated children of the codes ``order``, whose scores fall, and their parents within it."""
        if not count:
            return np.zeros((0, self.dimensions)), np.zeros((0, 2), np.int64)
        temperature = max(float(np.std(scores)) / self.settings.selectivity, _LEAST_TEMPERATURE)
        if self.settings.cap:
            scores = np.minimum(scores, np.percentile(scores, _CAP))
        fitness = np.exp((scores - scores[0]) / temperature)
        children, parents = self._mate(self._codes[order], fitness, count)
        return self._mutate(children), parents

    def _mate(self, population: Floats, fitness: Floats, count: int) -> tuple[Floats, NDArray[np.int64]]:
        fitness = np.where(fitness > 0, fitness, fitness[fitness > 0].min())  # exp() may underflow
        shares = np.cumsum(fitness)
        shares /= shares[-1]
        first = np.digitize(self._random.random_sample(count), shares)
        second = np.digitize(self._random.random_sample(count), shares)
        from_first = self._random.random_sample((count, self.dimensions)) < self.settings.heritability
        return np.where(from_first, population[first], population[second]), np.stack([first, second], axis=1)

    def _mutate(self, children: Floats) -> Floats:
        changed = self._random.random_sample(children.shape) < self.settings.mutation_rate
        children[changed] += self._random.normal(0, self.settings.mutation_size, np.count_nonzero(changed))
        return children

    def _own_state(self) -> State:
        return {**self._origins_state(most=2), "random": random_text(self._random)}

    def _restore_own(self, state: State) -> None:
        self._restore_origins(state)
        restore_random(self._random, state["random"])
