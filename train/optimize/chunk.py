"""A batch of rows (targets times starts) under optimisation: everything that changes, which is all that is saved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from deepsim.kernels.layers import Shape
from deepsim.train.optimize.place import Place
from deepsim.train.optimize.randomness import Stream
from deepsim.train.optimize.settings import Settings


@dataclass
class Chunk:
    """The rows of some targets. ``streams`` has one entry for each row, target by target, start by start.

    ``variable`` is about to be evaluated in ``iteration``. ``best`` is the variable of the lowest loss so far,
    ``kept`` the one that was evaluated last, with ``best_loss`` and ``kept_loss`` (infinite before the first).
    ``ended`` has, for each row, the iteration in which its loss was no longer finite; -1: none.
    """

    streams: tuple[Stream, ...]
    variable: Tensor
    best: Tensor
    best_loss: Tensor
    kept: Tensor
    kept_loss: Tensor
    ended: Tensor
    iteration: int = 0
    layers: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def begin(cls, streams: Sequence[Stream], settings: Settings, shape: Shape, place: Place) -> Chunk:
        """Return the rows as they begin, before any bound."""
        drawn = [stream.start_at(settings.start, settings.start_scale, shape) for stream in streams]
        variable = place.put(torch.stack(drawn))
        worst = torch.full((len(streams),), torch.inf, device=place.device, dtype=place.dtype)
        never = torch.full((len(streams),), -1, dtype=torch.int64, device=place.device)
        return cls(tuple(streams), variable, variable, worst, variable, worst.clone(), never)

    def note(self, loss: Tensor, layers: dict[str, Tensor], usable: Tensor) -> None:
        """Take down the losses of the variable in this iteration; rows that are not ``usable`` end here.

        A row that ended keeps its best variable for ever.
        """
        self.ended = torch.where(~usable & (self.ended < 0), self.iteration, self.ended)
        going = self.ended < 0
        better = going & (loss < self.best_loss)
        self.best, self.best_loss = _where(better, self.variable, self.best), torch.where(better, loss, self.best_loss)
        self.kept = _where(going, self.variable, self.best)
        self.kept_loss = torch.where(going, loss, self.best_loss)
        for tap, values in layers.items():
            before = self.layers.get(tap, torch.full_like(values, torch.nan))
            self.layers[tap] = torch.where(going, values, before)

    def move(self, variable: Tensor) -> None:
        """Go on to the next iteration with another variable; rows that ended stay at their best."""
        self.variable = _where(self.ended < 0, variable, self.best)
        self.iteration += 1

    @property
    def is_over(self) -> bool:
        """Tell whether all rows ended before their time."""
        return bool((self.ended >= 0).all())

    def tensors(self) -> dict[str, Tensor]:
        """Return what a resumed run needs, by name."""
        names = ("variable", "best", "best_loss", "kept", "kept_loss", "ended")
        layers = {f"layer/{tap}": values for tap, values in self.layers.items()}
        return {**{name: getattr(self, name) for name in names}, **layers}

    def restore(self, tensors: dict[str, Tensor], iteration: int) -> None:
        """Continue from :meth:`tensors` of an earlier run."""
        for name, values in tensors.items():
            if name.startswith("layer/"):
                self.layers[name.removeprefix("layer/")] = values.to(self.variable.device)
            else:  # in the same order in memory: other orders give other last bits
                setattr(self, name, torch.empty_like(getattr(self, name)).copy_(values))
        self.iteration = iteration


def _where(rows: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    return torch.where(rows.view(-1, *[1] * (yes.ndim - 1)), yes, no)
