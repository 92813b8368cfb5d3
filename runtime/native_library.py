"""libdeepsim through ctypes: loaded on first use, its errors raised as the classes of :mod:`deepsim.runtime.errors`.

The C ABI is described in ``runtime/native/include/deepsim/deepsim.h``. ctypes releases the GIL during every call.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache
from pathlib import Path
from typing import Any

from deepsim.runtime import errors
from deepsim.runtime.errors import DeepsimError, DeviceError, OutOfMemory
from deepsim.runtime.os_errors import lacks_memory

# DEEPSIM_LIBRARY names another build of the library, such as one under development.
PATH = Path(os.environ.get("DEEPSIM_LIBRARY") or Path(__file__).parent / "native" / "lib" / "libdeepsim.so")


class Error(ctypes.Structure):
    """``deepsim_error``: exit code, name of the class, message."""

    _fields_ = (("code", ctypes.c_int32), ("kind", ctypes.c_char * 32), ("message", ctypes.c_char * 1024))


class Options(ctypes.Structure):
    """``deepsim_options``."""

    _fields_ = (
        ("size", ctypes.c_uint32),
        ("max_batch", ctypes.c_int32),
        ("threads", ctypes.c_int32),
        ("half_fc_weights", ctypes.c_int32),
        ("isa", ctypes.c_char_p),
        ("device", ctypes.c_char_p),
        ("precision", ctypes.c_char_p),
        ("stable", ctypes.c_int32),
    )


class Info(ctypes.Structure):
    """``deepsim_info``."""

    _fields_ = (
        ("feature_rank", ctypes.c_int32),
        ("feature_shape", ctypes.c_int32 * 3),
        ("image_size", ctypes.c_int32),
        ("full_image_size", ctypes.c_int32),
        ("threads", ctypes.c_int32),
        ("layer", ctypes.c_char_p),
        ("encoder", ctypes.c_char_p),
        ("isa", ctypes.c_char_p),
    )


_ADDRESS = ctypes.c_uint64
_POINTER, _INT, _LONG, _ERROR = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64, ctypes.POINTER(Error)
_DOUBLE = ctypes.POINTER(ctypes.c_double)
_PROTOTYPES: dict[str, tuple[Any, ...]] = {
    "deepsim_open": (ctypes.c_char_p, ctypes.POINTER(Options), ctypes.POINTER(_POINTER), _ERROR),
    "deepsim_describe": (_POINTER, ctypes.POINTER(Info), _ERROR),
    "deepsim_check_device": (ctypes.c_char_p, ctypes.c_char_p, _ERROR),
    "deepsim_describe_kernels": (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, _LONG, _ERROR),
    "deepsim_encode": (_POINTER, _POINTER, _LONG, _POINTER, _ERROR),
    "deepsim_decode": (_POINTER, _POINTER, _LONG, ctypes.c_int, _POINTER, _ERROR),
    "deepsim_decode_raw": (_POINTER, _POINTER, _LONG, ctypes.c_int, _POINTER, _ERROR),
    "deepsim_reencode": (_POINTER, _POINTER, _LONG, _INT, ctypes.POINTER(_INT), _INT, _POINTER, _ERROR),
    "deepsim_interpolate": (_POINTER, _POINTER, _POINTER, _INT, _POINTER, _ERROR),
    "deepsim_encode_on_device": (_POINTER, _ADDRESS, _LONG, _ADDRESS, _POINTER, _ERROR),
    "deepsim_decode_on_device": (_POINTER, _ADDRESS, _LONG, ctypes.c_int, _ADDRESS, _POINTER, _ERROR),
    "deepsim_decode_raw_on_device": (_POINTER, _ADDRESS, _LONG, ctypes.c_int, _ADDRESS, _POINTER, _ERROR),
    "deepsim_reencode_on_device": (
        *(_POINTER, _ADDRESS, _LONG, _INT, ctypes.POINTER(_INT), _INT, _ADDRESS, _POINTER, _ERROR),
    ),
    "deepsim_interpolate_on_device": (_POINTER, _ADDRESS, _ADDRESS, _INT, _ADDRESS, _POINTER, _ERROR),
    "deepsim_take_on_device": (_POINTER, _ADDRESS, _POINTER, ctypes.POINTER(_ADDRESS), _ERROR),
    "deepsim_free_on_device": (_POINTER, _ADDRESS, _POINTER, _ERROR),
    "deepsim_order_streams": (_POINTER, _POINTER, _POINTER, _ERROR),
    "deepsim_copy_from_device": (_POINTER, _ADDRESS, _ADDRESS, _POINTER, _POINTER, _ERROR),
    "deepsim_list_kernels": (
        *(_POINTER, ctypes.c_int, _LONG, ctypes.POINTER(_INT), _LONG, ctypes.POINTER(_LONG), _ERROR),
    ),
    "deepsim_measure_roofs": (_INT, ctypes.c_char_p, _DOUBLE, _DOUBLE, _ERROR),
}


_PLAIN = (  # functions that report no error
    *("deepsim_close", "deepsim_set_log", "deepsim_usable_cpus", "deepsim_instruction_sets"),
    "deepsim_cuda_architectures",
)
_SINK = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)


def _log(level: int, message: bytes, user: int | None) -> None:
    """Pass the library's notes to the logger "deepsim": warnings reach stderr unless the application says otherwise."""
    import logging

    logging.getLogger("deepsim").log(logging.WARNING if level > 0 else logging.INFO, message.decode(errors="replace"))


_LOG = _SINK(_log)  # for as long as the library may call it


def reason_unavailable() -> str | None:
    """Tell in one line why the library cannot be loaded; None when it can. Raises OutOfMemory."""
    try:
        load()
    except OutOfMemory:  # no reason to take another backend
        raise
    except DeviceError as error:
        return str(error)
    return None


@cache
def load() -> ctypes.CDLL:
    """Load the library of this installation. Raises DeviceError when it is missing or does not load, OutOfMemory."""
    try:
        library = ctypes.CDLL(os.fspath(PATH))
    except OSError as error:
        if lacks_memory(error):
            raise OutOfMemory(f"{PATH.name}: not enough memory to load it ({' '.join(str(error).split())}).") from error
        found = "not built" if not PATH.exists() else " ".join(str(error).split())
        raise DeviceError(
            f"{PATH.name}: {found}, expected the native library. Install deepsim again with a C++17 compiler."
        ) from error
    for name in (*_PROTOTYPES, *_PLAIN):
        if not hasattr(library, name):
            raise DeviceError(f"{PATH.name}: has no {name}, expected a library of this version. Install deepsim again.")
    for name, arguments in _PROTOTYPES.items():
        getattr(library, name).argtypes = arguments
        getattr(library, name).restype = ctypes.c_int
    library.deepsim_set_log.argtypes, library.deepsim_set_log.restype = (_SINK, _POINTER), None
    library.deepsim_set_log(_LOG, None)
    library.deepsim_close.argtypes, library.deepsim_close.restype = (_POINTER,), None
    library.deepsim_instruction_sets.restype = library.deepsim_cuda_architectures.restype = ctypes.c_char_p
    return library


def call(name: str, *arguments: Any) -> None:
    """Call a function of the C ABI. Raises the error that it reports."""
    error = Error()
    if getattr(load(), name)(*arguments, ctypes.byref(error)) != 0:
        kind = getattr(errors, error.kind.decode(), DeepsimError)
        raise kind(error.message.decode(errors="replace"))


def give_back(handle: ctypes.c_void_p, memory: int, stream: int) -> None:
    """Free memory of a GPU; for finalisers, so that a GPU that failed raises nothing (its driver frees all with it)."""
    load().deepsim_free_on_device(handle, memory, stream, None)


def usable_cpus() -> int:
    """Count the CPUs that this process may use: of its affinity mask, and of its control groups' quotas, rounded up."""
    count: int = load().deepsim_usable_cpus()
    return count


def instruction_sets() -> list[str]:
    """List the instruction sets that can run here, best first: of "avx512", "avx2", "baseline"."""
    names: str = load().deepsim_instruction_sets().decode()
    return names.split(",")


def cuda_architectures() -> list[str]:
    """List the compute capabilities that the CUDA kernels were compiled for, as "7.5"; none in a build without nvcc."""
    names: str = load().deepsim_cuda_architectures().decode()
    return [f"{name[:-1]}.{name[-1]}" if name.isdigit() else name for name in names.split(",") if name]


def check_device(device: str, precision: str = "fp16") -> None:
    """Raise DeviceError telling why ``device`` ("cpu", "cuda:0") cannot be used here, if so."""
    call("deepsim_check_device", device.encode(), precision.encode())


def describe_kernels(device: str, precision: str = "fp16") -> str:
    """Say which kernels would run on ``device`` ("cpu", "cuda:0"), and why. Raises DeviceError where none can."""
    text = ctypes.create_string_buffer(512)
    call("deepsim_describe_kernels", device.encode(), precision.encode(), text, len(text))
    return text.value.decode()


def measure_roofs(threads: int = 0, instruction_set: str = "") -> tuple[float, float]:
    """Measure 1e9 fp32 multiply-adds and 1e9 bytes read per second, of all threads (0: as an Inverter would use)."""
    multiply_adds, read = ctypes.c_double(), ctypes.c_double()
    call("deepsim_measure_roofs", threads, instruction_set.encode(), ctypes.byref(multiply_adds), ctypes.byref(read))
    return multiply_adds.value, read.value
