"""Follow images through repeated encoding and decoding, and tell whether the loop settles, drifts or diverges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from deepsim.runtime.metrics import rmse
from deepsim.runtime.pixels import Pixels

ITERATIONS = 8
KEEP = (1, 2, 4, 8)  # the iterations shown in the paper's figure 5

GROWTH = 1.25  # the last step may be this many times the first one
DOUBLING = 2.0  # the error may end at this many times its first value, or at that of a plain colour if that is more
SETTLED = 0.5  # a last step of at most this share of the first one counts as settling

RULE = (
    f"diverges if the last step is more than {GROWTH} times the first step, or if the error ends both above "
    f"{DOUBLING:g} times its value at iteration 1 and above that of each photograph\u2019s mean colour; otherwise it "
    f"settles if the last step is at most {SETTLED:g} times the first one, and drifts if not"
)

Verdict = Literal["settles", "drifts", "diverges"]


@dataclass(frozen=True)
class Reencoding:
    """Means over photographs, in grey levels RMSE.

    ``errors[k]`` is the error to the photograph at iteration k + 1; ``steps[k]`` is the change from iteration k + 1
    to k + 2, so there is one fewer of them. ``plain`` is the error of each photograph's own mean colour: above it,
    nothing of the photograph is left.
    """

    errors: tuple[float, ...]
    steps: tuple[float, ...]
    plain: float

    @property
    def verdict(self) -> Verdict:
        """Judge the loop by :data:`RULE`."""
        bound = max(DOUBLING * self.errors[0], self.plain)
        if self.steps[-1] > GROWTH * self.steps[0] or self.errors[-1] > bound:
            return "diverges"
        return "settles" if self.steps[-1] <= SETTLED * self.steps[0] else "drifts"

    def to_json(self) -> dict[str, Any]:
        """Return the series and the verdict as plain JSON values."""
        series = {"errors_rmse": list(self.errors), "steps_rmse": list(self.steps)}
        return {**series, "mean_colour_rmse": self.plain, "verdict": self.verdict}


def trace(photos: Pixels, iterates: Pixels) -> Reencoding:
    """Measure all iterates (N, K, H, W, 3), K >= 2, in order, against the photographs (N, H, W, 3) and each other."""
    count = iterates.shape[1]
    errors = tuple(float(rmse(iterates[:, k], photos).mean()) for k in range(count))
    steps = tuple(float(rmse(iterates[:, k + 1], iterates[:, k]).mean()) for k in range(count - 1))
    return Reencoding(errors, steps, float(rmse(own_colours(photos), photos).mean()))


def own_colours(photos: Pixels) -> Pixels:
    """Return each photograph (N, H, W, 3) as its own mean colour everywhere.

    >>> own_colours(np.array([[[[0, 0, 0], [2, 4, 6]]]], np.uint8)).tolist()
    [[[[1, 2, 3], [1, 2, 3]]]]
    """
    colours = np.rint(photos.mean(axis=(1, 2), dtype=np.float64)).astype(np.uint8)  # (N, 3)
    filled: Pixels = np.broadcast_to(colours[:, None, None, :], photos.shape)
    return filled
