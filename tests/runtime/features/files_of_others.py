"""Feature files as other programs write them: bdpy (checked once against bdpy 0.26 itself), XDream, the Ponce lab."""

import h5py
import numpy as np
import scipy.io

MARK = "__bdpy_sparse_arrray"


def write_bdpy(path, array, key="feat", python=True):
    """Write as ``bdpy.dataform.sparse.save_array`` and ``save_feature`` do: version 7.3, axes reversed, gzip."""
    path.parent.mkdir(parents=True, exist_ok=True)
    packed = {"compression": "gzip"} if array.nbytes >= 16 << 10 else {}
    with h5py.File(path, "w", userblock_size=512) as file:
        dataset = file.create_dataset(key, data=np.atleast_2d(array).T, **packed)
        if python:
            dataset.attrs["MATLAB_class"] = np.bytes_("single")
            dataset.attrs["Python.Shape"] = np.array(array.shape, np.uint64)
    _mark(path)
    return path


def write_bdpy_sparse(path, array, key="feat", background=0):
    """Write as ``save_array(..., sparse=True)`` does: cell arrays of indices and extents, values, a background."""
    path.parent.mkdir(parents=True, exist_ok=True)
    index = np.where(array != background)
    with h5py.File(path, "w", userblock_size=512) as file:
        group, texts = file.create_group(key), iter(range(99))

        def cells(name, entries):
            kept = [_cell(file, f"#refs#/{next(texts)}", np.atleast_2d(entry)) for entry in entries]
            data = np.array([[each.ref for each in kept]], dtype=h5py.ref_dtype)
            group.create_dataset(name, data=data, dtype=h5py.ref_dtype)

        group[MARK] = np.ones((1, 1), np.uint8)
        cells("index", index)
        _cell(file, f"{key}/value", np.atleast_2d(array[index]))
        cells("shape", array.shape)
        group["background"] = np.array([[background]])
    _mark(path)
    return path


def write_block(path, codes, ids):
    """Write as the Ponce lab's experiments do: ``codes`` (n, C) and their ``ids``."""
    scipy.io.savemat(path, {"codes": codes, "ids": np.array(ids, dtype=object)})


def _cell(file, name, entry):
    if entry.size:
        return file.create_dataset(name, data=entry)
    dataset = file.create_dataset(name, data=np.array(entry.shape, np.uint64))  # MATLAB stores the extents instead
    dataset.attrs["MATLAB_empty"] = np.uint8(1)
    return dataset


def _mark(path):
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: CPython".ljust(124) + b"\x00\x02IM")
