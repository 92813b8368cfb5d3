"""Normalisations of decoded features, by the names that their authors gave them: ``--match-stats RULE``.

Each takes one feature f, (C,) or (C, H, W), and the layer's statistics
(:class:`~deepsim.runtime.features.statistics.Statistics`), of which SD0 is ``channel_sd``.

=================================  =====================================================================================
icnn                               f / s x mean(SD0), s the mean over channels of the SD within each, ddof 0
feature_std                        m + (f - m) / s x mean(SD0), m the mean of f, s as above with ddof 1
feature_std_train_mean_center      the same of f - y_mean, then + y_mean, the mean of the features in training
fg                                 NaN becomes y_mean; negative values stay
fg_relu                            clipped at 0; then of f - y_mean each channel to mean m and SD0; then + y_mean
fg_iterative=N                     N times: (f - mean) / SD x mean(SD0) + the first mean, then clipped at 0
illusion                           (f - m) / SD x SD0 + m, over all units
=================================  =====================================================================================

They follow icnn (Shen et al. 2019), brain-decoding-cookbook-public ("fg" is its script for feed-forward generators) and
IllusionReconstruction.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from deepsim.runtime.errors import DataError, UsageError
from deepsim.runtime.features.statistics import Array, Statistics, within_sd

_Rule: TypeAlias = Callable[[Array, Statistics, int], Array]


def match_stats(feature: NDArray[Any], rule: str, statistics: Statistics) -> NDArray[np.float32]:
    """Normalise one feature, (C,) or (C, H, W), by a rule's name (see this module).

    Raises UsageError for an unknown rule and for statistics that it needs and are not known, DataError when all values
    of a feature are equal, so that it has no SD.

    >>> match_stats(np.array([1.0, 3.0]), "icnn", Statistics(channel_sd=np.array([4.0])))
    array([ 4., 12.], dtype=float32)
    """
    return find_rule(rule).apply(feature, statistics)


class _NoSpreadError(Exception):
    """An SD is 0."""


@dataclass(frozen=True)
class Rule:
    """A normalisation: its text, as the user gives it, its function, and how often that repeats."""

    text: str
    function: _Rule
    count: int = 1

    def apply(self, feature: NDArray[Any], statistics: Statistics, subject: str = "feature") -> NDArray[np.float32]:
        """Normalise one feature; ``subject`` names it in errors. Raises as :func:`match_stats`."""
        try:
            with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused where it is decoded
                return self.function(feature.astype(np.float64), statistics, self.count).astype(np.float32)
        except _NoSpreadError as error:
            raise DataError(
                f"{subject}: all values of it or of a channel are equal, expected some that differ for {self.text}."
            ) from error


def find_rule(text: str) -> Rule:
    """Return a rule by its name, "fg_iterative" with a number. Raises UsageError naming all."""
    name, _, number = text.partition("=")
    if name not in RULES or bool(number) != (name == _REPEATED) or (number and not number.isdecimal()):
        known = ", ".join(f"{each}=N" if each == _REPEATED else each for each in RULES)
        raise UsageError(f"--match-stats {text}: unknown, expected one of {known}.")
    return Rule(text, RULES[name], int(number) if number else 1)


def _icnn(f: Array, statistics: Statistics, count: int) -> Array:
    return f / _mean_sd(f, 0) * _scale(statistics, "icnn")


def _feature_std(f: Array, statistics: Statistics, count: int) -> Array:
    m = float(f.mean())
    return m + (f - m) / _mean_sd(f, 1) * _scale(statistics, "feature_std")


def _train_mean_center(f: Array, statistics: Statistics, count: int) -> Array:
    mean = statistics.known("mean", "feature_std_train_mean_center")
    return _feature_std(f - mean, statistics, count) + mean


def _fg(f: Array, statistics: Statistics, count: int) -> Array:
    return np.where(np.isnan(f), statistics.known("mean", "fg"), f)


def _fg_relu(f: Array, statistics: Statistics, count: int) -> Array:
    mean = statistics.known("mean", "fg_relu")
    centred = np.maximum(f, 0) - mean
    rows: Array = centred.reshape(len(f), -1) if f.ndim > 1 else centred[None]  # (channels, values)
    scale = statistics.known("channel_sd", "fg_relu").reshape(-1, 1)
    shift: Array = rows.mean(axis=1, keepdims=True)
    scaled = (rows - shift) / _nonzero(rows.std(axis=1, ddof=1, keepdims=True)) * scale + shift
    return scaled.reshape(f.shape) + mean


def _fg_iterative(f: Array, statistics: Statistics, count: int) -> Array:
    first = float(f.mean())
    for _ in range(count):
        f = np.maximum(_standard(f) * _scale(statistics, "fg_iterative") + first, 0)
    return f


def _illusion(f: Array, statistics: Statistics, count: int) -> Array:
    return _standard(f) * _scale(statistics, "illusion") + float(f.mean())


def _standard(f: Array) -> Array:
    """Return (f - m) / SD over all units, ddof 1."""
    return (f - float(f.mean())) / _nonzero(f.std(ddof=1))


def _scale(statistics: Statistics, rule: str) -> float:
    """Return the mean over channels of SD0."""
    return float(statistics.known("channel_sd", rule).mean())


def _mean_sd(f: Array, ddof: int) -> Array:
    """Return the mean over channels of the SD within each; of features (C,) the SD over all units."""
    return _nonzero(within_sd(f[None], ddof).mean())


def _nonzero(sd: Any) -> Array:
    if not np.all(sd):
        raise _NoSpreadError
    return np.asarray(sd, np.float64)


_REPEATED = "fg_iterative"
RULES: dict[str, _Rule] = {
    "icnn": _icnn,
    "feature_std": _feature_std,
    "feature_std_train_mean_center": _train_mean_center,
    "fg": _fg,
    "fg_relu": _fg_relu,
    _REPEATED: _fg_iterative,
    "illusion": _illusion,
}
