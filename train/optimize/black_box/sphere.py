"""Evolution on a sphere: the rule of ZOHA_Sphere_lr_euclid of the Ponce lab's toolkits (SphereCMA)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from deepsim.runtime.errors import UsageError
from deepsim.train.optimize.black_box.cholesky import recombination_weights
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
class SphereSettings:
    """Settings of :class:`Sphere`.

    The schedule "exp" goes in equal ratios from ``exploration`` to ``last_exploration``. "inv" is 15 + 1 / (0.0017 k +
    0.0146) degrees in generation k = 1, 2, ...; these two do not count then.
    """

    population: int = setting(40, "Codes around the base in a generation.", least=2, most=MOST)
    select: int = setting(20, "Codes whose weighted mean counts.", least=2)
    norm: float = setting(300.0, "Norm of every code.", least=TINY)
    rate: float = setting(1.5, "How far the base moves, in units of its way to the weighted mean.", least=TINY)
    schedule: Literal["exp", "inv"] = setting("exp", "How exploration shrinks.")
    exploration: float = setting(50.0, "Angle of the first generation in degrees.", least=TINY, most=180)
    last_exploration: float = setting(7.33, "Angle of the last in degrees.", least=TINY, most=180)
    generations: int = setting(75, "Generations until the last angle, which stays.", least=1, most=1 << 20)

    def __post_init__(self) -> None:
        check_values(self)
        if self.select > self.population:
            raise UsageError(f"select: {self.select}, expected at most the population, {self.population}.")


class Sphere(CodeOptimizer):
    """Move a base on a sphere along the great circle to the weighted mean of the best codes, ``rate`` times as far.

    A generation is the base and ``population`` codes around it, at angles of the schedule. The base's own score does
    not count. After ``generations`` the exploration stays as it is.

    ``start`` "normal" is ``population`` draws from N(0, 1), brought to the norm. Given codes are the first generation,
    as they are; of one alone the base is that code, brought to the norm (ours: the public code needs two). "zeros" has
    no direction and is refused.
    """

    settings: SphereSettings

    def __init__(self, settings: SphereSettings, dimensions: int, seed: int, start: Start = "normal") -> None:
        super().__init__(settings, dimensions, seed, start)
        if isinstance(start, str) and start == "zeros":
            raise UsageError("start: zeros, which lie on no sphere, expected normal or codes.")
        self.angles = _angles(settings) / math.sqrt(self.dimensions)
        self._random, self._step = np.random.RandomState(self.seed), 0
        given = given_codes(start, self.dimensions)
        if given is None:
            given = self._on_sphere(self._random.randn(settings.population, self.dimensions))
        if not np.linalg.norm(given, axis=1).all():
            raise UsageError("start: a code of zeros, which lies on no sphere, expected others.")
        self._codes = given

    @property
    def least_scores(self) -> int:
        """Return how many codes are recombined; the base, whose score does not count, may be among those with one."""
        return self.settings.select + 1 if self._step else len(self._codes) // 2

    def _advance(self, scores: Floats) -> Floats:
        base = self._first_base(scores) if self._step == 0 else self._next_base(scores)
        away = self._random.randn(self.settings.population, self.dimensions)
        away = away - np.outer(away @ base, base) / (base @ base)  # the part that is tangent to the sphere
        angle = self.angles[min(self._step, len(self.angles) - 1)] * np.linalg.norm(away, axis=1)[:, None]
        around = np.cos(angle) * base + np.sin(angle) * self._on_sphere(away)
        self._step += 1
        return self._on_sphere(np.concatenate([base[None], around]))

    def _first_base(self, scores: Floats) -> Floats:
        base = self._codes[0]
        if len(self._codes) > 1:
            base = _weighted(self._codes, scores, recombination_weights(len(scores)))
        return self._one_on_sphere(base)

    def _next_base(self, scores: Floats) -> Floats:
        weights = recombination_weights(2 * self.settings.select)
        base, best = self._codes[0], self._one_on_sphere(_weighted(self._codes[1:], scores[1:], weights))
        angle = math.acos(min(1.0, base @ best / float(np.linalg.norm(base) * np.linalg.norm(best))))
        if angle == 0:
            return best
        rate = self.settings.rate
        return np.asarray((math.sin((1 - rate) * angle) * base + math.sin(rate * angle) * best) / math.sin(angle))

    def _on_sphere(self, codes: Floats) -> Floats:
        return np.asarray(self.settings.norm * codes / np.linalg.norm(codes, axis=1)[:, None])

    def _one_on_sphere(self, code: Floats) -> Floats:
        return np.asarray(self._on_sphere(code[None])[0])

    def _own_state(self) -> State:
        return {"step": np.array(self._step), "random": random_text(self._random)}

    def _restore_own(self, state: State) -> None:
        self._step = int(state["step"])
        restore_random(self._random, state["random"])


def _weighted(codes: Floats, scores: Floats, weights: Floats) -> Floats:
    """Return the sum of the best codes by ``weights``, largest first."""
    ranks = (-scores).argsort().argsort()
    of_rank = np.zeros(len(scores))
    of_rank[: len(weights)] = weights
    return np.asarray(of_rank[ranks] @ codes)


def _angles(settings: SphereSettings) -> Floats:
    """Return the exploration of every generation in radians."""
    if settings.schedule == "exp":
        ends = math.log10(settings.exploration), math.log10(settings.last_exploration)
        degrees = np.logspace(*ends, settings.generations)
    else:
        degrees = 15 + 1 / (0.0017 * np.arange(1, settings.generations + 1) + 0.0146)
    return np.asarray(degrees / 180 * math.pi)
