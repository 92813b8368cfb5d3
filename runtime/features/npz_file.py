"""Features in NumPy's .npz: an archive of arrays; ours are "features", "names" and "index"."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from deepsim.runtime.errors import DataError
from deepsim.runtime.features import npy_file
from deepsim.runtime.features.records import INDEX, NAMES, FeatureFile, Key, Labels, Rows, choose, text_of
from deepsim.runtime.features.sparse import from_matrix, sparse_matrix

_SPARSE = {"data", "indices", "indptr", "format", "shape"}  # what scipy.sparse.save_npz writes
_LOCAL_HEADER = 30  # bytes before a member's name; its last two fields are the lengths of name and extra field


def read(path: Path, key: Key) -> FeatureFile:
    """Open an archive; an array that is not compressed is read when it is asked for."""
    if not zipfile.is_zipfile(path):
        raise DataError(f"{path}: no archive, expected arrays as numpy.savez writes them. A single array is .npy.")
    with zipfile.ZipFile(path) as archive:
        members = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
        if set(members) >= _SPARSE and key is None:
            return from_matrix(path, _sparse(archive))
        labels = Labels(*(_labels(archive, members, name) for name in (NAMES, INDEX)))
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
    with archive.open(record) as member:
        if record.compress_type != zipfile.ZIP_STORED:
            return FeatureFile.of(path, npy.read_array(member, allow_pickle=False))
        while member.read(1 << 20):  # compares the checksum
            pass
    with path.open("rb") as file:
        file.seek(record.header_offset)
        lengths = struct.unpack("<HH", file.read(_LOCAL_HEADER)[-4:])
        begin = record.header_offset + _LOCAL_HEADER + sum(lengths)
        return npy_file.lazy(path, file, begin, begin + record.file_size)


def _sparse(archive: zipfile.ZipFile) -> Any:
    """Return what scipy.sparse.save_npz wrote as a matrix compressed by columns. Raises ValueError."""
    parts = {}
    for name in _SPARSE:
        with archive.open(f"{name}.npy") as member:
            parts[name] = npy.read_array(member, allow_pickle=False)
    kind, (rows, columns) = bytes(parts["format"].item()), parts["shape"].tolist()
    if kind == b"csc":
        return sparse_matrix(parts["data"], parts["indices"], parts["indptr"], (rows, columns))
    if kind == b"csr":  # compressed by rows: the transposed matrix, compressed by columns
        return sparse_matrix(parts["data"], parts["indices"], parts["indptr"], (columns, rows)).T
    raise ValueError(f"a sparse matrix of format {kind.decode(errors='replace')}, expected csr or csc")


def _labels(archive: zipfile.ZipFile, members: list[str], name: str) -> tuple[Any, ...]:
    if name not in members:
        return ()
    with archive.open(f"{name}.npy") as member:
        values = npy.read_array(member, allow_pickle=False).ravel()
    if values.dtype.kind == "S":
        return tuple(value.decode(errors="replace") for value in values)
    return tuple(str(value) if name == NAMES else int(value) for value in values)
