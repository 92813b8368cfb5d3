"""Arrays in the memory of a GPU, from and for other libraries (PyTorch, CuPy, pycuda, numba, JAX), without host copies.

Read: ``__cuda_array_interface__`` (CUDA Array Interface, version 3) or DLPack. Written: :class:`DeviceArray`, which has
both, so that ``torch.as_tensor(result, device="cuda")``, ``cupy.asarray(result)`` and ``from_dlpack`` share its memory.
"""

from __future__ import annotations

import ctypes
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepsim.runtime import dlpack, native_library
from deepsim.runtime.errors import DtypeError, ShapeError, UsageError

_LEGACY_STREAM = 1  # how the interface writes the default stream, whose handle is 0


@dataclass(frozen=True)
class DeviceView:
    """Someone's C-contiguous array on a GPU: address, shape, type, and the stream that its content is ready on."""

    address: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    stream: int
    owner: object  # keeps the memory alive


def view_of(value: object, subject: str) -> DeviceView | None:
    """Return how an array on a GPU lies in memory; None for anything else.

    Raises DtypeError for a type that numpy does not know, ShapeError for an array that is not C-contiguous.
    """
    interface = getattr(value, "__cuda_array_interface__", None)  # PyTorch has the attribute on GPU tensors only
    if isinstance(interface, dict):
        return _from_interface(interface, value, subject)
    device = getattr(value, "__dlpack_device__", None)
    if callable(device) and device()[0] == dlpack.CUDA:
        address, shape, dtype, owner = dlpack.read(value, subject)
        return DeviceView(address, shape, dtype, 0, owner)  # asked for on the default stream
    return None


def _from_interface(interface: dict[str, Any], owner: object, subject: str) -> DeviceView:
    try:
        shape = tuple(int(extent) for extent in interface["shape"])
        dtype, address = np.dtype(interface["typestr"]), int(interface["data"][0] or 0)
    except (KeyError, TypeError, ValueError) as error:
        raise DtypeError(
            f"{subject}: a __cuda_array_interface__ that numpy cannot read ({error}). Convert it."
        ) from error
    if not dlpack.contiguous(shape, interface.get("strides"), dtype.itemsize):
        raise ShapeError(f"{subject}: strides {interface['strides']}, expected C-contiguous. Make it contiguous first.")
    stream = interface.get("stream")
    return DeviceView(address, shape, dtype, 0 if stream in (None, _LEGACY_STREAM) else int(stream), owner)


def check_view(view: DeviceView, subject: str, shape: tuple[int, ...], dtype: type[np.generic]) -> int:
    """Return N of an array (N, *shape) on a GPU. Raises DtypeError or ShapeError naming both."""
    wanted = np.dtype(dtype)
    if view.dtype != wanted:
        raise DtypeError(f"{subject}: {view.dtype} on a GPU, expected {wanted}. Convert it there first.")
    if view.shape[1:] != shape or len(view.shape) != len(shape) + 1:
        expected = f"(N, {', '.join(map(str, shape))})"
        raise ShapeError(
            f"{subject}: shape {view.shape} on a GPU, expected {expected}. Reshape or crop it there first."
        )
    return view.shape[0]


class DeviceArray:
    """A C-contiguous array that a GPU computes into: ``shape``, ``dtype``, ``device`` ("cuda:0"), ``address``.

    Its content is ready in the order of ``stream``; other streams, and the host, have to wait for that. Its memory goes
    back when the last library that shares it lets go.
    """

    def __init__(self, inverter: Any, shape: tuple[int, ...], dtype: type[np.generic], stream: int) -> None:
        self.shape, self.dtype, self.stream = shape, np.dtype(dtype), stream
        self.device: str = inverter.device
        self._inverter = inverter
        memory = ctypes.c_uint64()
        native_library.call("deepsim_take_on_device", inverter.handle, self.nbytes, stream, ctypes.byref(memory))
        self.address: int = memory.value

    @property
    def nbytes(self) -> int:
        """Return the size in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Describe the memory as the CUDA Array Interface, version 3."""
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.address, False),
            "strides": None,
            "stream": self.stream or _LEGACY_STREAM,
            "version": 3,
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        return dlpack.CUDA, int(self.device.removeprefix("cuda:"))

    def __dlpack__(self, *, stream: int | None = None, **ignored: object) -> object:
        """Return a DLPack capsule that shares the memory. Raises UsageError for another stream than the array's."""
        if stream not in (None, -1, self.stream, *((0, _LEGACY_STREAM) if self.stream == 0 else ())):
            raise UsageError(
                f"stream {stream}: the array is ready on stream {self.stream}. Pass that stream when it is computed."
            )
        return dlpack.write(self, self.address, self.shape, self.dtype, self.__dlpack_device__())

    def numpy(self) -> NDArray[Any]:
        """Copy to host memory, after all work that is queued on the stream."""
        array = np.empty(self.shape, self.dtype)
        native_library.call(
            "deepsim_copy_from_device",
            self._inverter.handle,
            self.address,
            array.nbytes,
            array.ctypes.data,
            self.stream,
        )
        return array

    def __del__(self) -> None:
        if getattr(self, "address", 0) and self._inverter.alive:  # at exit the inverter may have gone first
            native_library.give_back(self._inverter.handle, self.address, self.stream)
