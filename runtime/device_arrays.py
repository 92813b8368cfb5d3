"""Arrays in the memory of a GPU, from and for other libraries (PyTorch, CuPy, pycuda, numba, JAX), without host copies.

Read: ``__cuda_array_interface__`` (CUDA Array Interface, version 3) or DLPack. Written: :class:`DeviceArray`, which has
both, so that ``from_dlpack``, ``cupy.asarray(result)`` and ``torch.as_tensor(result, device="cuda")`` share its memory.
The first two make the reader's stream wait for the content; PyTorch's ``as_tensor`` does not.
"""

from __future__ import annotations

import ctypes
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepsim.runtime import dlpack, native_library
from deepsim.runtime.errors import DeviceError, DtypeError, ShapeError

_LEGACY_STREAM, _THREAD_STREAM = 1, 2  # handles of the default stream, which is 0 too, and of one for each thread


@dataclass(frozen=True)
class DeviceView:
    """Someone's C-contiguous array on a GPU: address, shape, type, and the stream that its content is ready on."""

    address: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    stream: int
    owner: object  # keeps the memory alive
    lent: bool = False  # its library works on another stream, which it did not name


def handle_of(stream: int) -> int:
    """Return the handle of a stream, with 0 for the default one under both of its names."""
    return 0 if stream == _LEGACY_STREAM else stream


def view_of(value: object, subject: str, stream: int | None = None) -> DeviceView | None:
    """Return how an array on a GPU lies in memory; None for anything else.

    An array that names a stream in its interface is ready there. Another is ready on ``stream``, a handle, where it is
    given; else its library is asked to have it ready on the default stream, through DLPack where it has that. Raises
    DtypeError for an array that cannot be shared or has a type that numpy does not know, ShapeError for one that is not
    C-contiguous.
    """
    device = getattr(value, "__dlpack_device__", None)
    on_request = callable(device) and device()[0] == dlpack.CUDA
    try:
        interface = getattr(value, "__cuda_array_interface__", None)  # PyTorch has the attribute on GPU tensors only
    except (
        KeyError,
        RuntimeError,
        TypeError,
        ValueError,
    ):  # and refuses here what it refuses below, where the reason is told
        interface = None
    if isinstance(interface, dict):
        named = interface.get("stream")
        if named is not None or stream is not None or not on_request:
            return _from_interface(interface, value, subject, int(named or stream or 0))
    if not on_request:
        return None
    address, shape, dtype, owner = dlpack.read(value, subject, stream or _LEGACY_STREAM)
    return DeviceView(address, shape, dtype, handle_of(stream or 0), owner, lent=stream is None)


def _from_interface(interface: dict[str, Any], owner: object, subject: str, stream: int) -> DeviceView:
    try:
        shape = tuple(int(extent) for extent in interface["shape"])
        dtype, address = np.dtype(interface["typestr"]), int(interface["data"][0] or 0)
    except (KeyError, TypeError, ValueError) as error:
        raise DtypeError(f"{subject}: a __cuda_array_interface__ that numpy cannot read ({error}).") from error
    if not dlpack.contiguous(shape, interface.get("strides"), dtype.itemsize):
        raise ShapeError(f"{subject}: strides {interface['strides']}, expected C-contiguous. Make it contiguous first.")
    return DeviceView(address, shape, dtype, handle_of(stream), owner)


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


def sources_of(queue: int, *views: DeviceView) -> tuple[object, ...]:
    """Return what may be reused, once freed, before work on the stream ``queue`` is done.

    That is arrays of other streams, and what arrays of this one are still computed from. An array whose interface names
    no stream, given with one, is taken to be that stream's: its library orders what comes next, the memory's reuse
    included, behind what is queued there.
    """
    sources: list[object] = []
    for view in views:
        if view.lent or view.stream != queue:
            sources.append(view.owner)
        elif isinstance(view.owner, DeviceArray):
            sources.extend(view.owner.sources)
    return tuple(sources)


class DeviceArray:
    """A C-contiguous array that a GPU computes into: ``shape``, ``dtype``, ``device`` ("cuda:0"), ``address``.

    Its content is ready in the order of ``stream``; other streams, and the host, have to wait for that. Its memory goes
    back, in the order of ``stream`` too, when the last library that shares it lets go: who reads it on another stream
    keeps it until that has happened, or names that stream in the call that makes it. A stream must not be destroyed (as
    CuPy does with one that nobody holds any more) before the arrays that name it are gone.
    """

    def __init__(self, inverter: Any, shape: tuple[int, ...], dtype: type[np.generic], stream: int) -> None:
        self.shape, self.dtype = shape, np.dtype(dtype)
        # In another thread, its own stream would be another one; the default stream waits for all of them.
        self.stream = 0 if stream == _THREAD_STREAM else stream
        self.device: str = inverter.device
        self.sources: tuple[object, ...] = ()  # arrays that live as long as this one, which is computed from them
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

    def __reduce__(self) -> tuple[Any, ...]:
        raise DeviceError("device array: another process does not see this GPU memory. Send numpy.asarray(it).")

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

    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> object:
        """Return a DLPack capsule (before version 1) that shares the memory.

        What ``stream`` (a handle; None: the default stream; -1: none) is given next waits for the content. Raises
        BufferError for a copy or another device.
        """
        if copy or dl_device not in (None, self.__dlpack_device__()):
            raise BufferError(f"array on {self.device}: only its own memory can be shared. Copy it with your library.")
        if stream != -1:
            self._inverter.order(self.stream, handle_of(stream or 0))
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
        if getattr(self, "address", 0) and self._inverter.alive:  # in a cycle, the inverter may have gone first
            native_library.give_back(self._inverter.handle, self.address, self.stream)
