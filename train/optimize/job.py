"""One optimisation: networks, targets and settings, all opened and checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from deepsim.train.optimize.evaluation import Evaluator, Wanted
from deepsim.train.optimize.layer_weights import weigh
from deepsim.train.optimize.place import Place
from deepsim.train.optimize.randomness import Stream
from deepsim.train.optimize.rules import Bounds, Rule
from deepsim.train.optimize.targets import Targets


@dataclass(frozen=True)
class Job:
    """What is optimised towards what. ``batch`` rows are under way at once; every target has ``starts`` of them."""

    evaluator: Evaluator
    targets: Targets
    bounds: Bounds = (None, None)
    factors: Mapping[str, float] = field(default_factory=dict)
    starts: int = 1
    batch: int = 16
    seed: int = 0
    place: Place = field(default_factory=Place)

    @property
    def per_chunk(self) -> int:
        """Return how many targets a chunk has, at least one."""
        return max(1, self.batch // self.starts)

    @property
    def chunks(self) -> list[range]:
        """Return the numbers of the targets of every chunk."""
        count, step = len(self.targets.names), self.per_chunk
        return [range(first, min(first + step, count)) for first in range(0, count, step)]

    def streams(self, chunk: range) -> list[Stream]:
        """Return the random numbers of every row of a chunk, target by target, start by start."""
        names = self.targets.names[chunk.start : chunk.stop]
        return [Stream(self.seed, name, start) for name in names for start in range(self.starts)]

    def wanted(self, chunk: range) -> Wanted:
        """Read what the rows of a chunk are optimised towards. Raises DataError for targets that cannot be used."""
        features = {
            tap: self.place.put(torch.from_numpy(values))
            for tap, values in self.targets.read(chunk.start, chunk.stop).items()
        }
        names = self.targets.names[chunk.start : chunk.stop]
        how = self.evaluator.settings.layer_weights
        weights = weigh(how, features, names, self.factors, self.evaluator.masks)
        if self.starts == 1:
            return Wanted(features, weights)
        return Wanted(
            {tap: self.place.put(values.repeat_interleave(self.starts, 0)) for tap, values in features.items()},
            {tap: values.repeat_interleave(self.starts) for tap, values in weights.items()},
        )

    def rule(self) -> Rule:
        """Return the update rule, with no state yet."""
        pixels = self.evaluator.pictures.side**2
        return Rule(self.evaluator.settings, self.bounds, pixels if self.evaluator.settings.per_pixel else 1.0)
