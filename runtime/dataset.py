"""Photographs in numbers: read one after the other ahead of the computation, bad ones named, skipped or the end."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from deepsim.runtime.errors import DataError
from deepsim.runtime.features.records import text_of
from deepsim.runtime.geometry import Framing
from deepsim.runtime.images import Photo, prepare
from deepsim.runtime.names import Names
from deepsim.runtime.pixels import Pixels
from deepsim.runtime.prefetch import overlapped

_R = TypeVar("_R")
_log = logging.getLogger("deepsim")
OnError: TypeAlias = Literal["stop", "skip"]


@dataclass(frozen=True, slots=True)  # there may be millions
class Photograph:
    """One of many photographs: its place from 0, and what to read it from."""

    index: int
    photo: Photo

    @property
    def name(self) -> str:
        """The path as text, empty for an image that has none."""
        return text_of(os.fspath(self.photo)) if isinstance(self.photo, (str, os.PathLike)) else ""


@dataclass(frozen=True)
class Batch:
    """Photographs that are computed together: who they are, and uint8 RGB (n, side, side, 3)."""

    photographs: list[Photograph]
    pixels: Pixels


class Images(np.ndarray[Any, Any]):
    """The images of a batch, uint8 RGB (n, side, side, 3): an array that knows which photographs they belong to.

    ``names`` are their paths ("" where there is none), ``index`` their places from 0 among all that were given, and
    ``features`` float32 (n, ...), where they were asked for. Arrays made from it know none of these.
    """

    names: tuple[str, ...] = ()
    index: tuple[int, ...] = ()
    features: NDArray[np.float32] | None = None

    @classmethod
    def of(cls, pixels: Pixels, photographs: list[Photograph], features: NDArray[np.float32] | None) -> Images:
        """Return the same pixels, labelled."""
        images = pixels.view(cls)
        images.names = tuple(photograph.name for photograph in photographs)
        images.index = tuple(photograph.index for photograph in photographs)
        images.features = features
        return images


class Photographs(Sequence[Photograph]):
    """The photographs of very many files, numbered from 0, or some ``numbers`` of them: only their names are kept."""

    def __init__(self, names: Names, numbers: Sequence[int] | None = None) -> None:
        self.names, self.numbers = names, range(len(names)) if numbers is None else numbers

    def only(self, numbers: Sequence[int]) -> Photographs:
        """Return some of them, with their numbers."""
        return Photographs(self.names, numbers)

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, index: int) -> Photograph: ...
    @overload
    def __getitem__(self, index: slice) -> Photographs: ...
    def __getitem__(self, index: int | slice) -> Photograph | Photographs:
        if isinstance(index, slice):
            return self.only(self.numbers[index])
        return Photograph(self.numbers[index], self.names[self.numbers[index]])


def numbered(photos: Iterable[Photo]) -> Iterator[Photograph]:
    """Number photographs from 0, as they come."""
    return (Photograph(index, photo) for index, photo in enumerate(photos))


def path_of(photograph: Photograph) -> Path:
    """Return the path of a photograph that is a file. Raises TypeError for an image that is none."""
    return Path(photograph.photo)  # type: ignore[arg-type]  # raises for an image


def file_version(path: Path) -> str:
    """Return what tells a file from a changed one: its size and time of change. Raises DataError."""
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: {getattr(error, 'strerror', None) or error}, expected a file.") from error
    return f"{status.st_size}-{status.st_mtime_ns}"


def version_of(photograph: Photograph) -> str:
    """Return the version of a photograph's file; "" where it has none, of which reading it will tell."""
    try:
        return file_version(path_of(photograph))
    except DataError:
        return ""


def name_left_out(photograph: Photograph, error: DataError) -> None:
    """Warn that a photograph is left out, and why."""
    _log.warning("left out %s", error)


def read_batches(
    photographs: Iterable[Photograph],
    size: int,
    framing: Framing,
    on_error: OnError = "stop",
    report: Callable[[Photograph, DataError], None] = name_left_out,
) -> Generator[Batch, None, None]:
    """Read photographs in batches of ``size``, in order; the last one may be smaller.

    One that cannot be read is handed to ``report`` with "skip" and takes no place in a batch; with "stop" the batch of
    those before it is yielded, then its DataError raised.
    """
    met: list[Photograph] = []
    pixels: list[Pixels] = []
    for photograph in photographs:
        try:
            pixels.append(prepare(photograph.photo, framing))
            met.append(photograph)
        except DataError as error:
            if on_error == "skip":
                report(photograph, error)
                continue
            if met:
                yield Batch(met, np.stack(pixels))
            raise
        if len(met) == size:
            yield Batch(met, np.stack(pixels))
            met, pixels = [], []
    if met:
        yield Batch(met, np.stack(pixels))


def compute_ahead(
    batches: Generator[Batch, None, None], function: Callable[[Pixels], _R], width: int
) -> Generator[tuple[Batch, _R], None, None]:
    """Yield every batch with what ``function`` makes of its pixels, as :func:`~deepsim.runtime.prefetch.overlapped`."""
    results = overlapped(batches, lambda batch: function(batch.pixels), width)
    try:
        yield from results
    finally:
        results.close()


def images_ahead(
    batches: Generator[Batch, None, None],
    function: Callable[[Pixels], tuple[Pixels, NDArray[np.float32] | None]],
    width: int,
) -> Iterator[Images]:
    """Yield the images that ``function`` makes of batches, with its features if any, as :func:`compute_ahead`."""
    results = compute_ahead(batches, function, width)
    try:
        for batch, (images, features) in results:
            yield Images.of(images, batch.photographs, features)
    finally:
        results.close()
