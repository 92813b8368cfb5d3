"""What an optimisation gives back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepsim.runtime.pixels import Pixels


@dataclass(frozen=True)
class Outcome:
    """The results of ``names``, in order: the best start of each target.

    ``codes`` float32 (N, ...) are codes, or pixels (N, 3, side, side) in BGR less the mean; ``images`` uint8 RGB
    (N, side, side, 3) are their pictures as the encoder saw them, ``full`` the whole ones. ``losses`` (N,) belong to
    the codes, NaN where a target had none that was finite; ``starts`` says which start it was, ``iterations`` how many
    were done; ``ended`` is the iteration, from 1, whose loss was no longer finite, 0 for a target that went on to the
    end. ``layer_losses`` are those of the last evaluation.
    """

    names: tuple[str, ...]
    codes: NDArray[np.float32]
    images: Pixels
    full: Pixels
    losses: NDArray[np.float64]
    starts: NDArray[np.int64]
    iterations: NDArray[np.int64]
    ended: NDArray[np.int64]
    layer_losses: dict[str, NDArray[np.float64]]
