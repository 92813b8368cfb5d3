"""Run a bundle in libdeepsim: our fused kernels on the CPU. Arrays go in and out without a copy."""

from __future__ import annotations

import ctypes
import os
import weakref

import numpy as np
from numpy.typing import NDArray

from deepsim.runtime import native_library
from deepsim.runtime.bundle import Bundle
from deepsim.runtime.pixels import CROP, Pixels

INSTRUCTION_SET_VARIABLE = "DEEPSIM_INSTRUCTION_SET"


def reason_unavailable(device: str = "auto") -> str | None:
    """Tell why the library cannot run on ``device`` ("auto", "cpu", "cuda:N") here; None when it can."""
    if device.startswith("cuda:"):
        return "it runs on the CPU only"
    return native_library.reason_unavailable()


def create(bundle: Bundle, device: str, max_batch: int, half_fc_weights: bool = False) -> CpuBackend:
    """Load a bundle; ``half_fc_weights`` stores the fully connected weights as fp16 (arithmetic stays fp32).

    DEEPSIM_INSTRUCTION_SET (avx512, avx2, baseline) restricts the kernels; DEEPSIM_NUM_THREADS sets the threads.
    Raises BundleError and its kinds for the bundle, DeviceError for an instruction set that this CPU lacks.
    """
    return CpuBackend(bundle, max_batch, half_fc_weights)


class CpuBackend:
    """One deepsim_inverter, shared by all threads: calls wait for each other, each uses all CPUs."""

    name = "cpu"
    device = "cpu"

    def __init__(self, bundle: Bundle, max_batch: int, half_fc_weights: bool) -> None:
        wanted = os.environ.get(INSTRUCTION_SET_VARIABLE, "")
        options = native_library.Options(
            ctypes.sizeof(native_library.Options), max_batch, 0, int(half_fc_weights), wanted.encode() or None
        )
        handle = ctypes.c_void_p()
        native_library.call("deepsim_open", os.fsencode(bundle.path), ctypes.byref(options), ctypes.byref(handle))
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
