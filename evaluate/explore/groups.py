"""Groups of units, to be scaled or zeroed: ranges and the largest units of a vector; channels and blocks of a map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepsim.evaluate.explore.fields import Fields
from deepsim.runtime.errors import UsageError

Range = tuple[int, int]  # from the first to the one before the second
AXES = ("channels", "rows", "columns")
MOST_SCALE = 8.0


@dataclass(frozen=True)
class Group:
    """Some units of a code, and by what they are multiplied: 0 removes them, 1 changes nothing.

    ``channels`` is a range of channels, or of units where the code is a vector (C,); ``rows`` and ``columns`` are a
    block of a map (C, H, W). None is all. Of the channels in the range, ``largest`` keeps so many with the largest mean
    absolute value within the block. ``outside`` means all units but these.
    """

    scale: float
    channels: Range | None = None
    rows: Range | None = None
    columns: Range | None = None
    largest: int | None = None
    outside: bool = False

    @classmethod
    def from_json(cls, record: Any, shape: tuple[int, ...]) -> Group:
        """Read a group of codes of ``shape``. Raises UsageError for what is not one."""
        fields = Fields("group", record, ("scale", *AXES, "largest", "outside"))
        ranges = {axis: fields.range(axis, extent) for axis, extent in zip(AXES, shape, strict=False)}
        for axis in AXES[len(shape) :]:
            if fields.get(axis) is not None:
                raise UsageError(f"group: {axis} of a code without any, expected channels only.")
        largest = None if fields.get("largest") is None else fields.whole("largest", 1, shape[0])
        scale = fields.number("scale", -MOST_SCALE, MOST_SCALE)
        return cls(scale, **ranges, largest=largest, outside=fields.flag("outside"))

    def units(self, code: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Tell which units of a code (C,) or (C, H, W) belong to the group.

        >>> Group(0, largest=1).units(np.array([1.0, -3.0, 2.0]))
        array([False,  True, False])
        """
        block = tuple(slice(*(chosen or (None,))) for chosen in (self.channels, self.rows, self.columns))
        block = block[: code.ndim]
        chosen = np.zeros(code.shape, bool)
        inside = chosen[block]
        inside[self._loudest(code[block])] = True
        return ~chosen if self.outside else chosen

    def apply(self, code: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the code with the group's units multiplied by ``scale``."""
        return np.where(self.units(code), code * np.float32(self.scale), code).astype(np.float32)

    def _loudest(self, block: NDArray[np.float32]) -> Any:
        """Return which channels of a block are meant: those of the largest mean absolute value, or all."""
        if self.largest is None or self.largest >= len(block):
            return slice(None)
        sizes = np.abs(block).reshape(len(block), -1).mean(axis=1)
        return np.argsort(-sizes, kind="stable")[: self.largest]
