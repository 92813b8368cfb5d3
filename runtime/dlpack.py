"""DLPack (dlpack.h, version 0.8) through ctypes: read another library's capsule, write one over memory of our own."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from deepsim.runtime.errors import DtypeError, ShapeError

CUDA = 2  # kDLCUDA
_CODES = {"i": 0, "u": 1, "f": 2}  # kDLInt, kDLUInt, kDLFloat
_NAME, _USED = b"dltensor", b"used_dltensor"


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _Managed(ctypes.Structure):
    pass


_Deleter = ctypes.CFUNCTYPE(None, ctypes.POINTER(_Managed))
_Managed._fields_ = (("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", _Deleter))

_api = ctypes.pythonapi
_get = _api.PyCapsule_GetPointer
_get.argtypes, _get.restype = (ctypes.py_object, ctypes.c_char_p), ctypes.c_void_p
_valid = _api.PyCapsule_IsValid
_valid.argtypes = (ctypes.c_void_p, ctypes.c_char_p)
_rename = _api.PyCapsule_SetName
_rename.argtypes = (ctypes.py_object, ctypes.c_char_p)
_Destructor = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_new = _api.PyCapsule_New
_new.argtypes, _new.restype = (ctypes.c_void_p, ctypes.c_char_p, _Destructor), ctypes.py_object
_get_raw = ctypes.cast(_get, ctypes.c_void_p)


class _Owned:
    """A tensor that was taken out of a capsule; its library is told when it is no longer used."""

    def __init__(self, managed: Any) -> None:
        self._managed = managed

    def __del__(self) -> None:
        if self._managed.contents.deleter:
            self._managed.contents.deleter(self._managed)


def read(value: Any, subject: str) -> tuple[int, tuple[int, ...], np.dtype[Any], object]:
    """Return (address, shape, type, owner) of an array on a GPU, ready on the default stream.

    Raises DtypeError or ShapeError for what is not a C-contiguous array of a type that numpy knows.
    """
    capsule = value.__dlpack__(stream=1)  # 1: the legacy default stream
    managed = ctypes.cast(_get(capsule, _NAME), ctypes.POINTER(_Managed))
    _rename(capsule, _USED)
    owner, tensor = _Owned(managed), managed.contents.tensor
    shape = tuple(tensor.shape[: tensor.ndim])
    kinds = {code: kind for kind, code in _CODES.items()}
    if tensor.lanes != 1 or tensor.code not in kinds:
        raise DtypeError(
            f"{subject}: DLPack type {tensor.code} of {tensor.bits} bits, expected uint8 or float32. Convert it."
        )
    dtype = np.dtype(f"{kinds[tensor.code]}{tensor.bits // 8}")
    strides = [step * dtype.itemsize for step in tensor.strides[: tensor.ndim]] if tensor.strides else None
    if not contiguous(shape, strides, dtype.itemsize):
        raise ShapeError(f"{subject}: strides {strides}, expected C-contiguous. Make it contiguous first.")
    return (tensor.data or 0) + tensor.byte_offset, shape, dtype, owner


def contiguous(shape: tuple[int, ...], strides: Sequence[int] | None, itemsize: int) -> bool:
    """Tell whether strides in bytes (None: they are) are those of a C-contiguous array."""
    if strides is None or 0 in shape:
        return True
    wanted = itemsize
    for extent, stride in zip(reversed(shape), reversed(tuple(strides)), strict=True):
        if extent != 1 and stride != wanted:
            return False
        wanted *= extent
    return True


_alive: dict[int, tuple[Any, ...]] = {}  # address of a tensor that others may use: what must live as long


def _delete(managed: Any) -> None:
    _alive.pop(ctypes.addressof(managed.contents), None)


def _destroy(capsule: int) -> None:
    """Called with a capsule that is going away: nobody took the tensor out unless it was renamed."""
    if not _valid(capsule, _NAME):
        return
    get = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(_get_raw.value or 0)
    _alive.pop(get(capsule, _NAME) or 0, None)


_DELETE, _DESTROY = _Deleter(_delete), _Destructor(_destroy)  # as C functions, for as long as this module lives


def write(owner: object, address: int, shape: tuple[int, ...], dtype: np.dtype[Any], device: tuple[int, int]) -> object:
    """Return a capsule over C-contiguous memory that ``owner`` keeps alive."""
    extents = (ctypes.c_int64 * len(shape))(*shape)
    steps = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    strides = (ctypes.c_int64 * len(shape))(*steps)
    managed = _Managed()
    managed.tensor = _Tensor(
        *(address, *device, len(shape), _CODES[dtype.kind], dtype.itemsize * 8, 1),
        *(
            ctypes.cast(extents, ctypes.POINTER(ctypes.c_int64)),
            ctypes.cast(strides, ctypes.POINTER(ctypes.c_int64)),
            0,
        ),
    )
    managed.deleter = _DELETE
    _alive[ctypes.addressof(managed)] = (managed, extents, strides, owner)
    return _new(ctypes.addressof(managed), _NAME, _DESTROY)
