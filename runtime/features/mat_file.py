"""Features in MATLAB's .mat: versions 5 to 7, 7.3 (which is HDF5) through h5py, 4 through SciPy; sparse matrices too.

Arrays have the axes that MATLAB shows; in version 7.3 these are those of HDF5 in reverse, whoever wrote the file. The
sparse arrays of bdpy are groups of version 7.3. Names are in "names", or in "ids", as closed-loop experiments write
them. Version 5 is written, through SciPy, whose variables are below 2 GiB.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from deepsim.runtime.errors import UsageError, missing_extra
from deepsim.runtime.features import bdpy_sparse, hdf5_file, mat5
from deepsim.runtime.features.records import INDEX, NAMES, FeatureFile, Key, Labels, Rows, choose, text_of
from deepsim.runtime.features.sparse import from_matrix, sparse_matrix
from deepsim.runtime.files import replacing

LIMIT = 1 << 31  # bytes of one variable, version 7 and earlier (MATLAB's documentation of MAT-file versions)
_IDS = "ids"  # names of codes in files of closed-loop experiments
_AT_ONCE = 1 << 20  # bytes of a variable that is read when it is found, such as a single code


def read(path: Path, key: Key) -> FeatureFile:
    """Read a variable; those of version 7.3 when they are asked for."""
    with path.open("rb") as file:
        start, four = file.read(520), b"\0"
    if hdf5_file.is_hdf5(start):
        return _read_73(path, key)
    if four in start[:4]:  # no text at the beginning: version 4
        return _read_4(path, key)
    variables = {variable.name: variable for variable in mat5.list_variables(path)}
    numbers, others = _sorted({name: variable.kind for name, variable in variables.items()})
    chosen = variables[choose(path, numbers, key, others)]
    names = next((variables[name] for name in (NAMES, _IDS) if name in variables), None)
    index = variables.get(INDEX)
    labels = Labels(
        mat5.read_texts(path, names) if names and names.kind in ("cell", "char") else (),
        _index(mat5.read_numbers(path, index) if index and index.kind in mat5.NUMBERS else None),
    )
    if chosen.kind not in (*mat5.NUMBERS, "sparse"):
        raise ValueError(f"{chosen.name} is a {chosen.kind}, no numbers")
    stored = mat5.stored_numbers(path, chosen)
    found = stored.file() if stored else _from_array(path, mat5.read_numbers(path, chosen), labels)
    return found.labelled(labels, chosen.name)


def write(file: BinaryIO, rows: Rows, labels: Labels) -> None:
    """Write three variables, the features at once."""
    variables: dict[str, Any] = {rows.key: rows.whole()}
    if labels.names:
        variables[NAMES] = np.array([text_of(name) for name in labels.names], dtype=object)
    if labels.index:
        variables[INDEX] = np.array(labels.index, np.int64)
    _scipy_io().savemat(file, variables)


def write_mat5(path: Path, variables: dict[str, Any]) -> None:
    """Write variables in version 5; the file is old or new, never torn. Raises DeviceError without SciPy."""
    io = _scipy_io()
    with replacing(path) as file:
        io.savemat(file, variables)


def check(path: Path, shape: tuple[int, ...] | None) -> None:
    """Raise DeviceError when SciPy is not installed, UsageError for features that the format cannot hold."""
    _scipy_io()
    size = 4 * math.prod(shape or (0,))
    if size >= LIMIT:
        raise UsageError(
            f"{path}: {size:,} bytes of features, expected less than {LIMIT:,} in .mat. Choose .h5, .npy or .npz."
        )


def _from_array(path: Path, values: Any, labels: Labels) -> FeatureFile:
    return (from_matrix if hasattr(values, "toarray") else FeatureFile.of)(path, values, labels)


def _read_4(path: Path, key: Key) -> FeatureFile:
    io = _scipy_io()
    try:
        variables = io.loadmat(path)
    except io.matlab.MatReadError as error:
        raise ValueError(str(error)) from error
    arrays = [name for name in variables if not name.startswith("__")]
    chosen = choose(path, arrays, key)
    return _from_array(path, variables[chosen], Labels()).labelled(None, chosen)


def _read_73(path: Path, key: Key) -> FeatureFile:
    with hdf5_file.open_file(path) as file:
        h5py = hdf5_file.module()
        classes = {name: _class_73(item, h5py) for name, item in file.items() if not name.startswith("#")}
        numbers, others = _sorted(classes)
        name = choose(path, numbers, key, others)
        chosen, labels = (
            file[name],
            Labels(_names_73(file), _index(hdf5_file.whole(file[INDEX]) if INDEX in file else None)),
        )
        if not isinstance(chosen, h5py.Group) and 0 < chosen.size * chosen.dtype.itemsize <= _AT_ONCE:
            found = FeatureFile.of(path, np.asarray(chosen[()]).T)  # to open it again would take longer
        elif not isinstance(chosen, h5py.Group):
            found = hdf5_file.lazy(path, chosen.name, chosen.shape, chosen.dtype, reverse=True)
        elif bdpy_sparse.MARK in chosen:
            found = bdpy_sparse.BdpySparse.read(chosen).file(path)
        else:
            found = _from_array(path, _sparse_73(chosen), labels)
        return found.labelled(labels, name)


def _sorted(classes: dict[str, str]) -> tuple[list[str], list[str]]:
    """Return the names of numeric variables, and of all others, without those that label rows."""
    own = [name for name in classes if name and not name.startswith("__") and name not in (NAMES, INDEX)]
    numbers = [name for name in own if classes[name] in (*mat5.NUMBERS, "sparse", "logical")]
    return numbers, [name for name in own if name not in numbers]


def _class_73(item: Any, h5py: Any) -> str:
    """Return a variable's class in MATLAB; datasets that MATLAB did not write count by their type."""
    if "MATLAB_sparse" in item.attrs or (isinstance(item, h5py.Group) and bdpy_sparse.MARK in item):
        return "sparse"
    if isinstance(item, h5py.Group):
        return "struct"
    if "MATLAB_empty" in item.attrs:
        return "empty"
    stored = item.attrs.get("MATLAB_class", b"double" if item.dtype.kind in "fiu" else b"cell")
    return stored.decode() if isinstance(stored, bytes) else str(stored)


def _sparse_73(group: Any) -> Any:
    """Return a sparse matrix of version 7.3: columns compressed, its count of rows an attribute."""
    ends = hdf5_file.whole(group["jc"])
    values = hdf5_file.whole(group["data"]) if "data" in group else np.empty(0)  # absent where all are 0
    rows = hdf5_file.whole(group["ir"]) if "ir" in group else np.empty(0, np.int64)
    return sparse_matrix(values, rows, ends, (int(group.attrs["MATLAB_sparse"]), len(ends) - 1))


def _names_73(file: Any) -> tuple[str, ...]:
    """Return the texts of a cell array: references to arrays of UTF-16 units."""
    stored = next((file[name] for name in (NAMES, _IDS) if name in file), None)
    if stored is None or getattr(stored, "dtype", np.dtype("f4")).kind != "O":
        return ()
    texts = [file[reference] for reference in hdf5_file.whole(stored).ravel(order="F")]
    units = (np.empty(0) if "MATLAB_empty" in text.attrs else hdf5_file.whole(text).ravel() for text in texts)
    return tuple(unit.astype("<u2").tobytes().decode("utf-16-le", "replace") for unit in units)


def _index(array: NDArray[Any] | None) -> tuple[int, ...]:
    return () if array is None else tuple(int(value) for value in array.ravel())


def _scipy_io() -> Any:
    try:
        import scipy.io.matlab
    except ImportError as error:
        raise missing_extra("scipy", "features") from error
    return scipy.io
