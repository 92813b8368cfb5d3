"""Evaluate methods one after the other, and write what was found.

::

    evaluation.json            every figure with its interval, of every method; what it was measured on
    table.txt, table.csv       the same as tables
    photographs/METHOD.csv     every measure of every photograph
    norms.json                 N of each space
    rows/                      pixels, pictures and features on the way; only columns.npz of each method stays, or all
                               with ``keep``
"""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepsim.evaluate.measure.methods import Method
from deepsim.evaluate.measure.norms import Norms
from deepsim.evaluate.measure.originals import Originals, identity_of, originals_identity
from deepsim.evaluate.measure.passes import MethodRows, identified, method_job
from deepsim.evaluate.measure.pictures import OWN, PictureMeasures
from deepsim.evaluate.measure.spaces import PIXELS, Network, Space
from deepsim.evaluate.measure.summary import Summary, summarise
from deepsim.evaluate.measure.tables import as_csv, photograph_lines, written
from deepsim.evaluate.metrics.bootstrap import Bootstrap
from deepsim.evaluate.metrics.distribution import distribution_distance
from deepsim.evaluate.paper import SOURCE, TABLE_2
from deepsim.runtime.cli.bulk import Bulk
from deepsim.runtime.dataset import Photographs
from deepsim.runtime.errors import DataError
from deepsim.runtime.file_names import png_paths
from deepsim.runtime.files import write_atomic
from deepsim.runtime.geometry import Framing
from deepsim.runtime.machine import environment
from deepsim.runtime.partial import check_job

SCHEMA = 1
EVALUATION, TABLE, CSV, COLUMNS = "evaluation.json", "table.txt", "table.csv", "columns.npz"
_ORIGINAL = "original "  # before the names of what is measured of photographs alone

Columns = dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Task:
    """What every method is measured by. ``batch`` pictures are computed at once, ``width`` batches at a time."""

    output: Path
    photographs: Photographs
    reference: Photographs | None
    bulk: Bulk
    how: Bootstrap
    batch: int
    width: int
    in_pixels: bool = False
    inception: Path | None = None
    keep: bool = False

    @property
    def rows(self) -> Path:
        """Return the folder of what is on the way."""
        return self.output / "rows"


@dataclass(frozen=True)
class Measured:
    """One method, measured: its columns by name, its figures, and the identities of the rows that N is of."""

    method: Method
    spaces: Sequence[Space]
    columns: Columns
    summary: Summary
    distribution: dict[str, float] | None
    norms: tuple[str, ...]

    @property
    def index(self) -> list[int]:
        """Return the photographs' places in the list that was given."""
        return [int(number) for number in self.columns["index"]]

    def to_json(self) -> dict[str, Any]:
        """Return the method and its figures as plain JSON."""
        own = self.method.inverted
        names = {"layer": own and own.layer, "network": own and own.network, "space": own and own.name}
        figures: dict[str, Any] = self.summary.to_json()
        if self.distribution is not None:
            figures["distribution"] = self.distribution
        return {"name": self.method.name, **names, **self.method.described(), "figures": figures}


Visit = Callable[[MethodRows], None]
"""Looks at a method's rows while they are on the disk."""


def measure_method(
    task: Task,
    method: Method,
    framing: Framing,
    networks: Sequence[Network],
    measures: PictureMeasures,
    visit: Visit | None = None,
) -> Measured:
    """Measure a method, or take the columns that an earlier run finished. Raises as its pictures and networks do.

    ``visit`` needs rows: with it, a finished method's are made again where they are gone.
    """
    spaces = [space for network in networks for space in network.spaces]
    folder = task.rows / png_paths(Path(), [method.name])[0].stem
    photographs = identity_of(task.photographs)
    job = method_job(method, originals_identity(photographs, framing), measures, spaces)
    columns = None if visit else _finished(folder, job, _more_columns(task, spaces))
    distribution = None
    if columns is None or task.inception is not None:
        with closing(_originals(task, framing, networks)) as originals:
            originals.gather(task.batch, task.width, task.bulk, "photographs")
            with closing(MethodRows(folder, method, originals, measures)) as rows:
                rows.gather(task.batch, task.width)
                columns = _columns(task, rows)
                if task.inception is not None:
                    found = distribution_distance(rows.pictures, originals.pixels, task.inception)
                    distribution = vars(found)
                if visit is not None:
                    visit(rows)
            _write_columns(folder, columns)
    identities = _norm_identities(task, framing, spaces)
    norms = _norms(task, framing, networks, identities)
    alone = {name: columns[_ORIGINAL + name] for name in OWN}
    summary = summarise(columns, alone, spaces, norms, task.how)
    return Measured(method, spaces, columns, summary, distribution, tuple(identities.values()))


def _originals(task: Task, framing: Framing, networks: Sequence[Network], reference: bool = False) -> Originals:
    photographs, name = task.photographs, "photographs"
    if reference and task.reference is not None:
        photographs, name = task.reference, "reference"
    return Originals(
        task.rows / f".{name}-{framing.resize}{framing.size}-{framing.side}", photographs, framing, networks
    )


def _columns(task: Task, rows: MethodRows) -> Columns:
    """Return everything measured of each photograph, identification included."""
    found, originals = rows.values(), rows.originals
    for space in rows.spaces:
        named = identified(rows.features(space), originals.features(space), space.name)
        found |= {f"{space.key} {name}": values for name, values in named.items()}
    if task.in_pixels:
        named = identified(rows.pictures, originals.pixels, PIXELS)
        found |= {f"{PIXELS} {name}": values for name, values in named.items()}
    found |= {_ORIGINAL + name: values for name, values in zip(OWN, originals.measures.T, strict=True)}
    return {"index": np.asarray(originals.index, np.float64), **found}


def _more_columns(task: Task, spaces: Sequence[Space]) -> set[str]:
    return {f"{space.key} beaten" for space in spaces} | ({f"{PIXELS} beaten"} if task.in_pixels else set())


def _write_columns(folder: Path, columns: Columns) -> None:
    content = io.BytesIO()
    np.savez(content, **columns)  # type: ignore[arg-type]  # numpy types no keywords
    write_atomic(folder / COLUMNS, content.getvalue())


def _finished(folder: Path, job: dict[str, Any], needed: set[str]) -> Columns | None:
    """Return the columns that an earlier run of the same job finished. Raises UsageError for those of another job."""
    path = folder / COLUMNS
    if not path.exists():
        return None
    check_job(folder / "job.json", job)
    try:
        with np.load(path, allow_pickle=False) as stored:
            columns = {name: stored[name] for name in stored.files}
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: damaged ({error}). Pass --overwrite to begin anew.") from error
    return columns if needed <= set(columns) else None


def _norm_identities(task: Task, framing: Framing, spaces: Sequence[Space]) -> dict[str, str]:
    """Tell the rows of which N is needed from all others: by the key of each space, and "" for pixels."""
    chosen = task.photographs if task.reference is None else task.reference
    whole = originals_identity(identity_of(chosen), framing)
    return {"": whole, **{space.key: f"{whole} {space.identity}" for space in spaces}}


def _norms(
    task: Task, framing: Framing, networks: Sequence[Network], identities: dict[str, str]
) -> dict[str, float | None]:
    """Return N of each space by its key, and of pixels as ""; photographs are read where one is not known."""
    norms = Norms(task.output)
    if not norms.knows(identities.values()):
        with closing(_originals(task, framing, networks, reference=True)) as originals:
            originals.gather(task.batch, task.width, task.bulk, "reference")
            norms.mean_distance(originals.pixels, PIXELS, identities[""])
            for space in originals.spaces:
                norms.mean_distance(originals.features(space), space.name, identities[space.key])
    return {key: norms.known(identity) for key, identity in identities.items()}


def write_evaluation(
    task: Task, measured: Sequence[Measured], folders: dict[str, str], seconds: float
) -> dict[str, Any]:
    """Write everything about methods that have been measured; return the record of ``evaluation.json``."""
    record = _record(task, measured, folders, seconds)
    paths = png_paths(task.output / "photographs", [found.method.name for found in measured], suffix=".csv")
    for path, found in zip(paths, measured, strict=True):
        names = [task.photographs.names[number] for number in found.index]
        shown = {name: values for name, values in _readable(found).items() if name != "index"}
        write_atomic(path, photograph_lines(names, shown))
    write_atomic(task.output / CSV, as_csv(record))
    write_atomic(task.output / TABLE, written(record) + "\n")
    write_atomic(task.output / EVALUATION, json.dumps(record, indent=2, allow_nan=False) + "\n")
    if not task.keep:
        for folder in task.rows.glob("*"):
            _remove_rows(folder)
    return record


def _record(task: Task, measured: Sequence[Measured], folders: dict[str, str], seconds: float) -> dict[str, Any]:
    chosen = task.photographs if task.reference is None else task.reference
    spaces = {space.identity: space for found in measured for space in found.spaces}
    count = max(found.summary.photographs for found in measured)
    return {
        "schema": SCHEMA,
        "kind": "deepsim evaluation",
        "photographs": {
            "folder": folders["photographs"],
            "count": count,
            "left_out": len(task.photographs) - count,
            "identity": identity_of(task.photographs),
        },
        "reference": {
            "photographs": folders.get("reference", "those evaluated"),
            "count": count if task.reference is None else len(chosen),
            "identity": identity_of(chosen),
            "norms": _known_norms(task, measured),
        },
        "intervals": vars(task.how),
        "spaces": [
            {"name": space.name, "network": space.network, "layer": space.layer, "shape": list(space.shape)}
            for space in spaces.values()
        ],
        "methods": [found.to_json() for found in measured],
        "paper": {"source": SOURCE, "rows": [{"method": row.method, "errors": row.errors} for row in TABLE_2]},
        "seconds": round(seconds, 3),
        "environment": environment(),
    }


def _known_norms(task: Task, measured: Sequence[Measured]) -> list[dict[str, Any]]:
    return Norms(task.output).entries(dict.fromkeys(identity for found in measured for identity in found.norms))


def _readable(found: Measured) -> Columns:
    """Return columns whose names a reader knows: those of spaces begin with the space's name."""
    names = {space.key: space.name for space in found.spaces}
    return {
        f"{names[name.split(' ')[0]]} {name.split(' ')[1]}" if name.split(" ")[0] in names else name: values
        for name, values in found.columns.items()
        if not name.startswith(f"{_ORIGINAL}power_")
    }


def _remove_rows(folder: Path) -> None:
    """Remove the rows of one store; a method's columns and their job stay."""
    if folder.name.startswith("."):
        shutil.rmtree(folder, ignore_errors=True)
        return
    for path in folder.iterdir():
        if path.name not in (COLUMNS, "job.json"):
            path.unlink()
