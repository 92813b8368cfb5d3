"""CMA-ES by the Cholesky factor, for thousands of dimensions: the rule of CholeskyCMAES of the Ponce lab's toolkits."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from deepsim.runtime.errors import UsageError
from deepsim.train.optimize.black_box.optimizer import (
    MOST,
    TINY,
    CodeOptimizer,
    Floats,
    Start,
    State,
    given_codes,
    random_text,
    restore_random,
)
from deepsim.train.settings import check_values, setting


@dataclass(frozen=True)
class CholeskySettings:
    """Settings of :class:`Cholesky`."""

    population: int = setting(0, "Codes in a generation; 0: 4 + floor(3 log2 N).", least=0, most=MOST)
    sigma: float = setting(3.0, "First step size.", least=TINY)
    update_every: int = setting(10, "The factor is updated after more than so many generations.", least=0)

    def __post_init__(self) -> None:
        check_values(self)
        if self.population == 1:
            raise UsageError("population: 1, expected 2 or more, or 0.")


class Cholesky(CodeOptimizer):
    """Evolve a normal distribution of codes: mean, step size and, now and then by rank one, the factor A of C = A'A.

    Codes are mean + sigma z A, z from N(0, 1). The public code holds A and its inverse, N x N each. A is a product of
    rank-one factors, of which there is one after every eleven generations, so :class:`Factor` holds these instead:
    the same codes up to rounding, without the N x N arrays.

    ``start`` "zeros" or "normal", or one given code, is the mean; the first generation is that code alone. Of several
    given codes, which are the first generation then, the mean is the weighted mean of the best.
    """

    settings: CholeskySettings

    def __init__(self, settings: CholeskySettings, dimensions: int, seed: int, start: Start = "zeros") -> None:
        super().__init__(settings, dimensions, seed, start)
        n = self.dimensions
        self.population = settings.population or 4 + math.floor(3 * math.log2(n))
        self.weights = recombination_weights(self.population)
        self.mu_eff = 1 / float(np.sum(self.weights**2))
        self.cc, self.c1 = 4 / (n + 4), 2 / (n + math.sqrt(2)) ** 2
        self.cs = math.sqrt(self.mu_eff) / (math.sqrt(self.mu_eff) + math.sqrt(n))
        self.damping = 1 + self.cs + 2 * max(0.0, math.sqrt((self.mu_eff - 1) / (n + 1)) - 1)
        self.expected_norm = math.sqrt(n) * (1 - 1 / (4 * n) + 1 / (21 * n**2))  # of a draw from N(0, I)
        self.sigma, self.path, self.sigma_path = settings.sigma, np.zeros(n), np.zeros(n)
        self.factor = Factor(n, self.c1)
        self._draws, self._since_update = np.zeros((0, n)), 0
        self._random = np.random.RandomState(self.seed)
        given = given_codes(start, n)
        if given is None:
            given = self._random.randn(1, n) if isinstance(start, str) and start == "normal" else np.zeros((1, n))
        self._codes = given

    @property
    def least_scores(self) -> int:
        """Return how many codes are recombined."""
        return len(self.weights)

    def _advance(self, scores: Floats) -> Floats:
        best = np.argsort(-scores)[: len(self.weights)]
        if not len(self._draws):
            weights = self.weights[: len(best)]
            mean = weights / weights.sum() @ self._codes[best]
        else:
            mean = self.weights @ self._codes[best]
            self._adapt(self.weights @ self._draws[best])
        self._draws = self._random.randn(self.population, self.dimensions)
        self._since_update += 1
        return np.asarray(mean + self.sigma * self.factor.times(self._draws))

    def _adapt(self, step: Floats) -> None:
        """Follow the paths of the mean's ``step`` (in units of sigma and A); update the factor when it is due."""
        self.sigma_path = (1 - self.cs) * self.sigma_path + math.sqrt(self.cs * (2 - self.cs) * self.mu_eff) * step
        step = self.factor.times(step[None])[0]
        self.path = (1 - self.cc) * self.path + math.sqrt(self.cc * (2 - self.cc) * self.mu_eff) * step
        grown = float(np.linalg.norm(self.sigma_path)) / self.expected_norm - 1
        self.sigma *= math.exp(self.cs / self.damping * grown)
        if self._since_update > self.settings.update_every:
            self._since_update = 0
            self.factor.update(self.path)

    def _own_state(self) -> State:
        numbers = np.array([self.sigma, self._since_update])
        paths = np.stack([self.path, self.sigma_path])
        factor = {"vectors": self.factor.vectors, "core": self.factor.core, "shrinks": np.array(self.factor.shrinks)}
        return {"draws": self._draws, "numbers": numbers, "paths": paths, "random": random_text(self._random), **factor}

    def _restore_own(self, state: State) -> None:
        self._draws, (self.path, self.sigma_path) = state["draws"], state["paths"]
        self.sigma, self._since_update = float(state["numbers"][0]), int(state["numbers"][1])
        self.factor.vectors, self.factor.core = state["vectors"], state["core"]
        self.factor.shrinks = state["shrinks"].tolist()
        restore_random(self._random, state["random"])


class Factor:
    """The factor A as a product: with s = sqrt(1 - c1), each update makes A into s (I + b v'v) A, v a row of norm^2 w.

    So A = s^k (I + V' T V) after k updates, V (k, N) being the rows v and T (k, k) lower triangular; ``vectors`` is V,
    ``core`` is T. The inverse is the product of (I - d v'v) / s in the other order; ``shrinks`` are these d.
    """

    def __init__(self, dimensions: int, c1: float) -> None:
        self.c1 = c1
        self.vectors: Floats = np.zeros((0, dimensions))
        self.core: Floats = np.zeros((0, 0))
        self.shrinks: list[float] = []

    def times(self, rows: Floats) -> Floats:
        """Return rows A, for rows (n, N)."""
        if not len(self.vectors):
            return rows
        scale = (1 - self.c1) ** (len(self.vectors) / 2)
        return np.asarray(scale * (rows + rows @ self.vectors.T @ self.core @ self.vectors))

    def times_inverse(self, row: Floats) -> Floats:
        """Return row A^-1, for a row (N,)."""
        for vector, shrink in zip(self.vectors, self.shrinks, strict=True):
            row = row - shrink * (row @ vector) * vector
        return np.asarray(row / (1 - self.c1) ** (len(self.vectors) / 2))

    def update(self, path: Floats) -> None:
        """Update A by rank one, so that A'A becomes (1 - c1) A'A + c1 path'path."""
        vector = self.times_inverse(path)
        square = float(vector @ vector)
        grown = math.sqrt(1 + square * self.c1 / (1 - self.c1))
        growth = (grown - 1) / square
        below = growth * (self.vectors @ vector) @ self.core
        count = len(self.vectors)
        core = np.zeros((count + 1, count + 1))
        core[:count, :count], core[count, :count], core[count, count] = self.core, below, growth
        self.core, self.vectors = core, np.concatenate([self.vectors, vector[None]])
        self.shrinks.append((1 - 1 / grown) / square)


def recombination_weights(population: int) -> Floats:
    """Return the weights of the best half of a population, largest first; their sum is 1."""
    half = population / 2
    weights = math.log(half + 0.5) - np.log(np.arange(1, math.floor(half) + 1))
    return np.asarray(weights / weights.sum())
