"""What callers hand to the Inverter, checked: photographs and features in any reasonable form, else a typed error."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deepsim.runtime.errors import DataError, DeviceError, DtypeError, OutOfMemory, ShapeError, UsageError
from deepsim.runtime.images import Photo

Photos: TypeAlias = "Photo | Iterable[Photo] | NDArray[np.uint8]"
Features: TypeAlias = "NDArray[np.floating[Any]] | Sequence[Any]"

_DLPACK_CPU = (1, 3)  # kDLCPU, kDLCUDAHost (pinned)


def check_photos(photos: Any) -> list[Photo] | NDArray[np.uint8]:
    """Return photographs as something with a length and slices: a list, or a uint8 array (N, H, W, 3).

    A single path, Pillow image or (H, W, 3) array is one photograph; CPU tensors count as arrays. Files are not opened
    yet. Raises DtypeError, ShapeError; DeviceError for a tensor on a GPU.
    """
    photos = host_array(photos, "photos")
    if isinstance(photos, np.ndarray):
        return _photo_array(photos)
    if isinstance(photos, (str, os.PathLike, Image.Image)):
        return [photos]
    if isinstance(photos, (bytes, bytearray, dict)) or not isinstance(photos, Iterable):
        raise DtypeError(f"photos: {type(photos).__name__}, expected paths, Pillow images or uint8 arrays.")
    return [host_array(photo, "photo") for photo in photos]


def check_features(features: Any, shape: tuple[int, ...]) -> NDArray[np.floating[Any]]:
    """Return features as a floating-point array (N, *shape), values not looked at yet.

    Raises DtypeError for anything but floating point, ShapeError; DeviceError for a tensor on a GPU.
    """
    array = _feature_array(features)
    if array.dtype.kind != "f":
        raise DtypeError(f"features: {array.dtype}, expected floating point. Convert them to float32.")
    if array.ndim != len(shape) + 1 or array.shape[1:] != shape:
        expected = f"(N, {', '.join(map(str, shape))})"
        raise ShapeError(f"features: shape {array.shape}, expected {expected}. {_shape_hint(array.shape, shape)}")
    return array


def feature_rows(features: NDArray[np.floating[Any]], subject: str = "features") -> NDArray[np.float32]:
    """Return some rows as C-contiguous float32. Raises DataError when one is NaN or infinite (also in float32)."""
    with np.errstate(over="ignore"):
        rows = np.ascontiguousarray(features, dtype=np.float32)
    if not np.isfinite(rows).all():
        found = "NaN" if np.isnan(rows).any() else "infinite values"
        raise DataError(f"{subject}: {found}, expected finite float32. Look where they come from.")
    return rows


def is_features(value: Any, shape: tuple[int, ...]) -> bool:
    """Tell whether ``value`` is one feature of ``shape``, or a batch of one, rather than a photograph."""
    dtype = getattr(value, "dtype", None)
    return "float" in str(dtype) and tuple(getattr(value, "shape", ())) in (shape, (1, *shape))


def check_keep(iterations: int, keep: Iterable[int]) -> tuple[int, ...]:
    """Return ``keep`` as a tuple. Raises UsageError unless it increases strictly within 1..iterations."""
    count = whole_number("iterations", iterations, 1)
    try:
        kept = tuple(whole_number("keep", value, 1) for value in keep)
    except TypeError as error:
        raise UsageError(f"keep: {_shown(keep)}, expected iterations such as (1, 2, 4, 8).") from error
    if not kept or kept[-1] > count or any(a >= b for a, b in pairwise(kept)):
        raise UsageError(f"keep: {kept}, expected increasing numbers from 1 to {count} (iterations).")
    return kept


def whole_number(name: str, value: Any, low: int, high: int = 1 << 20) -> int:
    """Return ``value`` as int. Raises UsageError unless it is a whole number from ``low`` to ``high``."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not low <= value <= high:
        raise UsageError(f"{name}: {_shown(value)}, expected a whole number from {low} to {high:,}.")
    return int(value)


def allocate(shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
    """Return an uninitialised array. Raises OutOfMemory when it cannot fit into this machine."""
    need = math.prod(shape) * np.dtype(dtype).itemsize
    have = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        if need <= have:
            return np.empty(shape, dtype)
    except MemoryError:
        have = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    raise OutOfMemory(f"result {shape}: needs {need:,} bytes, there are {have:,}. Pass fewer at a time.")


def host_array(value: Any, subject: str) -> Any:
    """Return a CPU tensor of any library as a numpy array without a copy, and anything that is no tensor unchanged.

    Raises DeviceError for a tensor on a GPU, DtypeError for one that numpy has no type for.
    """
    if isinstance(value, np.ndarray):
        return value
    if hasattr(value, "__dlpack__") and hasattr(value, "__dlpack_device__"):
        return _from_dlpack(value, subject)
    if hasattr(value, "__cuda_array_interface__"):
        raise _on_gpu(subject)
    return value


def _shown(value: Any) -> str:
    """Return a value's ``repr`` in one line, however large it is."""
    return " ".join(repr(value).split())[:80]


def _from_dlpack(value: Any, subject: str) -> NDArray[Any]:
    try:
        if value.__dlpack_device__()[0] not in _DLPACK_CPU:
            raise _on_gpu(subject)
        return np.from_dlpack(value)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise DtypeError(
            f"{subject}: a tensor that numpy cannot read ({reason}). Detach or convert it first."
        ) from error


def _on_gpu(subject: str) -> DeviceError:
    return DeviceError(f"{subject}: a tensor on a GPU, expected one in host memory. Move it first, as with .cpu().")


def _photo_array(photos: NDArray[Any]) -> NDArray[np.uint8]:
    if photos.dtype != np.uint8:
        raise DtypeError(f"photos: {photos.dtype}, expected uint8 with values 0-255. Scale and convert them first.")
    if photos.ndim not in (3, 4) or photos.shape[-1] != 3 or 0 in photos.shape[-3:]:
        raise ShapeError(f"photos: shape {photos.shape}, expected RGB (N, H, W, 3). Reorder or reshape them first.")
    return photos if photos.ndim == 4 else photos[None]


def _feature_array(features: Any) -> NDArray[Any]:
    features = host_array(features, "features")
    if isinstance(features, np.ndarray):
        return features
    if not isinstance(features, (list, tuple)):
        raise DtypeError(f"features: {type(features).__name__}, expected an array of floats. Convert them to float32.")
    try:
        return np.asarray([host_array(row, "features") for row in features])
    except (ValueError, TypeError, OverflowError) as error:
        raise ShapeError("features: rows of different shapes, expected equal ones. Check the rows.") from error


def _shape_hint(found: tuple[int, ...], shape: tuple[int, ...]) -> str:
    if found == shape:
        return "Add the batch axis: features[None]."
    if len(shape) == 1 and len(found) == 2 and found[0] == shape[0]:
        return "They look transposed: pass features.T."
    if len(found) == 2 and found[1] == math.prod(shape):
        return f"Reshape them: features.reshape(-1, {', '.join(map(str, shape))})."
    return "Use features of the layer that this bundle inverts."
