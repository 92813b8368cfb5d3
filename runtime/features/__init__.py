"""Read and write features as .npy, .npz, .h5, .mat or .csv: one row per photograph, float32.

======  ======================================================  ==============================
suffix  holds                                                   names and indices
======  ======================================================  ==============================
.npy    one array                                               FILE.names.csv beside it
.npz    "features"                                              "names", "index"
.h5     dataset "features" (also .hdf5)                         "names", "index"
.mat    variable "features", below 2 GiB (version 5)            "names" (a cell array), "index"
.csv    one line per photograph, flattened in (C, H, W) order   FILE.names.csv beside it
======  ======================================================  ==============================

A photograph's index is its place, from 0, in the list that was encoded; photographs that were left out leave gaps.
Nothing is ever unpickled. MATLAB's version 7.3 files and sparse matrices are read too.

One module per format has ``read(path, key)`` and ``write(file, rows, labels)``; :mod:`.layout` knows the order of axes.
"""

from __future__ import annotations

import os
import stat
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from deepsim.runtime.errors import DataError, DtypeError, ShapeError, UsageError
from deepsim.runtime.features import names_file
from deepsim.runtime.features.layout import Layout, layout_of
from deepsim.runtime.features.records import KEY, NAMES, FeatureFile, Key, Labels, Preferred, Rows, read_errors
from deepsim.runtime.files import replacing

__all__ = [
    "KEY",
    "NAMES",
    "SUFFIXES",
    "FeatureFile",
    "Key",
    "Labels",
    "Layout",
    "Preferred",
    "Rows",
    "check_writable",
    "fit_rows",
    "layout_of",
    "output_files",
    "read_features",
    "write_features",
]

_FORMATS = {
    ".npy": "npy_file",
    ".npz": "npz_file",
    ".h5": "hdf5_file",
    ".hdf5": "hdf5_file",
    ".mat": "mat_file",
    ".csv": "csv_file",
}
SUFFIXES = tuple(_FORMATS)
_WITHOUT_NAMES = (".npy", ".csv")  # their names lie in a file beside them


class _Format(Protocol):
    """What every module of a format has."""

    def read(self, path: Path, key: Key) -> FeatureFile:
        """Open a file; its rows are read when they are asked for."""
        ...

    def write(self, file: object, rows: Rows, labels: Labels) -> None:
        """Write rows, and their labels where the format has a place for them, block by block."""
        ...

    def check(self, path: Path, shape: tuple[int, ...] | None) -> None:
        """Raise what :meth:`write` would about features of ``shape`` (None: not known yet)."""
        ...


def read_features(path: str | os.PathLike[str], key: Key = None) -> FeatureFile:
    """Open a feature file. ``key`` names the array, or which to prefer of several; else it must hold just one.

    Raises DataError when the file is missing, damaged or of another format, when ``key`` is not in it or is needed;
    DtypeError and ShapeError unless the array is real numbers of rank 1 or more; DeviceError naming the extra for
    .h5 and .mat.

    >>> write_features("codes.npz", np.ones((2, 3), np.float32), Labels(("a.jpg", "b.jpg"), (0, 1)))
    >>> found = read_features("codes.npz")
    >>> found.shape, found.names
    ((2, 3), ('a.jpg', 'b.jpg'))
    """
    file = Path(path)
    suffix = _suffix(file)
    with read_errors(file):
        if not stat.S_ISREG(file.stat().st_mode):
            raise DataError(f"{file}: not a regular file, expected features.")
        found = _format(suffix).read(file, key)
        labels = names_file.read(file) if suffix in _WITHOUT_NAMES else None
    if found.dtype.kind not in "fiu":
        raise DtypeError(f"{file}: {found.dtype}, expected real numbers. Choose another array with --key.")
    if len(found.shape) < 1:
        raise ShapeError(f"{file}: a single number, expected features. Choose another array with --key.")
    return found if labels is None else found.labelled(labels)


def fit_rows(
    values: NDArray[np.generic], shape: tuple[int, ...], subject: str, axes: str | None = None
) -> NDArray[np.generic]:
    """Return features as (N, *shape) where :func:`layout_of` finds that they are that. Raises what it raises.

    >>> fit_rows(np.zeros((3, 13 * 13 * 256)), (256, 13, 13), "codes").shape
    (3, 256, 13, 13)
    >>> fit_rows(np.zeros((4096, 3)), (4096,), "codes", "CN").shape
    (3, 4096)
    """
    found = layout_of(values.shape, shape, subject, axes)
    return found.rows(values)


def check_writable(path: str | os.PathLike[str], shape: tuple[int, ...] | None = None) -> None:
    """Raise what :func:`write_features` would about the suffix, missing packages and the size, before any work.

    ``shape`` is that of all features, (N, ...); None where it is not known yet.
    """
    file = Path(path)
    _format(_suffix(file)).check(file, shape)


def output_files(path: str | os.PathLike[str]) -> list[Path]:
    """List the files that :func:`write_features` writes: the features, and the file of names where there is one.

    >>> [file.name for file in output_files("codes.npy")]
    ['codes.npy', 'codes.npy.names.csv']
    """
    file = Path(path)
    return [file, names_file.beside(file)] if _suffix(file) in _WITHOUT_NAMES else [file]


def write_features(
    path: str | os.PathLike[str], values: NDArray[np.float32] | Rows, labels: Labels | None = None
) -> None:
    """Write features (N, ...), and the photographs' names and indices where ``labels`` has them; each file atomically.

    ``values`` that are :class:`Rows` are written block by block (.mat: at once). Raises UsageError on an unknown suffix
    and for what the format cannot hold, DeviceError on a missing extra or a full disk.

    >>> write_features("codes.npy", np.zeros((2, 4096), np.float32))
    >>> read_features("codes.npy").values.shape
    (2, 4096)
    """
    file = Path(path)
    rows = values if isinstance(values, Rows) else Rows.of(values)
    check_writable(file, rows.shape)
    known = labels or Labels()
    writer, beside = _format(_suffix(file)), names_file.beside(file)
    if _suffix(file) not in _WITHOUT_NAMES or not known.names:
        with replacing(file) as staging:
            writer.write(staging, rows, known)
        if _suffix(file) in _WITHOUT_NAMES:
            beside.unlink(missing_ok=True)  # names of what was replaced
        return
    with replacing(beside) as names, replacing(file) as staging:  # both are whole before either gets its name
        writer.write(staging, rows, known)
        staging.flush()
        names_file.write(names, known, names_file.fingerprint(staging))
        names.flush()


def _suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise UsageError(f"{path}: features in {suffix or 'no format'}, expected one of {' '.join(SUFFIXES)}.")
    return suffix


def _format(suffix: str) -> _Format:
    return cast(_Format, import_module(f"{__name__}.{_FORMATS[suffix]}"))
