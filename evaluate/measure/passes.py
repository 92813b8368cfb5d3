"""Measure one method: make its pictures, see them through every space, and identify the photographs by them."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from deepsim.evaluate.measure.methods import Method
from deepsim.evaluate.measure.originals import Originals
from deepsim.evaluate.measure.pictures import PictureMeasures
from deepsim.evaluate.measure.spaces import Network, Space
from deepsim.evaluate.measure.store import RowStore, StoredRows
from deepsim.evaluate.metrics.correlation import identify, pearson
from deepsim.evaluate.metrics.rows import RowSource
from deepsim.runtime.metrics import euclidean_distances
from deepsim.runtime.pixels import Pixels
from deepsim.runtime.prefetch import overlapped

PICTURES, _MEASURES = "pictures.u8", "measures.f64"
IN_SPACE = ("distance", "correlation")  # columns of every space


def columns_of(measures: PictureMeasures, spaces: Sequence[Space]) -> tuple[str, ...]:
    """Name the columns that are measured while pictures are made."""
    return (*measures.columns, *(f"{space.key} {name}" for space in spaces for name in IN_SPACE))


def method_job(method: Method, originals: str, measures: PictureMeasures, spaces: Sequence[Space]) -> dict[str, Any]:
    """Return what the figures of a method depend on, as plain JSON; ``originals`` is their identity."""
    columns = list(columns_of(measures, spaces))
    return {"method": method.name, **method.identity, "originals": originals, "columns": columns}


@dataclass(frozen=True)
class Made:
    """Some pictures, and their features in every space."""

    pictures: Pixels
    features: list[NDArray[np.float32]]


class MethodRows:
    """The pictures of a method on the disk, with their features and measures, row by row as the originals'."""

    def __init__(self, folder: Path, method: Method, originals: Originals, measures: PictureMeasures) -> None:
        self.method, self.originals, self.measures = method, originals, measures
        self.networks: Sequence[Network] = originals.networks
        self.spaces = originals.spaces
        self.columns = columns_of(measures, self.spaces)
        side = originals.framing.side
        formats: dict[str, tuple[str, tuple[int, ...]]] = {
            PICTURES: ("u1", (side, side, 3)),
            _MEASURES: ("<f8", (len(self.columns),)),
            **{space.key: ("<f4", space.shape) for space in self.spaces},
        }
        self._store = RowStore(folder, formats, method_job(method, originals.identity, measures, self.spaces))
        self._store.agree_with(originals.index)

    def close(self) -> None:
        """Bring all rows to the disk."""
        self._store.close()

    @property
    def pictures(self) -> StoredRows:
        """Return the pictures, uint8 RGB (N, side, side, 3)."""
        return self._store.rows(PICTURES)

    def features(self, space: Space) -> StoredRows:
        """Return the pictures' features in a space."""
        return self._store.rows(space.key)

    def values(self) -> dict[str, NDArray[np.float64]]:
        """Return the measured columns by name, float64 (N,) each."""
        return dict(zip(self.columns, self._store.rows(_MEASURES)[:].T, strict=True))

    def gather(self, size: int, width: int) -> None:
        """Make and measure the pictures that are missing, ``size`` at a time."""
        results = overlapped(self._rows_to_make(size), self._make, width)
        count = len(self.originals)
        with tqdm(total=count, initial=len(self._store), desc=self.method.name, unit="image", disable=None) as bar:
            try:
                for rows, made in results:
                    self._add(rows, made)
                    bar.update(len(made.pictures))
            finally:
                results.close()

    def _rows_to_make(self, size: int) -> Generator[slice, None, None]:
        count = len(self.originals)
        yield from (slice(start, min(start + size, count)) for start in range(len(self._store), count, size))

    def _make(self, rows: slice) -> Made:
        pictures = self.method.pictures(self.originals, rows)
        return Made(pictures, [found for network in self.networks for found in network.features(pictures)])

    def _add(self, rows: slice, made: Made) -> None:
        """Measure some pictures, and keep them."""
        columns = [self.measures.compare(made.pictures, self.originals.pixels[rows])]
        for space, reached in zip(self.spaces, made.features, strict=True):
            wanted = self.originals.features(space)[rows]
            columns += [euclidean_distances(reached, wanted)[:, None], pearson(reached, wanted)[:, None]]
        named = {space.key: found for space, found in zip(self.spaces, made.features, strict=True)}
        kept: dict[str, NDArray[Any]] = {PICTURES: made.pictures, _MEASURES: np.hstack(columns), **named}
        self._store.add(self.originals.index[rows], kept)


def identified(reached: RowSource, originals: RowSource, what: str) -> dict[str, NDArray[np.float64]]:
    """Count for each picture how many originals its features tell from the right one: columns beaten and others."""
    with tqdm(total=reached.shape[0], desc=f"identification, {what}", unit="image", disable=None) as bar:
        found = identify(reached, originals, range(reached.shape[0]), progress=lambda done: bar.update(done - bar.n))
    return {"beaten": found.beaten.astype(np.float64), "others": found.others.astype(np.float64)}
