"""The small figures under a column of pictures: the paper's errors, and how sharp pictures are."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Numbers:
    """Normalised errors (section 5 of the paper) and gradient energy over the photographs' own, as fractions.

    Means over ``photographs``; None where a figure is not defined or not known.
    """

    image: float | None
    feature: float | None
    sharpness: float | None
    photographs: int
