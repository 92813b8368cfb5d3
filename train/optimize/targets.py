"""Targets: the features that pictures are optimised towards, by layer; from arrays, feature files or photographs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from deepsim.kernels.layers import Shape
from deepsim.runtime.dataset import file_version
from deepsim.runtime.errors import DataError, ShapeError, UsageError
from deepsim.runtime.features import fit_rows
from deepsim.runtime.features.contents import SEVERAL, arrays_in
from deepsim.runtime.features.rows import FeatureRows, open_rows
from deepsim.runtime.features.trees import Selection
from deepsim.runtime.files import sha256
from deepsim.runtime.images import prepare_batch
from deepsim.train.frozen import LINEAR
from deepsim.train.optimize.encoders import Encoder
from deepsim.train.optimize.place import Place

Naming = Literal["deepsim", "bdpy"]
Features = NDArray[np.float32]
_PHOTOS_AT_ONCE = 8


@dataclass(frozen=True)
class Targets:
    """Targets called ``names``; ``read(start, stop)`` gives their features by tap, float32 (n, ...), when asked.

    ``identity`` tells them from others.
    """

    names: tuple[str, ...]
    taps: tuple[str, ...]
    read: Callable[[int, int], dict[str, Features]]
    identity: str


def tap_of(name: str, naming: Naming) -> str:
    """Return the tap that a file's layer name means.

    deepsim's names, like Caffe's, are after the ReLU and "conv1_1:linear" is before. bdpy's conv* and fc* are before
    it, and relu1_1 or relu6 after.

    >>> tap_of("conv1_1", "bdpy"), tap_of("relu1_1", "bdpy"), tap_of("relu6", "bdpy"), tap_of("fc8", "deepsim")
    ('conv1_1:linear', 'conv1_1', 'fc6', 'fc8')
    """
    if naming == "deepsim":
        return name
    if name.startswith(("conv", "fc")):
        return name + LINEAR
    if name.startswith("relu"):
        number = name.removeprefix("relu")
        return f"fc{number}" if number in ("6", "7", "8") else f"conv{number}"
    return name


def layers_in(path: Path) -> list[str]:
    """List the layers that a file of several arrays or a folder of layers holds, sorted.

    Raises DataError when it is missing or damaged, UsageError for a format of one array.
    """
    if path.is_dir():
        return sorted(entry.name for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    return arrays_in(path)


def from_arrays(arrays: Mapping[str, NDArray[np.generic]], encoder: Encoder, names: Sequence[str] | None) -> Targets:
    """Return targets of features (N, *shape) by tap, flattened rows too. Raises ShapeError where they do not fit."""
    fitted = {
        tap: np.ascontiguousarray(fit_rows(np.asarray(values), encoder.shape_of(tap), f"targets {tap}"), np.float32)
        for tap, values in arrays.items()
    }
    if not fitted:
        raise UsageError("targets: no layers, expected features of at least one.")
    counts = {tap: len(values) for tap, values in fitted.items()}
    count = next(iter(counts.values()))
    if set(counts.values()) != {count} or (names is not None and len(names) != count):
        raise ShapeError(
            f"targets: {counts} rows{'' if names is None else f' and {len(names)} names'}, expected equal."
        )
    called = tuple(names) if names is not None else tuple(f"{number:06d}" for number in range(count))
    return Targets(
        called, tuple(fitted), lambda start, stop: {tap: values[start:stop] for tap, values in fitted.items()}, "arrays"
    )


def from_files(path: Path, layers: Mapping[str, str], encoder: Encoder, where: Selection, axes: str | None) -> Targets:
    """Return targets of a file or a tree of files; ``layers`` maps the layers' names there to taps.

    Of a format of one array the name counts for nothing. Rows that hold NaN are targets, which end at once. Raises
    DataError, ShapeError and UsageError as :func:`~deepsim.runtime.features.rows.open_rows` does.
    """
    readers = {tap: _open(path, name, encoder.shape_of(tap), where, axes) for name, tap in layers.items()}
    first = next(iter(readers.values()))
    counts = {tap: len(rows) for tap, rows in readers.items()}
    if set(counts.values()) != {len(first)}:
        raise ShapeError(f"{path}: rows {counts}, expected as many in every layer.")
    named = next((rows.names for rows in readers.values() if all(rows.names)), None)
    names = tuple(named) if named else tuple(f"{number:06d}" for number in range(len(first)))
    for tap, rows in readers.items():
        if all(rows.names) and tuple(rows.names) != names:
            raise DataError(f"{path}: the names of {tap} are others than those of the first layer, expected the same.")

    def read(start: int, stop: int) -> dict[str, Features]:
        return {tap: rows.stack(range(start, stop)) for tap, rows in readers.items()}

    versions = [rows.version(number) for rows in readers.values() for number in range(len(rows))]
    return Targets(
        names, tuple(readers), read, sha256(repr([rows.recipe for rows in readers.values()] + versions).encode())
    )


def _open(path: Path, name: str, shape: Shape, where: Selection, axes: str | None) -> FeatureRows:
    if path.is_dir():
        return open_rows(path, shape, axes=axes, selection=replace(where, layer=name))
    several = path.suffix.lower() in SEVERAL
    return open_rows(path, shape, name, name if several else None, axes, where)


def from_photographs(paths: Sequence[Path], taps: Sequence[str], encoder: Encoder, place: Place) -> Targets:
    """Return targets that are the features of photographs, computed when they are read. Raises DataError."""

    def read(start: int, stop: int) -> dict[str, Features]:
        parts = []
        for first in range(start, stop, _PHOTOS_AT_ONCE):
            pixels = prepare_batch(list(paths[first : min(first + _PHOTOS_AT_ONCE, stop)]), encoder.framing)
            values = encoder.features(place.put(torch.from_numpy(encoder.pixels.to_network(pixels))), taps)
            parts.append({tap: values[tap].float().cpu().numpy() for tap in taps})
        return {tap: np.concatenate([part[tap] for part in parts]) for tap in taps}

    versions = [file_version(path) for path in paths]
    return Targets(tuple(map(str, paths)), tuple(taps), read, sha256(repr(versions).encode()))


def from_units(units: Sequence[int], tap: str, encoder: Encoder) -> Targets:
    """Return one-hot targets: units of a layer, by their numbers in (C, H, W) order.

    Raises UsageError for a unit that the layer does not have.
    """
    shape: Shape = encoder.shape_of(tap)
    size = int(np.prod(shape))
    for unit in units:
        if not 0 <= unit < size:
            raise UsageError(f"unit {unit}: {encoder.name} {tap} has {size}, expected 0 to {size - 1}.")

    def read(start: int, stop: int) -> dict[str, Features]:
        values = np.zeros((stop - start, size), np.float32)
        values[np.arange(stop - start), list(units[start:stop])] = 1
        return {tap: values.reshape(-1, *shape)}

    return Targets(tuple(f"{tap}-{unit}".replace(":", "-") for unit in units), (tap,), read, f"units {list(units)}")
