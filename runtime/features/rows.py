"""Rows of features, read as they are needed: from one file, or from a folder of files with one or several rows each."""

from __future__ import annotations

import math
import os
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from deepsim.runtime.dataset import file_version
from deepsim.runtime.errors import DataError, DtypeError, ShapeError, UsageError
from deepsim.runtime.features import SUFFIXES, FeatureFile, Layout, Preferred, layout_of, output_files, read_features
from deepsim.runtime.features.layer_names import layer_names
from deepsim.runtime.features.records import BLOCK_BYTES
from deepsim.runtime.features.trees import FeatureFolder, Selection, find_folder
from deepsim.runtime.names import Names

Row: TypeAlias = "tuple[int, NDArray[Any] | DataError]"  # a row's number, and the row or why there is none
_MOST_ROWS, _ROWS_PER_BYTE = 1 << 20, 64  # a file may hold less than a bit for each row where all are equal
_VARIABLES = ("feat", "codes")  # of files in folders, where they hold several


@dataclass(frozen=True)
class FeatureRows:
    """Features of many images, each (C,) or (C, H, W), in any number type, in order.

    ``names`` are the images' ("" where there is none). ``read(numbers)`` yields increasing rows; one that cannot be
    read comes as its DataError. ``version(number)`` tells a row from a changed one, with ``recipe``, which all share.
    ``inputs()`` lists the files (``in_files``: several), ``notes`` say how they are read where that is not plain.
    """

    path: Path
    names: Sequence[str]
    read: Callable[[Sequence[int]], Iterator[Row]]
    version: Callable[[int], str]
    recipe: tuple[object, ...]
    inputs: Callable[[], Iterator[Path]]
    notes: tuple[str, ...] = ()
    in_files: bool = False

    def where(self, number: int) -> str:
        """Say in messages which row is meant."""
        return f"{self.path / self.names[number]}" if self.in_files else f"{self.path}, row {number}"

    def stack(self, numbers: Sequence[int]) -> NDArray[np.float32]:
        """Return increasing rows as float32 (n, *shape). Raises the DataError of one that cannot be read."""
        found = []
        for _, row in self.read(numbers):
            if isinstance(row, DataError):
                raise row
            found.append(np.asarray(row, np.float32))
        return np.stack(found)

    def __len__(self) -> int:
        return len(self.names)


def open_rows(
    path: str | os.PathLike[str],
    shape: tuple[int, ...],
    layer: str = "",
    key: str | None = None,
    axes: str | None = None,
    selection: Selection | None = None,
) -> FeatureRows:
    """Open a feature file, or a folder of them (see :mod:`~deepsim.runtime.features.trees`), as rows of ``shape``.

    ``key`` names the array where files hold several: without it, the one of ``layer`` is taken, by any of its
    :func:`~deepsim.runtime.features.layer_names.layer_names`. ``axes`` is the order of the axes of each array. Raises
    UsageError, DataError, ShapeError and DtypeError as :func:`~deepsim.runtime.features.read_features`,
    :func:`~deepsim.runtime.features.layout_of` and :func:`~deepsim.runtime.features.trees.find_folder` do.

    >>> np.save("codes.npy", np.zeros((2, 4096), np.float32))
    >>> len(open_rows("codes.npy", (4096,), "fc6"))
    2
    """
    file, chosen = Path(path), selection or Selection()
    if not file.is_dir():
        if chosen.given:
            raise UsageError(f"--{chosen.given[0]}: {file} is no folder. Name its array with --key.")
        return _of_file(file, shape, key or Preferred(layer_names(layer)), axes)
    folder = find_folder(file, chosen, layer_names(layer), SUFFIXES)
    return _of_folder(folder, shape, key or Preferred((*_VARIABLES, *layer_names(layer))), axes)


def _of_file(
    path: Path, shape: tuple[int, ...], key: str | Preferred, axes: str | None, may_be_one: bool = False
) -> FeatureRows:
    named, found = key if isinstance(key, str) else None, read_features(path, key)
    if may_be_one and axes is None:
        found = _as_one_row(found, shape)
    layout = layout_of(found.shape, shape, str(path), axes or _our_axes(found, shape))
    most = _MOST_ROWS + _ROWS_PER_BYTE * path.stat().st_size
    if layout.count > most:
        raise DataError(f"{path}: claims {layout.count:,} features, expected at most {most:,} in a file of its size.")
    if found.names and len(found.names) != layout.count:
        raise DataError(f"{path}: {len(found.names)} names for {layout.count} rows, expected one for each.")
    names = found.names if isinstance(found.names, Names) else Names(found.names or ("" for _ in range(layout.count)))
    return FeatureRows(
        path,
        names,
        _Blocks(found, layout).read,
        str,
        (file_version(path), named, layout.groups),
        lambda: iter(output_files(path)),
        tuple(_notes(path, found, layout, shape, named)),
    )


def _as_one_row(found: FeatureFile, shape: tuple[int, ...]) -> FeatureFile:
    """Return a single feature, whatever axes of extent 1 it has or lacks, as an array of one row; others unchanged."""
    extents = tuple(extent for extent in found.shape if extent != 1)
    if extents not in (tuple(extent for extent in shape if extent != 1), (math.prod(shape),)):
        return found

    def whole(axis: int, start: int, stop: int) -> NDArray[Any]:
        return found.values.reshape(1, *shape)

    return replace(found, shape=(1, *shape), cut=whole, index=(0,))


def _notes(path: Path, found: FeatureFile, layout: Layout, shape: tuple[int, ...], key: str | None) -> Iterator[str]:
    if found.key is not None and key is None and found.key not in ("features", "feat", "codes"):
        yield f"{path}: reads the array {found.key}"
    if len(shape) > 1 and layout.groups == ("N", "CHW"):
        yield f"{path}: flattened features, read in the order of axes (C, H, W)"


def _our_axes(found: FeatureFile, shape: tuple[int, ...]) -> str | None:
    """Return the order of axes of a file that numbers its photographs, as deepsim's do; None for others."""
    if not found.index or len(found.index) != found.shape[0]:
        return None
    return {2: "NC" if len(shape) == 1 else "N(CHW)", 4: "NCHW"}.get(len(found.shape))


class _Blocks:
    """Rows of one file, read in blocks of megabytes, of which the last is kept: to read one row may cost a block."""

    def __init__(self, found: FeatureFile, layout: Layout) -> None:
        self.found, self.layout = found, layout
        row = math.prod(layout.shape) * found.dtype.itemsize
        self.step = max(1, BLOCK_BYTES // max(1, row))
        self.start, self.rows = 0, np.empty((0, *layout.shape), found.dtype)

    def read(self, numbers: Sequence[int]) -> Iterator[Row]:
        """Yield these rows. Raises DataError for all where the file is damaged."""
        for number in numbers:
            if not self.start <= number < self.start + len(self.rows):
                self._load(number)
            yield number, self.rows[number - self.start]

    def _load(self, number: int) -> None:
        axis, stop = self.layout.axis, min(number + self.step, self.layout.count)
        one = axis is None or axis >= len(self.found.shape)  # an axis of one photograph, which was dropped
        values = self.found.values if one else self.found.part(axis or 0, number, stop)
        self.start, self.rows = number, self.layout.rows(values)


def _of_folder(folder: FeatureFolder, shape: tuple[int, ...], key: str | Preferred, axes: str | None) -> FeatureRows:
    """Return the rows of all files of a folder: of one row each, opened when they are read, or of several each."""

    def open_file(number: int) -> FeatureRows:
        return _of_file(folder.path / folder.files[number], shape, key, axes, may_be_one=True)

    several = folder.in_blocks or len(_first(open_file, len(folder.files))) > 1
    parts = _SeveralEach(folder, open_file) if several else _OneEach(folder, open_file)

    def version(number: int) -> str:
        file, row = parts.place(number)
        try:
            return f"{file_version(folder.path / folder.files[file])}-{row}"
        except DataError:  # reading it will tell
            return ""

    return FeatureRows(
        folder.path,
        parts.names,
        parts.read,
        version,
        (folder.path.name, key if isinstance(key, str) else None, axes),
        lambda: (folder.path / name for name in folder.files),
        (f"{folder.path}: {len(parts.names)} features in {len(folder.files)} files",),
        in_files=True,
    )


def _first(open_file: Callable[[int], FeatureRows], count: int) -> FeatureRows:
    """Open the first file that can be read. Raises what is wrong with its array, or the first error when none can."""
    failure: DataError | None = None
    for number in range(count):
        try:
            return open_file(number)
        except (ShapeError, DtypeError):  # as of all of them
            raise
        except DataError as error:
            failure = failure or error
    assert failure is not None, "a folder without files is refused before"
    raise failure


class _OneEach:
    """Files that hold one row each, in the order of their names."""

    def __init__(self, folder: FeatureFolder, open_file: Callable[[int], FeatureRows]) -> None:
        self.folder, self.open_file = folder, open_file
        self.names = Names(map(folder.label, folder.files))

    def place(self, number: int) -> tuple[int, int]:
        """Return the file of a row, and its place there."""
        return number, 0

    def read(self, numbers: Sequence[int]) -> Iterator[Row]:
        """Yield these rows, or the errors of their files."""
        for number in numbers:
            try:
                found = self.open_file(number)
                if len(found) != 1:
                    raise ShapeError(f"{found.path}: {len(found)} features, expected one, as in the first file.")
                yield from ((number, row) for _, row in found.read([0]))
            except DataError as error:
                yield number, error


class _SeveralEach:
    """Files that hold several rows each, all opened once before; the last one read stays open."""

    def __init__(self, folder: FeatureFolder, open_file: Callable[[int], FeatureRows]) -> None:
        self.open_file, self.names, self.ends = open_file, Names(), [0]
        for number, name in enumerate(folder.files):
            found = open_file(number)
            own = all(found.names)
            self.names.extend(found.names if own else (f"{folder.label(name)}_{row:06d}" for row in range(len(found))))
            self.ends.append(len(self.names))
        self.last = (-1, found)

    def place(self, number: int) -> tuple[int, int]:
        """Return the file of a row, and its place there."""
        file = bisect_right(self.ends, number) - 1
        return file, number - self.ends[file]

    def read(self, numbers: Sequence[int]) -> Iterator[Row]:
        """Yield these rows, or the errors of their files."""
        for number in numbers:
            file, row = self.place(number)
            try:
                if file != self.last[0]:
                    self.last = (file, self.open_file(file))
                yield from ((number, values) for _, values in self.last[1].read([row]))
            except DataError as error:
                yield number, error
