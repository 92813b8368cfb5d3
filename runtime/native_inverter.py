"""A bundle loaded into libdeepsim, on the CPU or on a GPU. Arrays go in and out without a copy."""

from __future__ import annotations

import ctypes
import os
import weakref

import numpy as np
from numpy.typing import NDArray

from deepsim.runtime import native_library
from deepsim.runtime.bundle import Bundle
from deepsim.runtime.pixels import CROP, Pixels


class NativeInverter:
    """One deepsim_inverter; ``options`` are fields of ``deepsim_options``, text or numbers."""

    def __init__(self, bundle: Bundle, **options: str | int | None) -> None:
        given = native_library.Options(size=ctypes.sizeof(native_library.Options))
        for name, value in options.items():
            setattr(given, name, value.encode() if isinstance(value, str) else value)
        handle = ctypes.c_void_p()
        native_library.call("deepsim_open", os.fsencode(bundle.path), ctypes.byref(given), ctypes.byref(handle))
        self._handle = handle
        self._close = weakref.finalize(self, native_library.load().deepsim_close, handle)
        info = native_library.Info()
        native_library.call("deepsim_describe", handle, ctypes.byref(info))
        self.instruction_set: str = info.isa.decode()
        self.threads: int = info.threads
        self._feature_shape = bundle.manifest.generator.input_shape
        self._side = bundle.manifest.generator.output_size

    def encode(self, images: Pixels) -> NDArray[np.float32]:
        """Compute the features of images (see :class:`deepsim.runtime.backends.Backend`)."""
        features = np.empty((len(images), *self._feature_shape), np.float32)
        native_library.call("deepsim_encode", self._handle, images.ctypes.data, len(images), features.ctypes.data)
        return features

    def decode(self, features: NDArray[np.float32], full: bool) -> Pixels:
        """Generate images from features (see :class:`deepsim.runtime.backends.Backend`)."""
        side = self._side if full else CROP
        images = np.empty((len(features), side, side, 3), np.uint8)
        native_library.call(
            "deepsim_decode", self._handle, features.ctypes.data, len(features), int(full), images.ctypes.data
        )
        return images

    def reencode(self, images: Pixels, iterations: int, keep: tuple[int, ...]) -> Pixels:
        """Re-encode images (see :class:`deepsim.runtime.backends.Backend`)."""
        kept = np.empty((len(images), len(keep), CROP, CROP, 3), np.uint8)
        wanted = (ctypes.c_int32 * len(keep))(*keep)
        native_library.call(
            *("deepsim_reencode", self._handle, images.ctypes.data, len(images)),
            *(iterations, wanted, len(keep), kept.ctypes.data),
        )
        return kept
