"""A bundle loaded into libdeepsim, on the CPU or on a GPU. Arrays go in and out without a copy."""

from __future__ import annotations

import ctypes
import os
import weakref

import numpy as np
from numpy.typing import NDArray

from deepsim.runtime import native_library
from deepsim.runtime.backends.sessions import Sessions
from deepsim.runtime.bundle import Bundle
from deepsim.runtime.device_arrays import DeviceArray, DeviceView
from deepsim.runtime.pixels import Pixels


class NativeInverter:
    """One deepsim_inverter; ``options`` are fields of ``deepsim_options``, text or numbers."""

    name: str
    device = "cpu"

    def __init__(self, bundle: Bundle, **options: str | int | None) -> None:
        given = native_library.Options(size=ctypes.sizeof(native_library.Options))
        for name, value in options.items():
            setattr(given, name, value.encode() if isinstance(value, str) else value)
        handle = ctypes.c_void_p()
        native_library.call("deepsim_open", os.fsencode(bundle.path), ctypes.byref(given), ctypes.byref(handle))
        self.handle = handle
        self._close = weakref.finalize(self, native_library.load().deepsim_close, handle)
        self._close.atexit = False  # threads may be in calls still
        info = native_library.Info()
        native_library.call("deepsim_describe", handle, ctypes.byref(info))
        self.instruction_set: str = info.isa.decode()
        self.threads: int = info.threads
        manifest = bundle.manifest
        self._feature_shape, self._full, self._side = manifest.feature_shape, manifest.full_size, manifest.geometry.side
        self._encodes, self._decodes = manifest.encoder_kind == "table", manifest.generator is not None

    def sessions(self) -> Sessions:
        """Hand out what the library runs of the bundle: the networks that are tables of layers."""
        return Sessions.of(self, encodes=self._encodes, decodes=self._decodes)

    @property
    def alive(self) -> bool:
        """Tell whether the library still holds the inverter."""
        return self._close.alive

    def encode(self, images: Pixels) -> NDArray[np.float32]:
        """Compute the features of images (see :mod:`deepsim.runtime.backends.sessions`)."""
        features = np.empty((len(images), *self._feature_shape), np.float32)
        native_library.call("deepsim_encode", self.handle, images.ctypes.data, len(images), features.ctypes.data)
        return features

    def decode(self, features: NDArray[np.float32], full: bool) -> Pixels:
        """Generate images from features (see :mod:`deepsim.runtime.backends.sessions`)."""
        images = np.empty(self._shape(len(features), full), np.uint8)
        native_library.call(
            "deepsim_decode", self.handle, features.ctypes.data, len(features), int(full), images.ctypes.data
        )
        return images

    def decode_raw(self, features: NDArray[np.float32], full: bool) -> NDArray[np.float32]:
        """Generate images before clipping and rounding (see :mod:`deepsim.runtime.backends.sessions`)."""
        images = np.empty(self._shape(len(features), full), np.float32)
        native_library.call(
            "deepsim_decode_raw", self.handle, features.ctypes.data, len(features), int(full), images.ctypes.data
        )
        return images

    def _shape(self, count: int, full: bool) -> tuple[int, int, int, int]:
        side = self._full if full else self._side
        return count, side, side, 3

    def reencode(self, images: Pixels, iterations: int, keep: tuple[int, ...]) -> Pixels:
        """Re-encode images (see :mod:`deepsim.runtime.backends.sessions`)."""
        kept = np.empty((len(images), len(keep), self._side, self._side, 3), np.uint8)
        wanted = (ctypes.c_int32 * len(keep))(*keep)
        native_library.call(
            *("deepsim_reencode", self.handle, images.ctypes.data, len(images)),
            *(iterations, wanted, len(keep), kept.ctypes.data),
        )
        return kept

    def steps_of_kernels(self, decode: bool, n: int) -> list[int]:
        """Tell which step of its network each kernel of a call for n images is of, in order (GPUs only)."""
        count = ctypes.c_int64()
        native_library.call("deepsim_list_kernels", self.handle, int(decode), n, None, 0, ctypes.byref(count))
        steps = (ctypes.c_int32 * count.value)()
        native_library.call("deepsim_list_kernels", self.handle, int(decode), n, steps, len(steps), ctypes.byref(count))
        return list(steps)

    def order(self, first: int, later: int) -> None:
        """Let what the stream ``later`` is given from now on begin after what the stream ``first`` holds now."""
        if first != later:
            native_library.call("deepsim_order_streams", self.handle, first, later)

    def encode_on_device(self, images: DeviceView, stream: int) -> DeviceArray:
        """Compute the features of images (n, side, side, 3) in memory of the GPU, in the order of ``stream``."""
        features = DeviceArray(self, (images.shape[0], *self._feature_shape), np.float32, stream)
        native_library.call(
            *("deepsim_encode_on_device", self.handle, images.address, images.shape[0], features.address, stream)
        )
        return features

    def decode_on_device(self, features: DeviceView, full: bool, raw: bool, stream: int) -> DeviceArray:
        """Generate images from features in memory of the GPU, in the order of ``stream``."""
        dtype = np.float32 if raw else np.uint8
        images = DeviceArray(self, self._shape(features.shape[0], full), dtype, stream)
        function = "deepsim_decode_raw_on_device" if raw else "deepsim_decode_on_device"
        native_library.call(
            *(function, self.handle, features.address, features.shape[0], int(full)),
            *(images.address, stream),
        )
        return images

    def reconstruct_on_device(self, images: DeviceView, stream: int) -> DeviceArray:
        """Reconstruct images in memory of the GPU, in the order of ``stream``: (n, side, side, 3)."""
        result = self.reencode_on_device(images, 1, (1,), stream)
        result.shape = (images.shape[0], self._side, self._side, 3)
        return result

    def interpolate_on_device(self, start: DeviceView, end: DeviceView, steps: int, stream: int) -> DeviceArray:
        """Generate images of ``steps`` features on the line from one to another: (steps, side, side, 3)."""
        images = DeviceArray(self, (steps, self._side, self._side, 3), np.uint8, stream)
        native_library.call(
            *("deepsim_interpolate_on_device", self.handle, start.address, end.address, steps),
            *(images.address, stream),
        )
        return images

    def reencode_on_device(
        self, images: DeviceView, iterations: int, keep: tuple[int, ...], stream: int
    ) -> DeviceArray:
        """Re-encode images in memory of the GPU, in the order of ``stream``: (n, len(keep), side, side, 3)."""
        kept = DeviceArray(self, (images.shape[0], len(keep), self._side, self._side, 3), np.uint8, stream)
        wanted = (ctypes.c_int32 * len(keep))(*keep)
        native_library.call(
            *("deepsim_reencode_on_device", self.handle, images.address, images.shape[0], iterations),
            *(wanted, len(keep), kept.address, stream),
        )
        return kept
