"""Write MATLAB's version 7.3: HDF5 behind a block of 512 bytes that says so, axes reversed, as bdpy writes arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deepsim.runtime.features.hdf5_file import module
from deepsim.runtime.files import replacing

_BLOCK = 512
_TEXT = b"MATLAB 7.3 MAT-file, Platform: deepsim, HDF5 schema 1.00 ."
_VERSION = b"\x00\x02IM"  # 7.3, little-endian, behind 124 bytes of text and offsets


def write_mat73(path: Path, name: str, values: NDArray[np.float32]) -> None:
    """Write one array of rank 2 or more as the variable ``name``; the file is old or new, never torn.

    Raises DeviceError without h5py, and on a full disk.
    """
    h5py = module()
    with replacing(path) as file:
        with h5py.File(file, "w", userblock_size=_BLOCK) as target:
            dataset = target.create_dataset(name, data=np.ascontiguousarray(values.T, np.float32))
            dataset.attrs["MATLAB_class"] = np.bytes_("single")
            dataset.attrs["Python.Shape"] = np.array(values.shape, np.uint64)
        file.seek(0)
        file.write(_TEXT.ljust(124) + _VERSION)
