"""What genetic algorithms share: a first population, and which codes are whose children."""

from __future__ import annotations

import numpy as np

from deepsim.train.optimize.black_box.optimizer import CodeOptimizer, Floats, Origin, Start, State, given_codes


class Breeder(CodeOptimizer):
    """An optimiser whose codes have parents in the generation before; ``origins`` are kept in its state."""

    keeps_genealogy = True
    _origins: list[Origin] | None = None

    @property
    def origins(self) -> list[Origin] | None:
        """Return each code's parents in the generation before; None for the first generation."""
        return self._origins

    def _population(self, start: Start, random: np.random.RandomState | np.random.Generator) -> Floats:
        """Return the first population: draws from N(0, 1), zeros, or given codes, as many as there are."""
        size = (self.settings.population, self.dimensions)
        given = given_codes(start, self.dimensions, most=self.settings.population)
        if given is not None:
            return given
        return np.zeros(size) if isinstance(start, str) and start == "zeros" else random.normal(size=size)

    def _origins_state(self, most: int) -> State:
        """Return the origins as an array; ``most`` is the largest number of a code's parents."""
        origins = [(*family, *[-1] * most)[:most] for family in self._origins or []]
        return {"origins": np.array(origins, np.int64).reshape(-1, most)}

    def _restore_origins(self, state: State) -> None:
        families = state["origins"].tolist()
        self._origins = [tuple(one for one in family if one >= 0) for family in families] or None
