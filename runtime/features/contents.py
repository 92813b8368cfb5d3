"""Which arrays a feature file of several arrays holds."""

from __future__ import annotations

import zipfile
from pathlib import Path

from deepsim.runtime.errors import UsageError
from deepsim.runtime.features import hdf5_file, mat5
from deepsim.runtime.features.records import INDEX, NAMES, read_errors

SEVERAL = (".npz", ".h5", ".hdf5", ".mat")  # formats of several arrays
_LABELS = (NAMES, INDEX, "ids")


def arrays_in(path: Path) -> list[str]:
    """List the names of a file's arrays, sorted, without those that label rows.

    Raises DataError when it is missing or damaged, UsageError for a format of one array, which has no name.
    """
    suffix = path.suffix.lower()
    with read_errors(path):
        if suffix not in SEVERAL:
            raise UsageError(f"{path}: one array, whose layer it does not name. Name it with --layers.")
        found = _of_archive(path) if suffix == ".npz" else _variables(path)
    return sorted(name for name in found if name not in _LABELS and not name.startswith(("#", "__")))


def _of_archive(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        return [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]


def _variables(path: Path) -> list[str]:
    if path.suffix.lower() == ".mat":
        with path.open("rb") as file:
            start = file.read(520)
        if not hdf5_file.is_hdf5(start):
            return [variable.name for variable in mat5.list_variables(path)]
    with hdf5_file.open_file(path) as opened:
        return list(opened)
