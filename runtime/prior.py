"""Priors: the distribution that a variational autoencoder's codes follow, and seeded draws from it.

A bundle whose manifest names a prior can be sampled (Dosovitskiy & Brox 2016, section 4.2 and Figure 8).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from deepsim.runtime.errors import UsageError

Prior: TypeAlias = Literal["standard normal"]
STANDARD_NORMAL: Prior = "standard normal"  # independent units of mean 0 and variance 1


def require_prior(prior: Prior | None, bundle: object, layer: str) -> Prior:
    """Return the prior of a bundle. Raises UsageError, naming the bundle and its layer, where there is none."""
    if prior is None:
        raise UsageError(
            f"{bundle}: no prior, so nothing says how codes of {layer} are distributed; expected the bundle of a "
            "variational autoencoder."
        )
    return prior


def draw_codes(
    shape: tuple[int, ...], numbers: Iterable[int], seed: int = 0, temperature: float = 1.0
) -> NDArray[np.float32]:
    """Draw codes of a standard normal prior, float32 (n, *shape): z ~ temperature * N(0, I).

    The code of a number, from 0, depends on it, ``seed`` and ``shape`` alone: more codes begin with the same ones. The
    temperature, 0 or more, scales them: 0 is the most likely code, 1 the prior. Raises UsageError for values out of
    range.

    >>> first, both = draw_codes((3,), [0], seed=5), draw_codes((3,), [0, 1], seed=5)
    >>> bool((first[0] == both[0]).all())
    True
    """
    if not (math.isfinite(temperature) and temperature >= 0):
        raise UsageError(f"temperature: {temperature}, expected a finite number, 0 or more.")
    if seed < 0:
        raise UsageError(f"seed: {seed}, expected 0 or more.")
    drawn = [np.random.default_rng([seed, number]).standard_normal(shape, np.float32) for number in numbers]
    codes = np.stack(drawn) if drawn else np.zeros((0, *shape), np.float32)
    codes *= np.float32(temperature)
    return codes
