"""What a backend hands out for a bundle: sessions, each for one direction, which the Inverter puts together.

All are safe to call from several threads at once. Images are C-contiguous uint8 RGB (n, side, side, 3), features
C-contiguous finite float32 (n, *feature_shape), with 1 <= n <= max_batch: the Inverter checks, converts and chunks.
Every method raises DeviceError when the device fails and OutOfMemory when it has too little memory, and stays usable.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from deepsim.runtime.device_arrays import DeviceArray, DeviceView
from deepsim.runtime.errors import DeepsimError
from deepsim.runtime.geometry import Geometry, enlarged
from deepsim.runtime.pixels import Pixels, rounded, stretched


class Session(Protocol):
    """Runs a part of a bundle; ``name`` is the backend's, ``device`` "cpu" or "cuda:N"."""

    name: str
    device: str


class EncodeSession(Session, Protocol):
    """From images to features."""

    def encode(self, images: Pixels) -> NDArray[np.float32]:
        """Compute the features of images, float32 (n, *feature_shape)."""
        ...


class DecodeSession(Session, Protocol):
    """From features to images."""

    def decode(self, features: NDArray[np.float32], full: bool) -> Pixels:
        """Generate images from features: uint8 (n, side, side, 3), with ``full`` the whole (n, S, S, 3)."""
        ...

    def decode_raw(self, features: NDArray[np.float32], full: bool) -> NDArray[np.float32]:
        """Generate the same images as grey levels, float32, before they are clipped to 0-255 and rounded."""
        ...


class LoopSession(Session, Protocol):
    """Both directions at once, on one device."""

    def reencode(self, images: Pixels, iterations: int, keep: tuple[int, ...]) -> Pixels:
        """Encode and decode ``iterations`` times over; return iterations ``keep``, uint8 (n, len(keep), side, side, 3).

        Iteration k is decode(encode(.)) applied k times to its own uint8 output, exactly: images are rounded to uint8
        between iterations. ``keep`` counts from 1, is strictly increasing and ends at ``iterations`` at most.
        """
        ...


class Backend(EncodeSession, DecodeSession, LoopSession, Protocol):
    """What runs both networks, each where the bundle has it for the backend."""


class DeviceSession(Session, Protocol):
    """Everything on arrays in the memory of the session's GPU, in the order of ``stream``; returns at once."""

    def order(self, first: int, later: int) -> None:
        """Let what the stream ``later`` is given from now on begin after what the stream ``first`` holds now."""
        ...

    def encode_on_device(self, images: DeviceView, stream: int) -> DeviceArray:
        """Compute the features of images (n, side, side, 3)."""
        ...

    def decode_on_device(self, features: DeviceView, full: bool, raw: bool, stream: int) -> DeviceArray:
        """Generate images from features; with ``raw`` float32, before they are clipped and rounded."""
        ...

    def reconstruct_on_device(self, images: DeviceView, stream: int) -> DeviceArray:
        """Reconstruct images: (n, side, side, 3)."""
        ...

    def reencode_on_device(
        self, images: DeviceView, iterations: int, keep: tuple[int, ...], stream: int
    ) -> DeviceArray:
        """Re-encode images: (n, len(keep), side, side, 3)."""
        ...

    def interpolate_on_device(self, start: DeviceView, end: DeviceView, steps: int, stream: int) -> DeviceArray:
        """Generate images of ``steps`` features on the line from one to another: (steps, side, side, 3)."""
        ...


@dataclass(frozen=True)
class Sessions:
    """What runs a bundle: ``name`` and ``device`` of the backend, and its sessions.

    ``encoder`` is None where nothing here can encode, ``decoder`` where nothing can decode; ``no_encoder`` and
    ``no_decoder`` are the errors that say why. ``loop`` is there where both are, ``gpu`` where the backend takes arrays
    on a GPU.
    """

    name: str
    device: str
    decoder: DecodeSession | None = None
    encoder: EncodeSession | None = None
    loop: LoopSession | None = None
    gpu: DeviceSession | None = None
    no_encoder: DeepsimError | None = None
    no_decoder: DeepsimError | None = None

    @classmethod
    def of(cls, backend: Backend, *, encodes: bool, decodes: bool) -> Sessions:
        """Hand out a backend that runs the networks of a bundle itself, as far as they are there for it."""
        return cls(
            backend.name,
            backend.device,
            decoder=backend if decodes else None,
            encoder=backend if encodes else None,
            loop=backend if encodes and decodes else None,
        )

    def encoding(self) -> EncodeSession:
        """Return what encodes. Raises the error that says why nothing does."""
        if self.encoder is None:
            raise _again(self.no_encoder)
        return self.encoder

    def decoding(self) -> DecodeSession:
        """Return what decodes. Raises the error that says why nothing does."""
        if self.decoder is None:
            raise _again(self.no_decoder)
        return self.decoder

    def looping(self) -> LoopSession:
        """Return what does both. Raises as :meth:`encoding` and :meth:`decoding`."""
        self.encoding()
        self.decoding()
        if self.loop is None:
            raise ValueError("sessions: an encoder and a decoder, and no loop. Report this.")
        return self.loop


def _again(error: DeepsimError | None) -> DeepsimError:
    """Return a copy of an error: each is raised with its own traceback."""
    if error is None:
        raise ValueError("sessions: nothing says why there is none. Report this.")
    return type(error)(str(error))


class EnlargedDecoder:
    """A decoder whose images are those of another one, enlarged (:func:`deepsim.runtime.geometry.enlarged`)."""

    def __init__(self, decoder: DecodeSession, geometry: Geometry) -> None:
        self._decoder, self._geometry = decoder, geometry
        self.name, self.device = decoder.name, decoder.device

    def decode(self, features: NDArray[np.float32], full: bool) -> Pixels:
        """Generate images from features, enlarged unless ``full`` (see :class:`DecodeSession`)."""
        return self._decoder.decode(features, True) if full else rounded(self.decode_raw(features, False))

    def decode_raw(self, features: NDArray[np.float32], full: bool) -> NDArray[np.float32]:
        """Generate images before they are clipped and rounded."""
        levels = self._decoder.decode_raw(features, True)
        return levels if full else enlarged(self._geometry.crop(levels), self._geometry.side)


class StretchedDecoder:
    """A decoder whose pictures are raw images of another one, stretched (:func:`deepsim.runtime.pixels.stretched`)."""

    def __init__(self, decoder: DecodeSession) -> None:
        self._decoder = decoder
        self.name, self.device = decoder.name, decoder.device

    def decode(self, features: NDArray[np.float32], full: bool) -> Pixels:
        """Generate images from features, each stretched by itself (see :class:`DecodeSession`)."""
        return stretched(self._decoder.decode_raw(features, full))

    def decode_raw(self, features: NDArray[np.float32], full: bool) -> NDArray[np.float32]:
        """Generate images before they are stretched."""
        return self._decoder.decode_raw(features, full)


class TwoSessions:
    """The loop through an encoder and a decoder that know nothing of each other, by way of the host."""

    def __init__(self, encoder: EncodeSession, decoder: DecodeSession) -> None:
        self._encoder, self._decoder = encoder, decoder
        self.name, self.device = decoder.name, decoder.device

    def reencode(self, images: Pixels, iterations: int, keep: tuple[int, ...]) -> Pixels:
        """Re-encode images (see :class:`LoopSession`)."""
        kept = np.empty((len(images), len(keep), *images.shape[1:]), np.uint8)
        for iteration in range(1, iterations + 1):
            images = self._decoder.decode(self._encoder.encode(images), full=False)
            if iteration in keep:
                kept[:, keep.index(iteration)] = images
        return kept
