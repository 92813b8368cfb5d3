"""Statistics of a layer's features over photographs: gathered in one pass, kept in files, read from those of others."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepsim.runtime.bundle import Bundle
from deepsim.runtime.errors import DataError, ShapeError, UsageError
from deepsim.runtime.features import Preferred, read_features
from deepsim.runtime.features.layer_names import layer_names
from deepsim.runtime.features.records import read_errors

FILE_NAME = "statistics.npz"  # in a bundle, and in a folder of statistics
_MEAN, _SD = re.compile(r"(^|.*_)mean$"), re.compile(r"(^|.*_)norm$")  # names of decoders' files
_CHANNEL_SD = re.compile(r"feat_std|feature_std|(^|_)std")
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Statistics:
    """What is known of a layer's features over ``count`` photographs; None where a file does not say it.

    ``mean``, ``sd`` (ddof 1), ``minimum`` and ``maximum`` have the shape of one feature. ``channel_sd`` is (C,): for
    each channel, the mean over the photographs of the SD (ddof 1) of its values within one; of features (C,), which are
    one channel to those who use this, it is (1,): the mean SD over the units of a photograph.
    """

    mean: Array | None = None
    sd: Array | None = None
    minimum: Array | None = None
    maximum: Array | None = None
    channel_sd: Array | None = None
    count: int = 0

    def known(self, name: str, need: str) -> Array:
        """Return an array by its name. Raises UsageError when it is not known, saying who needs it."""
        found: Array | None = getattr(self, name)
        if found is None:
            raise UsageError(f"{need}: no {name.replace('_', ' ')} known. Name files with --stats; see deepsim stats.")
        return found

    def upper(self, k: float) -> Array:
        """Return the bounds mean + k SD. Raises UsageError."""
        return self.known("mean", "bounds") + k * self.known("sd", "bounds")

    def given(self) -> dict[str, Any]:
        """Return what is known, by its name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value is not None and (name != "count" or value)}

    def to_bytes(self, **more: Any) -> bytes:
        """Return the content of a .npz file; ``more`` are further arrays."""
        buffer = io.BytesIO()
        np.savez(buffer, **self.given(), **more)
        return buffer.getvalue()


class Gathering:
    """Statistics on their way: batches are merged one after the other, in float64.

    Chan, Golub and LeVeque 1983, "Algorithms for computing the sample variance", equations 2.1a and 2.1b: no sum of
    squares is ever subtracted from another, so that no precision is lost, however many photographs there are.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.count = 0
        self._mean, self._squares = np.zeros(shape), np.zeros(shape)
        self._minimum, self._maximum = np.full(shape, np.inf), np.full(shape, -np.inf)
        self._channel_sd = np.zeros(shape[0] if len(shape) > 1 else 1)

    def add(self, features: NDArray[np.float32]) -> None:
        """Add the features (n, *shape) of some photographs."""
        count = len(features)
        if count == 0:
            return
        values = features.astype(np.float64)
        mean = values.mean(axis=0)
        squares = ((values - mean) ** 2).sum(axis=0)
        total, apart = self.count + count, mean - self._mean
        self._squares += squares + apart**2 * (self.count * count / total)
        self._mean += apart * (count / total)
        self._minimum = np.minimum(self._minimum, values.min(axis=0))
        self._maximum = np.maximum(self._maximum, values.max(axis=0))
        self._channel_sd += within_sd(values).sum(axis=0)
        self.count = total

    def result(self) -> Statistics:
        """Return the statistics of all. Raises DataError for fewer than two photographs, which have no SD."""
        if self.count < 2:
            raise DataError(f"statistics: {self.count} photographs, expected 2 or more.")
        sd = np.sqrt(self._squares / (self.count - 1))
        return Statistics(
            self._mean.copy(), sd, self._minimum, self._maximum, self._channel_sd / self.count, self.count
        )


def within_sd(values: NDArray[Any], ddof: int = 1) -> Array:
    """Return the SD within each channel of features (n, C, H, W): (n, C); of features (n, C) over all units: (n, 1).

    A channel of one value has an SD of 0.
    """
    rows = values.reshape(*values.shape[:2], -1) if values.ndim > 2 else values[:, None]
    if rows.shape[-1] <= ddof:
        return np.zeros(rows.shape[:-1])
    found: Array = rows.std(axis=-1, ddof=ddof, dtype=np.float64)
    return found


def bundle_statistics(bundle: Bundle, shape: tuple[int, ...]) -> Statistics | None:
    """Return the statistics that ``deepsim stats`` put into a bundle; None without. Raises BundleError, DataError."""
    if FILE_NAME not in bundle.manifest.files:
        return None
    return _of_arrays(_load_npz(io.BytesIO(bundle.read(FILE_NAME)), f"{bundle.path}/{FILE_NAME}"), shape, FILE_NAME)


def read_statistics(paths: Iterable[Path], shape: tuple[int, ...], layer: str) -> Statistics:
    """Read statistics from files, each of which adds what it has.

    They are those of ``deepsim stats`` (.npz), decoders' means and norms (``y_mean.mat``, ``y_norm.mat``, told by their
    names) and SDs of channels (``estimated_cnn_feat_std_*.mat``, a variable per layer). Raises DataError, ShapeError.
    """
    found = Statistics()
    for path in paths:
        more = _read_one(path, shape, layer)
        found = replace(
            found, **{f.name: getattr(more, f.name) for f in fields(more) if getattr(more, f.name) is not None}
        )
    return found


def _read_one(path: Path, shape: tuple[int, ...], layer: str) -> Statistics:
    stem = path.stem.lower()
    if path.suffix.lower() == ".npz":
        with read_errors(path), path.open("rb") as file:
            return _of_arrays(_load_npz(file, str(path)), shape, str(path))
    for pattern, name in ((_MEAN, "mean"), (_SD, "sd")):
        if pattern.search(stem):
            values = read_features(path, Preferred((path.stem,))).values
            shaped = _shaped(values, shape, str(path))
            return Statistics(mean=shaped) if name == "mean" else Statistics(sd=shaped)
    if _CHANNEL_SD.search(stem):
        values = read_features(path, Preferred(layer_names(layer))).values
        return Statistics(channel_sd=_channels(values, shape, str(path)))
    raise DataError(f"{path}: its name tells no statistic, expected .npz, *_mean.mat, *_norm.mat or *feat_std*.mat.")


def _load_npz(file: Any, subject: str) -> dict[str, NDArray[Any]]:
    with read_errors(Path(subject)), np.load(file, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def _of_arrays(arrays: Mapping[str, NDArray[Any]], shape: tuple[int, ...], subject: str) -> Statistics:
    units = {name: arrays[name] for name in ("mean", "sd", "minimum", "maximum") if name in arrays}
    if not units:
        raise DataError(f"{subject}: holds {', '.join(arrays) or 'nothing'}, expected statistics of deepsim stats.")
    known: dict[str, Any] = {name: _shaped(values, shape, subject) for name, values in units.items()}
    if "channel_sd" in arrays:
        known["channel_sd"] = _channels(arrays["channel_sd"], shape, subject)
    return Statistics(**known, count=int(arrays["count"]) if "count" in arrays else 0)


def _shaped(values: NDArray[Any], shape: tuple[int, ...], subject: str) -> Array:
    """Return a value per unit in the shape of a feature. Raises ShapeError, and DataError for NaN."""
    if values.dtype.kind not in "fiu" or values.size != math.prod(shape):
        raise ShapeError(f"{subject}: {values.size} values of {values.dtype}, expected {math.prod(shape)} numbers.")
    return _finite(values.reshape(shape), subject)


def _channels(values: NDArray[Any], shape: tuple[int, ...], subject: str) -> Array:
    """Return a value per channel, or one for all. Raises ShapeError, and DataError for NaN."""
    if values.dtype.kind not in "fiu" or values.size not in (1, shape[0]):
        raise ShapeError(f"{subject}: {values.size} values of {values.dtype}, expected 1 or {shape[0]} numbers.")
    return _finite(values.ravel(), subject)


def _finite(values: NDArray[Any], subject: str) -> Array:
    if not np.isfinite(values).all():
        raise DataError(f"{subject}: NaN or infinite values, expected finite ones.")
    return values.astype(np.float64)
