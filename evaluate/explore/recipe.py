"""How a code is made from others: a point between two, plus directions, with groups of units scaled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepsim.evaluate.explore.codes import ZERO
from deepsim.evaluate.explore.fields import Fields
from deepsim.evaluate.explore.groups import Group

Values = NDArray[np.float32]
MOST_STEPS = 32  # directions, and groups
MOST_AMOUNT = 16.0


@dataclass(frozen=True)
class Direction:
    """The difference of two codes, ``end`` - ``start``, times ``amount``."""

    end: str
    start: str
    amount: float

    @classmethod
    def from_json(cls, record: Any) -> Direction:
        """Read a direction; without ``start`` it is the code ``end`` itself. Raises UsageError."""
        fields = Fields("direction", record, ("start", "end", "amount"))
        start = fields.optional_text("start") or ZERO
        return cls(fields.text("end"), start, fields.number("amount", -MOST_AMOUNT, MOST_AMOUNT))


@dataclass(frozen=True)
class Recipe:
    """A code in terms of others, which are named by their ids.

    (1 - ``mix``) * ``start`` + ``mix`` * ``end`` (paper, Figure 7), plus the directions, then the groups in order.
    """

    start: str
    end: str | None = None
    mix: float = 0.0
    directions: tuple[Direction, ...] = ()
    groups: tuple[Group, ...] = ()

    @classmethod
    def from_json(cls, record: Any, shape: tuple[int, ...]) -> Recipe:
        """Read a recipe for codes of ``shape``. Raises UsageError for what is not one, naming the field."""
        fields = Fields("recipe", record, ("start", "end", "mix", "directions", "groups"))
        mix = 0.0 if fields.get("mix") is None else fields.number("mix", 0, 1)
        directions = map(Direction.from_json, fields.items("directions", MOST_STEPS))
        groups = (Group.from_json(group, shape) for group in fields.items("groups", MOST_STEPS))
        return cls(fields.text("start"), fields.optional_text("end"), mix, tuple(directions), tuple(groups))

    def at(self, mix: float) -> Recipe:
        """Return the same recipe at another point between its two codes."""
        return Recipe(self.start, self.end, mix, self.directions, self.groups)

    def make(self, values: Callable[[str], Values]) -> Values:
        """Compute the code; ``values`` gives a code by its id. Raises what it raises.

        >>> codes = {"a": np.array([0.0, 2.0]), "b": np.array([4.0, 2.0])}
        >>> Recipe("a", "b", 0.25, groups=(Group(3, channels=(1, 2)),)).make(codes.__getitem__)
        array([1., 6.], dtype=float32)
        """
        with np.errstate(over="ignore", invalid="ignore"):  # who decodes it looks for what is not finite
            code = values(self.start)
            if self.end is not None and self.mix > 0:
                mix = np.float32(self.mix)
                code = (1 - mix) * code + mix * values(self.end)
            for direction in self.directions:
                if direction.amount:
                    code = code + np.float32(direction.amount) * (values(direction.end) - values(direction.start))
            for group in self.groups:
                code = group.apply(code)
        return np.ascontiguousarray(code, np.float32)
