"""Features on their way to a file: rows that are on the disk as they come, so that a stopped run can go on.

Beside ``features.npy`` lies ``.features.npy.partial/`` until all rows are there: ``job.json`` says what computes them,
``rows.f32`` holds them one after the other, ``rows.jsonl`` has a line for each: the photograph's path and its
version (size and time of change) before it was read. A row counts once its line is whole.
"""

from __future__ import annotations

import json
import os
import shutil
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from deepsim.runtime.dataset import Photograph, version_of
from deepsim.runtime.errors import DataError, UsageError
from deepsim.runtime.features import KEY, Labels, Rows, write_features
from deepsim.runtime.features.records import cuts, text_of
from deepsim.runtime.file_names import LONGEST, cut_bytes
from deepsim.runtime.files import reserved, sha256, write_atomic
from deepsim.runtime.names import Names
from deepsim.runtime.os_errors import disk_errors

_NONE = -1
_JOB, _ROWS, _LINES = "job.json", "rows.f32", "rows.jsonl"


class PartialFeatures:
    """The rows of an output that is not whole yet; use :meth:`open`."""

    def __init__(
        self,
        output: Path,
        folder: Path,
        shape: tuple[int, ...],
        version: Callable[[Photograph], str] = version_of,
        key: str = KEY,
    ) -> None:
        self.output, self.folder, self.shape, self.version, self.key = output, folder, shape, version, key
        self._row_bytes = 4 * int(np.prod(shape))
        self._before: dict[bytes, int] = {}  # of an earlier run: hash of (path, version) -> row
        self._places = array("q")  # of this one, by a photograph's index: its row, or none
        self._versions = Names()  # of photographs, by their index, as they were when first met
        self._rows = self._append(_ROWS)
        self._lines = self._append(_LINES)
        self._recover()

    @classmethod
    @contextmanager
    def open(
        cls,
        output: Path,
        shape: tuple[int, ...],
        job: dict[str, Any],
        resume: bool,
        overwrite: bool,
        version: Callable[[Photograph], str] = version_of,
        key: str = KEY,
    ) -> Iterator[PartialFeatures]:
        """Begin, or with ``resume`` go on with, features of ``shape`` for a file, alone among all processes.

        ``version`` tells a photograph's file from itself after a change; ``key`` is the name of the array.

        ``job`` says what computes the rows: to go on it must be the same. What was not published stays for the next
        run, unless there is no row. Raises UsageError when an earlier run left rows and neither ``resume`` nor
        ``overwrite`` is set, for another job, and while another process writes the same output.
        """
        folder = folder_of(output)
        with disk_errors(folder):
            output.parent.mkdir(parents=True, exist_ok=True)
            with reserved(output):
                if folder.exists() and not resume:
                    _remove(folder, overwrite)
                folder.mkdir(exist_ok=True)
                check_job(folder / _JOB, {**job, "shape": list(shape)})
                partial = cls(output, folder, shape, version, key)
                try:
                    yield partial
                finally:
                    partial._close()

    def has(self, photograph: Photograph) -> bool:
        """Tell whether a photograph has its row, and is the same file still. Ask before it is read."""
        return self._place(photograph) != _NONE

    def add(self, photographs: Sequence[Photograph], features: NDArray[np.float32]) -> None:
        """Append rows, one per photograph: on the disk when this returns. Raises DeviceError on a full disk."""
        keys = [self._key(photograph) for photograph in photographs]
        with disk_errors(self.folder):
            self._rows.write(np.ascontiguousarray(features, dtype="<f4").data)
            self._rows.flush()
            os.fsync(self._rows.fileno())
            self._lines.write("".join(json.dumps(key) + "\n" for key in keys).encode())
            self._lines.flush()
        for photograph in photographs:
            self._places[photograph.index] = self._count
            self._count += 1

    def publish(self, photographs: Sequence[Photograph]) -> int:
        """Write the output from the rows of these photographs, in this order; return how many have one."""
        places, names, index = array("q"), Names(), array("q")
        for photograph in filter(self.has, photographs):
            places.append(self._place(photograph))
            names.append(photograph.name)
            index.append(photograph.index)
        write_features(self.output, self._in_order(places), Labels(names, index))
        self._count = 0  # the folder goes when it is closed
        return len(places)

    def _in_order(self, places: Sequence[int]) -> Rows:
        """Return rows in the order of their places in the file."""

        def blocks() -> Iterator[NDArray[np.float32]]:
            with (self.folder / _ROWS).open("rb") as file:
                for start, stop in cuts(len(places), self._row_bytes):
                    block = np.empty((stop - start, *self.shape), "<f4")
                    for row, place in zip(block, places[start:stop], strict=True):
                        file.seek(place * self._row_bytes)
                        file.readinto(row.reshape(-1).data)
                    yield block

        return Rows((len(places), *self.shape), blocks, self.key)

    def _key(self, photograph: Photograph) -> tuple[str, str]:
        """Return what tells a photograph's file from all others, and from itself after a change."""
        self._meet(photograph)
        path = os.fspath(photograph.photo)  # type: ignore[arg-type]  # raises for an image
        return path, self._versions[photograph.index]

    def _place(self, photograph: Photograph) -> int:
        """Return the row of a photograph, in an earlier run or in this one; -1 where it has none."""
        self._meet(photograph)
        place = self._places[photograph.index]
        if place == _NONE and self._before:
            place = self._before.get(_hash(self._key(photograph)), _NONE)
        return place

    def _meet(self, photograph: Photograph) -> None:
        """Note the version of a photograph that is met for the first time; those before it have been."""
        if photograph.index == len(self._versions):
            self._versions.append(self.version(photograph))
            self._places.append(_NONE)

    def _append(self, name: str) -> BinaryIO:
        return (self.folder / name).open("ab")

    def _recover(self) -> None:
        """Count the rows whose line is whole, and cut off what a killed process wrote behind them."""
        rows = (self.folder / _ROWS).stat().st_size // self._row_bytes
        lines = (self.folder / _LINES).read_bytes().splitlines(keepends=True)
        whole = [line for line in lines[:rows] if line.endswith(b"\n")]
        try:
            self._before = {_hash(json.loads(line)): place for place, line in enumerate(whole)}
        except ValueError as error:
            raise DataError(f"{self.folder / _LINES}: damaged ({error}). Pass --overwrite to begin anew.") from error
        self._count = len(whole)
        self._rows.truncate(self._count * self._row_bytes)
        self._lines.truncate(sum(map(len, whole)))

    def _close(self) -> None:
        self._rows.close()
        self._lines.close()
        if not self._count:
            shutil.rmtree(self.folder, ignore_errors=True)


def _hash(key: Sequence[str]) -> bytes:
    """Return what stands for a photograph's path and version where there are very many of them."""
    return bytes.fromhex(sha256(repr(tuple(key)).encode("utf-8", "surrogatepass")))[:16]


def folder_of(output: Path) -> Path:
    """Return the folder of the rows on their way to a file; of a long name it has a part and a hash."""
    name = text_of(output.name)
    if len(name.encode()) > LONGEST:
        name = f"{cut_bytes(name, LONGEST)}-{sha256(name.encode())[:8]}"
    return output.with_name(f".{name}.partial")


def _remove(folder: Path, overwrite: bool) -> None:
    if not overwrite:
        raise UsageError(f"{folder}: rows of an earlier run. Pass --resume to go on, or --overwrite to begin anew.")
    shutil.rmtree(folder)


def check_job(path: Path, job: dict[str, Any]) -> None:
    """Write down a new job; raise UsageError when the file names another one, DataError when it is damaged."""
    if not path.exists():
        write_atomic(path, json.dumps(job, indent=2) + "\n")
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        differing = [name for name in job if before.get(name) != job[name]]
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: damaged ({error}). Pass --overwrite to begin anew.") from error
    if differing:
        was = ", ".join(f"{name} {before.get(name)}" for name in differing)
        now = ", ".join(f"{name} {job[name]}" for name in differing)
        raise UsageError(f"{path.parent}: rows of {was}, expected {now}. Pass --overwrite to begin anew.")
