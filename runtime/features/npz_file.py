"""Features in NumPy's .npz: an archive of arrays; ours are "features", "names" and "index"."""

from __future__ import annotations

import math
import struct
import zipfile
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from deepsim.runtime.errors import DataError
from deepsim.runtime.features import npy_file
from deepsim.runtime.features.records import INDEX, NAMES, FeatureFile, Key, Labels, Rows, choose, text_of
from deepsim.runtime.features.sparse import from_matrix, sparse_matrix

_SPARSE = {"data", "indices", "indptr", "format", "shape"}  # what scipy.sparse.save_npz writes
_MOST, _TIMES = 16 << 20, 64  # bytes of an array that is read at once, and how much more than stored it may have
_LOCAL_HEADER = 30  # bytes before a member's name; its last two fields are the lengths of name and extra field


def read(path: Path, key: Key) -> FeatureFile:
    """Open an archive; an array that is not compressed is read when it is asked for."""
    if not zipfile.is_zipfile(path):
        raise DataError(f"{path}: no archive, expected arrays as numpy.savez writes them. A single array is .npy.")
    with zipfile.ZipFile(path) as archive:
        members = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
        if set(members) >= _SPARSE and key is None:
            return from_matrix(path, _sparse(path, archive))
        labels = Labels(*(_labels(path, archive, members, name) for name in (NAMES, INDEX)))
        chosen = choose(path, [name for name in members if name not in (NAMES, INDEX)], key)
        return _array(path, archive, f"{chosen}.npy").labelled(labels, chosen)


def write(file: BinaryIO, rows: Rows, labels: Labels) -> None:
    """Write an archive that is not compressed, block by block."""
    with zipfile.ZipFile(file, "w") as archive:
        with archive.open(f"{rows.key}.npy", "w", force_zip64=True) as member:
            npy_file.write(member, rows, labels)  # type: ignore[arg-type]  # IO[bytes]
        if labels.names:
            _write_array(archive, NAMES, np.array([text_of(name) for name in labels.names]))
        if labels.index:
            _write_array(archive, INDEX, np.array(labels.index, np.int64))


def check(path: Path, shape: tuple[int, ...] | None) -> None:
    """Any size can be written."""


def _write_array(archive: zipfile.ZipFile, name: str, values: NDArray[Any]) -> None:
    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
        npy.write_array(member, values, allow_pickle=False)


def _array(path: Path, archive: zipfile.ZipFile, name: str) -> FeatureFile:
    record = archive.getinfo(name)
    if record.compress_type != zipfile.ZIP_STORED:
        return _Compressed(path, record).file()
    with archive.open(record) as member:
        while member.read(1 << 20):  # compares the checksum
            pass
    with path.open("rb") as file:
        file.seek(record.header_offset)
        lengths = struct.unpack("<HH", file.read(_LOCAL_HEADER)[-4:])
        begin = record.header_offset + _LOCAL_HEADER + sum(lengths)
        return npy_file.lazy(path, file, begin, begin + record.file_size)


class _Compressed:
    """An array that has to be decompressed from its begin: rows in increasing order are, as a stream, once."""

    def __init__(self, path: Path, record: zipfile.ZipInfo) -> None:
        self.path, self.record, self.place = path, record, 0
        self.member: IO[bytes] | None = None
        with zipfile.ZipFile(path) as archive, archive.open(record) as member:
            self.array = npy_file.header(path, member)
        self.array.check(record.file_size)

    def file(self) -> FeatureFile:
        """Return it as the array of a feature file."""
        array = self.array
        return FeatureFile(self.path, array.shape, array.dtype, self.cut)

    def cut(self, axis: int, start: int, stop: int) -> NDArray[Any]:
        """Read entries along an axis; along others than the slowest, all are decompressed. Raises ValueError."""
        shape, last = self.array.shape, len(self.array.shape) - 1
        if axis != (last if self.array.fortran else 0):
            found: NDArray[Any] = self._entries(0, shape[last if self.array.fortran else 0])
            return found[(slice(None),) * axis + (slice(start, stop),)]
        return self._entries(start, stop)

    def _entries(self, start: int, stop: int) -> NDArray[Any]:
        """Read entries of the slowest axis."""
        stored = self.array.shape[::-1] if self.array.fortran else self.array.shape
        row = math.prod(stored[1:]) * self.array.dtype.itemsize
        member = self._at(self.array.offset + start * row)
        data = member.read((stop - start) * row)
        self.place += len(data)
        if len(data) != (stop - start) * row:
            raise ValueError("cut off")
        found: NDArray[Any] = np.frombuffer(data, self.array.dtype).reshape(stop - start, *stored[1:])
        return found.T if self.array.fortran else found

    def _at(self, place: int) -> IO[bytes]:
        """Return the stream at a place; it begins anew where that lies behind."""
        if self.member is None or place < self.place:
            self.member, self.place = zipfile.ZipFile(self.path).open(self.record), 0  # noqa: SIM115  # kept open
        while self.place < place:
            skipped = len(self.member.read(min(place - self.place, 1 << 20)))
            if not skipped:
                raise ValueError("cut off")
            self.place += skipped
        return self.member


def _whole(path: Path, archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    """Return all of a member. Raises ValueError where its header claims more than there is, or far more than stored."""
    record = archive.getinfo(name)
    if record.file_size > _MOST + _TIMES * record.compress_size:
        raise ValueError(f"{name} claims {record.file_size:,} bytes")
    with archive.open(record) as member:
        npy_file.header(path, member).check(record.file_size)
    with archive.open(record) as member:
        found: NDArray[Any] = npy.read_array(member, allow_pickle=False)
        return found


def _sparse(path: Path, archive: zipfile.ZipFile) -> Any:
    """Return what scipy.sparse.save_npz wrote as a matrix compressed by columns. Raises ValueError."""
    parts = {}
    for name in _SPARSE:
        parts[name] = _whole(path, archive, f"{name}.npy")
    kind, (rows, columns) = bytes(parts["format"].item()), parts["shape"].tolist()
    if kind == b"csc":
        return sparse_matrix(parts["data"], parts["indices"], parts["indptr"], (rows, columns))
    if kind == b"csr":  # compressed by rows: the transposed matrix, compressed by columns
        return sparse_matrix(parts["data"], parts["indices"], parts["indptr"], (columns, rows)).T
    raise ValueError(f"a sparse matrix of format {kind.decode(errors='replace')}, expected csr or csc")


def _labels(path: Path, archive: zipfile.ZipFile, members: list[str], name: str) -> tuple[Any, ...]:
    if name not in members:
        return ()
    values = _whole(path, archive, f"{name}.npy").ravel()
    if values.dtype.kind == "S":
        return tuple(value.decode(errors="replace") for value in values)
    return tuple(str(value) if name == NAMES else int(value) for value in values)
