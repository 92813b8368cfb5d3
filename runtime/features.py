"""Read and write features as .npy, .npz, .h5, .mat or .csv: one row per photograph, float32.

======  ======================================================  =====
suffix  holds                                                   names
======  ======================================================  =====
.npy    one array                                               no
.npz    "features", and "names" as text                         yes
.h5     dataset "features", and "names" (also .hdf5)            yes
.mat    variable "features", and "names" as a cell array        yes
.csv    one line per photograph, flattened in (C, H, W) order   no
======  ======================================================  =====

Nothing is ever unpickled. MATLAB's version 7.3 files are read too, with their axes in MATLAB's order.
"""

from __future__ import annotations

import io
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepsim.runtime.errors import DataError, DtypeError, OutOfMemory, ShapeError, UsageError, missing_extra
from deepsim.runtime.files import write_atomic

SUFFIXES = (".npy", ".npz", ".h5", ".hdf5", ".mat", ".csv")
KEY, NAMES = "features", "names"
_DAMAGE = (
    *(OSError, ValueError, TypeError, LookupError, ArithmeticError, EOFError, RuntimeError, SyntaxError),
    *(struct.error, zlib.error, zipfile.BadZipFile, NotImplementedError, AttributeError),
)


@dataclass(frozen=True)
class FeatureFile:
    """Features of a file, one row per photograph in the file's own number type, and the photographs' names if kept."""

    values: NDArray[Any]
    names: tuple[str, ...] | None = None


def read_features(path: str | os.PathLike[str], key: str | None = None) -> FeatureFile:
    """Read a feature file. ``key`` names the array; without it the file must hold just one (besides the names).

    Raises DataError when the file is missing, damaged or of another format, when ``key`` is not in it or is needed;
    DtypeError and ShapeError unless the array is real numbers of rank 2 or more; DeviceError naming the extra for
    .h5 and .mat.
    """
    file = Path(path)
    reader = _READERS[_suffix(file)]
    with _read_errors(file):
        if not stat.S_ISREG(file.stat().st_mode):
            raise DataError(f"{file}: not a regular file, expected features. Choose another path.")
        found = reader(file, key)
    if found.values.dtype.kind not in "fiu":
        raise DtypeError(f"{file}: {found.values.dtype}, expected real numbers. Choose another array with --key.")
    if found.values.ndim < 2:
        raise ShapeError(
            f"{file}: shape {found.values.shape}, expected one row per photograph. Reshape it to (N, ...)."
        )
    return found


def fit_rows(values: NDArray[Any], shape: tuple[int, ...], subject: str) -> NDArray[Any]:
    """Return features as (N, *shape) where they are that already, or flattened rows of it.

    Raises ShapeError, with a hint when the array looks transposed (as MATLAB users store it).
    """
    size = int(np.prod(shape))
    if values.shape[1:] == shape:
        return values
    if values.ndim == 2 and values.shape[1] == size:
        return values.reshape(-1, *shape)
    expected = f"(N, {', '.join(map(str, shape))})"
    transposed = values.shape[0] == size or values.shape[:-1] in (shape, shape[::-1])
    hint = "It looks transposed, photographs last: pass --transpose." if transposed else "Use the layer of this bundle."
    raise ShapeError(f"{subject}: features of shape {values.shape}, expected {expected}. {hint}")


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raise what :func:`write_features` would raise about the suffix and missing packages, before any work is done."""
    suffix = _suffix(Path(path))
    if suffix in (".h5", ".hdf5"):
        _h5py()
    if suffix == ".mat":
        _scipy_io()


def write_features(path: str | os.PathLike[str], values: NDArray[np.float32], names: Sequence[str] = ()) -> None:
    """Write features (N, ...) and, where the format has a place for them, the photographs' names; atomically.

    Raises UsageError on an unknown suffix, DeviceError on a missing extra or a full disk.
    """
    file = Path(path)
    write_atomic(file, _WRITERS[_suffix(file)](values, [str(name) for name in names]))


def _suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise UsageError(
            f"{path}: features in {suffix or 'no format'}, expected one of {' '.join(SUFFIXES)}. Rename it."
        )
    return suffix


@contextmanager
def _read_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file, expected features. Check the path.") from error
    except MemoryError as error:
        raise OutOfMemory(f"{path}: not enough memory to read it. Split the file.") from error
    except _DAMAGE as error:
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise DataError(
            f"{path}: unreadable ({reason[:300]}), expected {path.suffix} features. Write it again."
        ) from error


def _choose(path: Path, arrays: Sequence[str], key: str | None) -> str:
    """Return the name of the array to read, of those that a file holds."""
    listed = ", ".join(arrays) or "none"
    if key is not None:
        if key not in arrays:
            raise DataError(f"{path}: no array {key!r}, it holds {listed}. Choose one of these with --key.")
        return key
    if len(arrays) != 1:
        raise DataError(f"{path}: {len(arrays)} arrays ({listed}), expected one. Choose one with --key.")
    return arrays[0]


def _no_key(path: Path, key: str | None) -> None:
    if key is not None:
        raise UsageError(f"{path}: --key {key}, but {path.suffix} holds one array without a name. Leave --key out.")


def _read_npy(path: Path, key: str | None) -> FeatureFile:
    _no_key(path, key)
    mapped = np.load(path, mmap_mode="r", allow_pickle=False)  # a header cannot claim more than the file holds
    return FeatureFile(np.array(mapped))


def _read_npz(path: Path, key: str | None) -> FeatureFile:
    with np.load(path, allow_pickle=False) as archive:
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise DataError(f"{path}: a single array, expected an archive of arrays. Rename it to .npy.")
        values = archive[_choose(path, [name for name in archive.files if name != NAMES], key)]
        return FeatureFile(values, _names(archive[NAMES]) if NAMES in archive.files else None)


def _read_h5(path: Path, key: str | None) -> FeatureFile:
    h5py = _h5py()
    with h5py.File(path, "r") as file:
        datasets: dict[str, Any] = {}
        file.visititems(lambda name, item: datasets.update({name: item}) if isinstance(item, h5py.Dataset) else None)
        names = datasets.pop(NAMES, None)
        values = np.asarray(datasets[_choose(path, list(datasets), key)])
        return FeatureFile(values, None if names is None else _names(np.asarray(names)))


def _read_mat(path: Path, key: str | None) -> FeatureFile:
    scipy_io = _scipy_io()
    try:
        variables = scipy_io.loadmat(path)
    except NotImplementedError:  # version 7.3 is HDF5, with MATLAB's axes reversed
        return _read_mat73(path, key)
    except scipy_io.matlab.MatReadError as error:
        raise ValueError(str(error)) from error
    arrays = [name for name in variables if not name.startswith("__") and name != NAMES]
    names = variables.get(NAMES)
    return FeatureFile(variables[_choose(path, arrays, key)], None if names is None else _names(names))


def _read_mat73(path: Path, key: str | None) -> FeatureFile:
    h5py = _h5py()
    with h5py.File(path, "r") as file:
        arrays = [name for name, item in file.items() if isinstance(item, h5py.Dataset) and name != NAMES]
        return FeatureFile(np.asarray(file[_choose(path, arrays, key)]).T)


def _read_csv(path: Path, key: str | None) -> FeatureFile:
    _no_key(path, key)
    text = path.read_text(encoding="utf-8")
    if not text.strip():
        raise DataError(f"{path}: empty, expected a line of numbers per photograph. Write it again.")
    return FeatureFile(np.loadtxt(io.StringIO(text), dtype=np.float32, delimiter=",", ndmin=2, comments=None))


def _names(array: NDArray[Any]) -> tuple[str, ...]:
    """Return names stored as text, bytes, or a cell array of texts."""
    return tuple(_text(entry) for entry in array.ravel())


def _text(entry: Any) -> str:
    while isinstance(entry, np.ndarray):
        entry = entry.ravel()[0] if entry.size else ""
    return entry.decode(errors="replace") if isinstance(entry, bytes) else str(entry)


def _write_npy(values: NDArray[np.float32], names: list[str]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=False)
    return buffer.getvalue()


def _write_npz(values: NDArray[np.float32], names: list[str]) -> bytes:
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {KEY: values, **({NAMES: np.array(names)} if names else {})}
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def _write_h5(values: NDArray[np.float32], names: list[str]) -> bytes:
    h5py, buffer = _h5py(), io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file[KEY] = values
        if names:
            file.create_dataset(NAMES, data=names, dtype=h5py.string_dtype())
    return buffer.getvalue()


def _write_mat(values: NDArray[np.float32], names: list[str]) -> bytes:
    buffer = io.BytesIO()
    cells = {NAMES: np.array(names, dtype=object)} if names else {}
    _scipy_io().savemat(buffer, {KEY: values, **cells}, do_compression=True)
    return buffer.getvalue()


def _write_csv(values: NDArray[np.float32], names: list[str]) -> bytes:
    buffer = io.BytesIO()
    np.savetxt(buffer, values.reshape(len(values), -1), fmt="%.9g", delimiter=",")  # 9 digits: exact for float32
    return buffer.getvalue()


def _h5py() -> Any:
    try:
        import h5py
    except ImportError as error:
        raise missing_extra("h5py", "features") from error
    return h5py


def _scipy_io() -> Any:
    try:
        import scipy.io.matlab
    except ImportError as error:
        raise missing_extra("scipy", "features") from error
    return scipy.io


_READERS: dict[str, Callable[[Path, str | None], FeatureFile]] = {
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".h5": _read_h5,
    ".hdf5": _read_h5,
    ".mat": _read_mat,
    ".csv": _read_csv,
}
_WRITERS: dict[str, Callable[[NDArray[np.float32], list[str]], bytes]] = {
    ".npy": _write_npy,
    ".npz": _write_npz,
    ".h5": _write_h5,
    ".hdf5": _write_h5,
    ".mat": _write_mat,
    ".csv": _write_csv,
}
