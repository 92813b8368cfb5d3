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
# Capsules by address, since one that goes away may not be referred to again.
_get = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_GetPointer", _api))
_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_IsValid", _api))
_rename = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_SetName", _api))
_Destructor = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_new = _api.PyCapsule_New
_new.argtypes, _new.restype = (ctypes.c_void_p, ctypes.c_char_p, _Destructor), ctypes.py_object


class _Owned:
    """A tensor that was taken out of a capsule; its library is told when it is no longer used."""

    def __init__(self, managed: Any) -> None:
        self._managed = managed

    def __del__(self) -> None:
        if self._managed.contents.deleter:
            self._managed.contents.deleter(self._managed)


def read(value: Any, subject: str, stream: int) -> tuple[int, tuple[int, ...], np.dtype[Any], object]:
    """Return (address, shape, type, owner) of an array on a GPU, ready on a stream: its handle, 1 for the default.

    Raises DtypeError or ShapeError for what is not a C-contiguous array of a type that numpy knows.
    """
    try:
        capsule = value.__dlpack__(stream=stream)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:  # PyTorch: a tensor that requires a gradient
        raise DtypeError(
            f"{subject}: an array that cannot be shared ({_line(error)}). Detach or convert it; "
            "one of a GPU that is not its library's current one: make it that, or pass stream."
        ) from error
    if not _valid(id(capsule), _NAME):
        raise DtypeError(f"{subject}: {capsule!r} from __dlpack__, expected a capsule {_NAME.decode()!r}.")
    managed = ctypes.cast(_get(id(capsule), _NAME) or 0, ctypes.POINTER(_Managed))
    _rename(id(capsule), _USED)
    owner, tensor = _Owned(managed), managed.contents.tensor
    shape = tuple(tensor.shape[: tensor.ndim])
    kinds = {code: kind for kind, code in _CODES.items()}
    if tensor.lanes != 1 or tensor.code not in kinds or tensor.bits not in (8, 16, 32, 64):
        raise DtypeError(f"{subject}: DLPack type {tensor.code} of {tensor.bits} bits, expected uint8 or float32.")
    dtype = np.dtype(f"{kinds[tensor.code]}{tensor.bits // 8}")
    strides = [step * dtype.itemsize for step in tensor.strides[: tensor.ndim]] if tensor.strides else None
    if not contiguous(shape, strides, dtype.itemsize):
        raise ShapeError(f"{subject}: strides {strides}, expected C-contiguous. Make it contiguous first.")
    return (tensor.data or 0) + tensor.byte_offset, shape, dtype, owner


def _line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")


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


# Both may be called when the interpreter goes down and this module's names are gone: they hold what they need, and are
# never freed.
def _delete(managed: Any, alive: Any = _alive, addressof: Any = ctypes.addressof) -> None:
    alive.pop(addressof(managed.contents), None)


def _destroy(capsule: int, alive: Any = _alive, valid: Any = _valid, get: Any = _get, name: bytes = _NAME) -> None:
    """Called with a capsule that is going away: nobody took the tensor out unless it was renamed."""
    if valid(capsule, name):
        alive.pop(get(capsule, name), None)


_DELETE, _DESTROY = _Deleter(_delete), _Destructor(_destroy)
for _lasting in (_DELETE, _DESTROY):
    _api.Py_IncRef(ctypes.py_object(_lasting))


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
