"""Mean images of Caffe pipelines as three channel means: .binaryproto, .npy and .mat, told by content."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from deepsim.export.published.caffe_model import read_blob
from deepsim.export.published.networks import SourceFile
from deepsim.runtime.errors import DataError
from deepsim.runtime.features import mat5
from deepsim.runtime.features.hdf5_file import is_hdf5, module
from deepsim.runtime.files import sha256
from deepsim.runtime.os_errors import disk_errors

LIMIT = 64 << 20  # bytes; a mean image of 256 x 256 pixels in float64 takes 1.6 million
_NUMPY, _MATLAB = b"\x93NUMPY", b"MATLAB 5.0"
_UNREADABLE: tuple[type[Exception], ...] = (
    *(ValueError, OSError, LookupError, TypeError, OverflowError, RuntimeError, EOFError, StopIteration),
    *(SyntaxError, TokenError, struct.error, zlib.error),  # what damaged headers and streams raise
)
_FORMATS = "a .npy, .mat or .binaryproto of 3 channels"


@dataclass(frozen=True)
class MeanImage:
    """The channel means of a mean image, in BGR and 0-255 units, and the file that they come from."""

    mean: tuple[float, float, float]
    source: SourceFile


def read_mean_image(path: Path, order: Literal["BGR", "RGB"] = "BGR") -> MeanImage:
    """Average a mean image over its pixels; ``order`` is the order of the file's channels, Caffe's by default.

    The image is (3, H, W), (1, 3, H, W), (H, W, 3) or three numbers. Photographs are redder than blue on average: a
    file that says otherwise is refused, as its channels are probably in the other order. Raises DataError for that,
    for other shapes, values outside 0-255 or all at most 1, and files that are none of the formats.
    """
    with disk_errors(path):
        size = path.stat().st_size
        if not path.is_file() or size > LIMIT:
            raise DataError(f"{path}: no file or {size:,} bytes, expected {_FORMATS} of at most {LIMIT:,}.")
        data = path.read_bytes()
    image, format = _read(path, data)
    means = _channels(path, image)
    first, last = means[0], means[2]
    if (first > last) if order == "BGR" else (first < last):
        other = "RGB" if order == "BGR" else "BGR"
        said = ", ".join(f"{mean:.1f}" for mean in means)
        raise DataError(f"{path}: channel means {said}, expected {order}; they look like {other}.")
    blue, green, red = means if order == "BGR" else means[::-1]
    return MeanImage((blue, green, red), SourceFile(path.name, len(data), sha256(data), format))


def _read(path: Path, data: bytes) -> tuple[NDArray[Any], str]:
    try:
        if data.startswith(_NUMPY):
            return _npy(data), "mean image (.npy)"
        if data.startswith(_MATLAB) or is_hdf5(data):
            return _mat(path, data), "mean image (.mat)"
        return read_blob(memoryview(data)).values, "mean image (.binaryproto)"
    except _UNREADABLE as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{path}: not readable ({reason}), expected {_FORMATS}.") from error


def _npy(data: bytes) -> NDArray[Any]:
    """Read .npy bytes; the header may not claim more than there is."""
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = header(file)
    if dtype.hasobject or int(np.prod(shape, dtype=object)) * dtype.itemsize != len(data) - file.tell():
        raise ValueError(f"{dtype} of shape {shape} in {len(data)} bytes")
    file.seek(0)
    found: NDArray[Any] = np.load(file, allow_pickle=False)
    return found


def _mat(path: Path, data: bytes) -> NDArray[Any]:
    """Return the only array with several numbers of a .mat, of version 5 or 7.3 (axes in MATLAB's order)."""
    found = _mat73(data) if is_hdf5(data) else _mat5(path)
    arrays = {name: array for name, array in found.items() if array.dtype.kind in "fiu" and array.size >= 3}
    if len(arrays) != 1:
        raise ValueError(f"{len(arrays)} arrays ({', '.join(arrays) or 'none'})")
    return next(iter(arrays.values()))


def _mat5(path: Path) -> dict[str, NDArray[Any]]:
    variables = [variable for variable in mat5.list_variables(path) if variable.kind in mat5.NUMBERS]
    return {variable.name: np.asarray(mat5.read_numbers(path, variable)) for variable in variables}


def _mat73(data: bytes) -> dict[str, NDArray[Any]]:
    h5py = module("import")
    with h5py.File(io.BytesIO(data), "r") as file:
        found = {name: item for name, item in file.items() if isinstance(item, h5py.Dataset) and item.shape is not None}
        if sum(item.size * item.dtype.itemsize for item in found.values()) > LIMIT:
            raise ValueError("more numbers than a mean image has")
        return {name: np.asarray(item[()]).T for name, item in found.items()}


def _channels(path: Path, image: NDArray[Any]) -> tuple[float, float, float]:
    """Return the mean of each channel. Raises DataError for a shape or values that no mean image has."""
    shape = tuple(image.shape)
    squeezed = image.reshape([extent for extent in shape if extent != 1] or [1])
    axes = [axis for axis, extent in enumerate(squeezed.shape) if extent == 3]
    channel = 0 if squeezed.ndim == 1 and axes == [0] else axes[0] if len(axes) == 1 and axes[0] != 1 else None
    if image.dtype.kind not in "fiu" or channel is None or squeezed.ndim not in (1, 3):
        raise DataError(f"{path}: {image.dtype} of shape {shape}, expected numbers (3, H, W), (H, W, 3) or (3,).")
    values = np.moveaxis(squeezed, channel, 0).reshape(3, -1).astype(np.float64)
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > 255 or values.max() <= 1:
        found = f"{values.min():g} to {values.max():g}"
        raise DataError(f"{path}: values of {found}, expected a mean image of 0 to 255.")
    first, second, third = (float(mean) for mean in values.mean(1))
    return first, second, third
