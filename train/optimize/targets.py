"""Targets: the features that pictures are optimised towards, by layer; from arrays, feature files or photographs."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from deepsim.kernels.layers import Shape
from deepsim.runtime.errors import DataError, ShapeError, UsageError
from deepsim.runtime.features import fit_rows, layout_of, read_features
from deepsim.runtime.features.records import INDEX, NAMES, read_errors
from deepsim.runtime.images import prepare_batch
from deepsim.train.optimize.encoders import Encoder
from deepsim.train.optimize.frozen import LINEAR
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
    with read_errors(path):
        suffix = path.suffix.lower()
        if suffix == ".npz":
            with zipfile.ZipFile(path) as archive:
                found = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
        elif suffix in (".h5", ".hdf5", ".mat"):
            found = _variables(path)
        else:
            raise UsageError(f"{path}: one array, whose layer it does not name. Name it with --layers.")
    return sorted(name for name in found if name not in (NAMES, INDEX, "ids") and not name.startswith(("#", "__")))


def _variables(path: Path) -> list[str]:
    from deepsim.runtime.features import hdf5_file, mat5

    if path.suffix.lower() == ".mat":
        with path.open("rb") as file:
            is_hdf5 = b"\x89HDF\r\n\x1a\n" in file.read(520)
        if not is_hdf5:
            return [variable.name for variable in mat5.list_variables(path)]
    with hdf5_file.open_file(path) as opened:
        return list(opened)


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


def from_file(path: Path, layers: Mapping[str, str], encoder: Encoder, axes: str | None = None) -> Targets:
    """Return targets of a feature file; ``layers`` maps its arrays' names to taps ("" for a format of one array).

    Raises DataError, ShapeError and UsageError as the readers of features do.
    """
    found, readers = {}, {}
    for name, tap in layers.items():
        shape = encoder.shape_of(tap)
        found[tap] = read_features(path, name or None)
        layout = layout_of(found[tap].shape, shape, f"{path} {name}", axes)
        readers[tap] = (found[tap], layout)
    counts = {tap: layout.count for tap, (_, layout) in readers.items()}
    count = next(iter(counts.values()))
    if set(counts.values()) != {count}:
        raise ShapeError(f"{path}: rows {counts}, expected as many in every layer.")

    def read(start: int, stop: int) -> dict[str, Features]:
        return {
            tap: np.ascontiguousarray(layout.rows(file.part(layout.axis or 0, start, stop)), np.float32)
            for tap, (file, layout) in readers.items()
        }

    labels = next((file.names for file in found.values() if file.names), None)
    names = tuple(labels) if labels else tuple(f"{number:06d}" for number in range(count))
    if len(names) != count:
        raise DataError(f"{path}: {len(names)} names for {count} rows, expected one for each.")
    return Targets(names, tuple(readers), read, f"{path.absolute()}")


def from_photographs(paths: Sequence[Path], taps: Sequence[str], encoder: Encoder, place: Place) -> Targets:
    """Return targets that are the features of photographs, computed when they are read. Raises DataError."""

    def read(start: int, stop: int) -> dict[str, Features]:
        parts = []
        for first in range(start, stop, _PHOTOS_AT_ONCE):
            pixels = prepare_batch(list(paths[first : min(first + _PHOTOS_AT_ONCE, stop)]), encoder.framing)
            values = encoder.features(place.put(torch.from_numpy(encoder.pixels.to_network(pixels))), taps)
            parts.append({tap: values[tap].float().cpu().numpy() for tap in taps})
        return {tap: np.concatenate([part[tap] for part in parts]) for tap in taps}

    return Targets(tuple(map(str, paths)), tuple(taps), read, "photographs")


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
