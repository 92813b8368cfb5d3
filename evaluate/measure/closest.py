"""Nearest neighbours of reconstructions in a folder of photographs, in pixels and in every space."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from deepsim.evaluate.measure.originals import Originals
from deepsim.evaluate.measure.passes import MethodRows
from deepsim.evaluate.measure.spaces import PIXELS
from deepsim.evaluate.metrics.neighbours import Neighbours, nearest
from deepsim.evaluate.metrics.rows import RowSource


@dataclass(frozen=True)
class Closest:
    """The neighbours of each reconstruction in one space; ``queries`` and ``among`` name photographs by their rows."""

    space: str
    found: Neighbours
    queries: Sequence[str]
    among: Sequence[str]

    @property
    def own_first(self) -> float | None:
        """Return the share of reconstructions whose own photograph is nearest, of those whose photograph is there.

        Photographs are the same where they are one file. None where none is among the candidates.
        """
        places = {_real(path): row for row, path in enumerate(self.among)}
        own = [places.get(_real(path)) for path in self.queries]
        hits = [row == best for row, best in zip(own, self.found.rows[:, 0], strict=True) if row is not None]
        return sum(map(bool, hits)) / len(hits) if hits else None

    def to_json(self) -> dict[str, Any]:
        """Return a short record of it as plain JSON values."""
        return {
            "space": self.space,
            "candidates": len(self.among),
            "k": self.found.rows.shape[1],
            "mean_distance_of_first": float(self.found.distances[:, 0].mean()),
            "own_first": self.own_first,
        }


def closest(rows: MethodRows, candidates: Originals, k: int) -> list[Closest]:
    """Find the ``k`` candidates nearest to each picture of a method, in pixels and every space."""
    pairs: list[tuple[str, RowSource, RowSource]] = [(PIXELS, rows.pictures, candidates.pixels)]
    pairs += [(space.name, rows.features(space), candidates.features(space)) for space in rows.spaces]
    queries, among = _names(rows.originals), _names(candidates)
    found = []
    for space, queried, searched in pairs:
        with tqdm(total=queried.shape[0], desc=f"neighbours, {space}", unit="image", disable=None) as bar:
            near = nearest(queried, searched, k, progress=partial(_advance, bar))
        found.append(Closest(space, near, queries, among))
    return found


def as_csv(found: Sequence[Closest]) -> str:
    """Write a line for each neighbour: photograph, space, rank from 1, neighbour, distance."""
    output = io.StringIO()
    lines = csv.writer(output, lineterminator="\n")
    lines.writerow(["photograph", "space", "rank", "neighbour", "distance"])
    for each in found:
        for query, rows, distances in zip(each.queries, each.found.rows, each.found.distances, strict=True):
            for rank, (row, distance) in enumerate(zip(rows, distances, strict=True), 1):
                lines.writerow([_plain(query), each.space, rank, _plain(each.among[row]), repr(float(distance))])
    return output.getvalue()


def _advance(bar: tqdm[Any], done: int) -> None:
    bar.update(done - bar.n)


def _names(originals: Originals) -> list[str]:
    return [originals.photographs.names[number] for number in originals.index]


def _real(path: str) -> str:
    return str(Path(path).resolve())


def _plain(name: str) -> str:
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")
