"""Read .caffemodel.h5 files: Caffe's snapshots in HDF5, which hold weights by layer and say nothing of the layers."""

from __future__ import annotations

import io
import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from deepsim.export.published.caffe_model import MOST_LAYERS, Blob, CaffeModel
from deepsim.runtime.errors import CheckpointError
from deepsim.runtime.features.hdf5_file import module

_CONSTANT = 64 << 20  # bytes beside the file and its weights, for the HDF5 library


def read_hdf5(data: bytes, file: str) -> CaffeModel:
    """Read the bytes of a .caffemodel.h5; ``file`` is its name for messages.

    The group "data" has a group for each layer, and in it the datasets "0", "1" ... Raises CheckpointError for a file
    that is damaged or is none, DeviceError when h5py is not installed.
    """
    h5py = module("import")
    try:
        with _limited_memory(2 * len(data) + _CONSTANT), h5py.File(io.BytesIO(data), "r") as opened:
            blobs = _Reader(h5py, file, len(data)).read(opened)
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError, MemoryError) as error:
        reason = " ".join(str(error).split())[:200] or "it asks for more memory than it can need"
        raise CheckpointError(f"{file}: no readable HDF5 ({reason}), expected a Caffe snapshot.") from error
    if not any(blobs.values()):
        raise CheckpointError(f"{file}: HDF5 without weights in a group data, expected a Caffe snapshot.")
    return CaffeModel("Caffe model (HDF5)", blobs, (), {})


@contextmanager
def _limited_memory(most: int) -> Iterator[None]:
    """Let this process take at most so many more bytes for a while, where Linux tells what it has.

    The HDF5 library takes all memory for some damaged headers, whose parts name each other in a circle.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    status = Path("/proc/self/status")
    found = re.search(r"VmData:\s*(\d+) kB", status.read_text()) if status.exists() else None
    limit = int(found[1]) * 1024 + most if found else soft
    if soft != resource.RLIM_INFINITY:
        limit = min(soft, limit)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


class _Reader:
    """Reads the datasets of one file; what they claim to hold may not exceed what is there."""

    def __init__(self, h5py: Any, file: str, size: int) -> None:
        self.h5py, self.file, self.left = h5py, file, size
        self.headers: set[int] = set()  # where the file describes its objects
        self.arrays: list[tuple[int, int, str]] = []  # where its arrays begin and end

    def read(self, opened: Any) -> dict[str, tuple[Blob, ...]]:
        """Return the blobs by layer; a name with a slash is a group within a group."""
        top = opened.get("data", getlink=True)
        if not isinstance(top, self.h5py.HardLink) or not isinstance(opened["data"], self.h5py.Group):
            raise ValueError("no group data")
        found: dict[str, tuple[Blob, ...]] = {}
        pending, seen = [("", opened["data"])], set()
        while pending:
            name, group = pending.pop()
            place = self.h5py.h5o.get_info(group.id).addr
            if place in seen:
                raise ValueError(f"group {name} is there twice")
            seen.add(place)
            children = self._names(group)
            numbered = sorted((child for child in children if child.isdecimal()), key=int)
            datasets = [child for child in numbered if isinstance(self._child(group, child), self.h5py.Dataset)]
            if datasets:
                found[name] = self._blobs(name, group, datasets)
            for child in children:
                if child not in datasets and isinstance(self._child(group, child), self.h5py.Group):
                    pending.append((f"{name}/{child}".lstrip("/"), group[child]))
            if len(seen) + len(pending) > MOST_LAYERS:
                raise ValueError(f"more than {MOST_LAYERS} layers")
        self._check_places()
        return found

    def _check_places(self) -> None:
        """Refuse arrays that lie on each other or on a header: HDF5 of Caffe's age has no checksum that would tell."""
        ordered = sorted(self.arrays)
        for (_, end, name), (begin, _, _) in pairwise(ordered):
            if begin < end:
                raise ValueError(f"{name} lies on another array")
        for begin, end, name in ordered:
            if any(begin <= header < end for header in self.headers):
                raise ValueError(f"{name} lies on a header")

    def _names(self, group: Any) -> list[str]:
        names = list(group)
        if not all(isinstance(name, str) for name in names):  # h5py returns bytes for what is no UTF-8
            raise ValueError("a name that is no text")
        return names

    def _child(self, group: Any, name: str) -> Any:
        if not isinstance(group.get(name, getlink=True), self.h5py.HardLink):
            raise ValueError(f"{name!r} is a link to another place")
        child = group[name]
        self.headers.add(self.h5py.h5o.get_info(child.id).addr)
        return child

    def _blobs(self, name: str, group: Any, datasets: list[str]) -> tuple[Blob, ...]:
        if datasets != [str(index) for index in range(len(datasets))]:
            raise ValueError(f"layer {name} has blobs {', '.join(datasets)}, not 0, 1, ...")
        return tuple(self._blob(f"layer {name}, blob {child}", group[child]) for child in datasets)

    def _blob(self, name: str, dataset: Any) -> Blob:
        if dataset.shape is None or dataset.dtype.kind != "f" or dataset.external or dataset.is_virtual:
            raise ValueError(f"{name} is no array of floating-point numbers in this file")
        kind = dataset.id.get_type()
        if not any(kind.equal(known) for known in (self.h5py.h5t.IEEE_F32LE, self.h5py.h5t.IEEE_F64LE)):
            raise ValueError(f"{name} has other numbers than Caffe's")
        stored, begin = dataset.id.get_storage_size(), dataset.id.get_offset()
        if begin is not None and stored:
            self.arrays.append((begin, begin + stored, name))
        self.left -= dataset.size * dataset.dtype.itemsize
        if self.left < 0 or (stored == 0 and dataset.size):
            raise ValueError(f"{name} claims {dataset.size} numbers, more than the file holds")
        with np.errstate(over="ignore"):
            return Blob(np.asarray(dataset[()]).astype(np.float32, copy=False))
