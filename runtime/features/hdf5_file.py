"""Features in HDF5, .h5 or .hdf5: any dataset; ours are "features", "names" and "index".

A dataset that MATLAB or a writer for it made (attribute ``MATLAB_class``) has its axes in reverse, as in .mat files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from deepsim.runtime.errors import missing_extra
from deepsim.runtime.features.records import INDEX, NAMES, FeatureFile, Key, Labels, Rows, choose, text_of

MAGIC = b"\x89HDF\r\n\x1a\n"
USER_BLOCK = 512  # bytes that MATLAB puts before it
_MOST, _TIMES = 16 << 20, 8  # bytes of a dataset that is read at once, and how much more than its file it may have


def read(path: Path, key: Key) -> FeatureFile:
    """Open a file; entries along any axis are read when they are asked for."""
    with open_file(path) as file:
        datasets: dict[str, Any] = {}
        h5py = module()
        file.visititems(lambda name, item: datasets.update({name: item}) if isinstance(item, h5py.Dataset) else None)
        numbers = [name for name, item in datasets.items() if item.dtype.kind in "fiu" and name not in (NAMES, INDEX)]
        others = [name for name in datasets if name not in (*numbers, NAMES, INDEX)]
        name = choose(path, numbers, key, others)
        chosen = datasets[name]
        if chosen.shape is None:
            raise ValueError(f"{chosen.name} holds nothing")
        labels, reverse = Labels(_names(datasets), _index(datasets)), "MATLAB_class" in chosen.attrs
        return lazy(path, chosen.name, chosen.shape, chosen.dtype, reverse).labelled(labels, name)


def lazy(path: Path, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], reverse: bool) -> FeatureFile:
    """Return a dataset that is read when it is asked for, with ``reverse`` its axes in MATLAB's order."""
    seen = shape[::-1] if reverse else shape

    def cut(axis: int, start: int, stop: int) -> NDArray[Any]:
        place = len(shape) - 1 - axis if reverse else axis
        with open_file(path) as file:
            found = np.asarray(file[name][(slice(None),) * place + (slice(start, stop),)])
        return found.T if reverse else found

    return FeatureFile(path, seen, dtype, cut)


def write(file: BinaryIO, rows: Rows, labels: Labels) -> None:
    """Write three datasets, the features block by block."""
    h5py = module()
    with h5py.File(file, "w") as target:
        values, start = target.create_dataset(rows.key, rows.shape, np.float32), 0
        for block in rows.blocks():
            values[start : start + len(block)] = block
            start += len(block)
        if labels.names:
            target.create_dataset(NAMES, data=[text_of(name) for name in labels.names], dtype=h5py.string_dtype())
        if labels.index:
            target.create_dataset(INDEX, data=np.array(labels.index, np.int64))


def check(path: Path, shape: tuple[int, ...] | None) -> None:
    """Raise DeviceError when h5py is not installed."""
    module()


def is_hdf5(start: bytes) -> bool:
    """Tell from a file's first 520 bytes whether it is HDF5, also with MATLAB's block of 512 bytes before it."""
    return MAGIC in (start[: len(MAGIC)], start[USER_BLOCK : USER_BLOCK + len(MAGIC)])


def open_file(path: Path) -> Any:
    """Open a file for reading, without a lock: not every file system has locks, and we only read."""
    return module().File(path, "r", locking=False)


def whole(dataset: Any) -> NDArray[Any]:
    """Return all of a small dataset, such as names. Raises ValueError where it claims far more than the file holds."""
    size = int(np.prod(dataset.shape or (0,), dtype=np.float64)) * dataset.dtype.itemsize
    if size > _MOST + _TIMES * dataset.file.id.get_filesize():
        raise ValueError(f"{dataset.name} claims {size:,} bytes")
    return np.asarray(dataset[()])


def module(extra: str = "features") -> Any:
    """Return h5py. Raises DeviceError naming the extra that brings it."""
    try:
        import h5py
    except ImportError as error:
        raise missing_extra("h5py", extra) from error
    return h5py


def _names(datasets: dict[str, Any]) -> tuple[str, ...]:
    if NAMES not in datasets:
        return ()
    entries = whole(datasets[NAMES]).ravel()
    return tuple(entry.decode(errors="replace") if isinstance(entry, bytes) else str(entry) for entry in entries)


def _index(datasets: dict[str, Any]) -> tuple[int, ...]:
    return tuple(int(value) for value in whole(datasets[INDEX]).ravel()) if INDEX in datasets else ()
