"""The Inverter: a bundle, loaded into a backend, that turns photographs into features and features into images."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, Literal, get_args, overload

import numpy as np
from numpy.typing import NDArray

from deepsim.runtime import backends
from deepsim.runtime.backends.devices import parse_device
from deepsim.runtime.backends.sessions import Sessions
from deepsim.runtime.bundle import Bundle
from deepsim.runtime.chunks import Chunks
from deepsim.runtime.dataset import Images, OnError, Photograph, images_ahead, numbered, read_batches
from deepsim.runtime.device_arrays import DeviceArray
from deepsim.runtime.device_calls import DeviceCalls, OnDevice
from deepsim.runtime.errors import DeviceError, ShapeError, UsageError
from deepsim.runtime.images import Photo
from deepsim.runtime.inputs import (
    Features,
    Photos,
    check_features,
    check_keep,
    check_photos,
    feature_rows,
    host_array,
    is_features,
    whole_number,
)
from deepsim.runtime.pixels import Pixels
from deepsim.runtime.prior import draw_codes, require_prior


def available_backends() -> dict[str, str | None]:
    """Map every backend's name to None when it is usable here, else to the reason in one line."""
    return backends.reasons()


def _reopen(path: str, backend: str, device: str, max_batch: int, options: dict[str, Any]) -> Inverter:
    """Open the Inverter that was pickled in another process."""
    return Inverter(path, backend, device, max_batch, **options)


class Inverter:
    """Encode, decode, reconstruct and re-encode with one bundle.

    ``bundle`` is a bundle folder. ``backend`` is a name of :func:`available_backends` or "auto", the first usable of
    cpu, cuda, onnxruntime, torch. ``device`` is "cpu", a GPU (0 or "cuda:0"), or "auto": the first GPU that the backend
    can use, else the CPU. "auto" chooses once, and ``repr`` shows what; nothing that is named is ever replaced.

    Batches of any size are run in chunks of at most ``max_batch``, in order. With the backend cpu an image's bits are
    the same in any batch; with others the last bits may depend on how a batch is cut. DEEPSIM_NUM_THREADS sets the
    number of CPU threads. Options of one backend:

    * cpu: ``half_fc_weights`` stores fully connected weights as fp16, with fp32 arithmetic. That halves the memory
      traffic that limits fc6 at batch 1, for a relative error of about 3e-4 in each layer.
    * cuda: ``precision`` is "fp16", the default, or "bf16" for values beyond 65504, with fp32 sums, or "fp32", a
      reference without tensor cores. ``stable`` gives an image the same bits in every batch, slower for few images.

    A bundle's encoder is one of three: a table, which the backend runs; a graph, which ONNX Runtime runs beside the
    backend (``encoder_backend``, ``encoder_device``); or missing. Without an encoder, features are decoded and
    interpolated, and the methods that encode raise UsageError. Without a generator, photographs are encoded, and the
    methods that decode raise UsageError. Where the bundle's ``display`` is "stretch", images are stretched as in some
    published pictures (:func:`deepsim.runtime.pixels.stretched`).

    Photographs are paths, Pillow images or uint8 RGB arrays (N, H, W, 3), 0-255. Those without ``image_size`` pixels on
    both sides are resized and cropped by the bundle's ``geometry``. A lone photograph counts as a batch of one. Tensors
    of other libraries in host memory are read through DLPack. Images come back as uint8 RGB (N, side, side, 3), where
    side is ``image_size``; a generator's smaller ones (Dosovitskiy & Brox 2015) are enlarged, on the host alone.

    Arrays on the backend cuda's GPU (PyTorch, CuPy, pycuda, JAX: ``__cuda_array_interface__`` or DLPack) go in and come
    back as :class:`~deepsim.runtime.device_arrays.DeviceArray` without a copy through the host: photographs uint8
    (N, side, side, 3), features float32, C-contiguous, not checked for NaN. The work is queued on ``stream``, a CUDA
    stream's handle (``torch.cuda.current_stream().cuda_stream``), and the call returns at once. Without ``stream``, it
    is the stream that the array names, else the default stream. The work waits for an array that names another stream.
    An array that names none is taken to be ready on ``stream``, or, without ``stream``, is brought to the default
    stream by its library. Inputs of another stream live as long as the result.

    Threads may share an Inverter. A process forked after it was made must not use it; a process that it is sent to
    (pickled) opens the bundle again. After any error it is usable as before. Every method raises, besides what it
    names: DataError for unreadable photographs, ShapeError and DtypeError for arrays, OutOfMemory, DeviceError (device,
    fork, closed).

    Raises on construction: UsageError; BundleError, BundleCorrupt, BundleUnsafe; DeviceError with the reason when
    the backend or device is not usable here.
    """

    def __init__(
        self,
        bundle: str | os.PathLike[str] | Bundle,
        backend: str = "auto",
        device: int | str = "auto",
        max_batch: int = 64,
        half_fc_weights: bool = False,
        precision: str | None = None,
        stable: bool = False,
    ) -> None:
        self.max_batch = whole_number("max_batch", max_batch, 1, 1 << 16)
        parsed = parse_device(device)
        if not isinstance(bundle, (str, os.PathLike, Bundle)):
            raise UsageError(f"bundle: {type(bundle).__name__}, expected the path of a bundle folder.")
        self.bundle = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
        options = {"half_fc_weights": half_fc_weights, "precision": precision, "stable": stable}
        self._path = os.path.abspath(self.bundle.path)  # noqa: PTH100  # for other processes, whatever their folder
        self._options = {name: value for name, value in options.items() if value}
        sessions = backends.create(backend, self.bundle, parsed, self.max_batch, **self._options)
        self.backend, self.device = sessions.name, sessions.device
        self.encoder_backend = None if sessions.encoder is None else sessions.encoder.name
        self.encoder_device = None if sessions.encoder is None else sessions.encoder.device
        self.geometry = self.bundle.manifest.geometry
        self._sessions: Sessions | None = sessions
        self._process = os.getpid()

    @property
    def layer(self) -> str:
        """Return the name of the inverted layer, such as "fc6"."""
        return self.bundle.manifest.layer

    @property
    def feature_shape(self) -> tuple[int, ...]:
        """Return the shape of one feature, (C, H, W) or (C,)."""
        return self.bundle.manifest.feature_shape

    @property
    def image_size(self) -> int:
        """Return the side in pixels of the encoder's input and of reconstructions, such as 227."""
        return self.geometry.side

    @property
    def batches_at_once(self) -> int:
        """Return how many batches are best under way at once: on a GPU one is copied while another is computed."""
        return 1 if self.device == "cpu" else 2

    @property
    def full_image_size(self) -> int:
        """Return the side of the images of ``decode(features, full=True)`` in pixels, such as 256."""
        return self.bundle.manifest.full_size

    @overload
    def encode(self, photos: DeviceArray, stream: int | None = None) -> DeviceArray: ...
    @overload
    def encode(self, photos: Photos, stream: int | None = None) -> NDArray[np.float32]: ...
    @overload
    def encode(self, photos: OnDevice, stream: int | None = None) -> NDArray[np.float32] | DeviceArray: ...
    def encode(self, photos: Any, stream: int | None = None) -> NDArray[np.float32] | DeviceArray:
        """Compute the layer's features of photographs: float32 (N, *feature_shape).

        >>> inverter.encode(["cat.jpg", "dog.jpg"]).shape
        (2, 256, 13, 13)
        """
        made = self._device_calls().encode(photos, stream)
        if made is not None:
            return made
        return self._over_photos(photos, self.feature_shape, np.float32, self._ready().encoding().encode)

    @overload
    def decode(
        self, features: DeviceArray, full: bool = False, stream: int | None = None, *, raw: bool = False
    ) -> DeviceArray: ...
    @overload
    def decode(
        self, features: Features, full: bool = False, stream: int | None = None, *, raw: Literal[False] = False
    ) -> Pixels: ...
    @overload
    def decode(
        self, features: Features, full: bool = False, stream: int | None = None, *, raw: Literal[True]
    ) -> NDArray[np.float32]: ...
    @overload
    def decode(
        self, features: Features, full: bool = False, stream: int | None = None, *, raw: bool
    ) -> Pixels | NDArray[np.float32]: ...
    @overload
    def decode(
        self, features: OnDevice, full: bool = False, stream: int | None = None, *, raw: bool = False
    ) -> Pixels | NDArray[np.float32] | DeviceArray: ...
    def decode(
        self, features: Any, full: bool = False, stream: int | None = None, *, raw: bool = False
    ) -> Pixels | NDArray[np.float32] | DeviceArray:
        """Generate images from features (N, *feature_shape) of any floating-point type, converted to float32.

        Returns the part that training scored, uint8 RGB (N, side, side, 3), with ``full`` the whole (N, S, S, 3), whose
        outer ring no training loss has seen. With ``raw``, images are float32 RGB in grey levels, with the mean added,
        before they are clipped to 0-255 and rounded: :func:`deepsim.runtime.pixels.rounded` of them is what ``decode``
        gives without. Raises DataError when a feature is NaN or infinite.

        >>> inverter.decode(np.zeros((1, 256, 13, 13)), full=True).shape
        (1, 240, 240, 3)
        >>> inverter.decode(np.zeros((1, 256, 13, 13)), raw=True).dtype
        dtype('float32')
        """
        made = self._device_calls().decode(features, bool(full), bool(raw), stream)
        if made is not None:
            return made
        decoder = self._ready().decoding()
        array = check_features(features, self.feature_shape)
        side = self.full_image_size if full else self.image_size
        function, dtype = (decoder.decode_raw, np.float32) if raw else (decoder.decode, np.uint8)
        return self._chunks.compute(
            len(array), (side, side, 3), dtype, lambda chunk: function(feature_rows(array[chunk]), bool(full))
        )

    @overload
    def reconstruct(self, photos: DeviceArray, stream: int | None = None) -> DeviceArray: ...
    @overload
    def reconstruct(self, photos: Photos, stream: int | None = None) -> Pixels: ...
    @overload
    def reconstruct(self, photos: OnDevice, stream: int | None = None) -> Pixels | DeviceArray: ...
    def reconstruct(self, photos: Any, stream: int | None = None) -> Pixels | DeviceArray:
        """Encode and decode photographs, on the device alone where one backend does both: (N, side, side, 3).

        >>> inverter.reconstruct("cat.jpg").shape
        (1, 227, 227, 3)
        """
        made = self._device_calls().reconstruct(photos, stream)
        if made is not None:
            return made
        loop = self._ready().looping()
        return self._over_photos(
            photos, self._image_shape, np.uint8, lambda images: loop.reencode(images, 1, (1,))[:, 0]
        )

    @overload
    def reencode(
        self, photos: DeviceArray, iterations: int = 8, keep: Iterable[int] = (1, 2, 4, 8), stream: int | None = None
    ) -> DeviceArray: ...
    @overload
    def reencode(
        self, photos: Photos, iterations: int = 8, keep: Iterable[int] = (1, 2, 4, 8), stream: int | None = None
    ) -> Pixels: ...
    @overload
    def reencode(
        self, photos: OnDevice, iterations: int = 8, keep: Iterable[int] = (1, 2, 4, 8), stream: int | None = None
    ) -> Pixels | DeviceArray: ...
    def reencode(
        self, photos: Any, iterations: int = 8, keep: Iterable[int] = (1, 2, 4, 8), stream: int | None = None
    ) -> Pixels | DeviceArray:
        """Reconstruct photographs, then their reconstructions, ``iterations`` times over (paper, Figure 5).

        Iteration k equals ``reconstruct`` applied k times to its own uint8 output, exactly. Returns the iterations in
        ``keep``, counted from 1 and increasing: uint8 RGB (N, len(keep), side, side, 3). Raises UsageError when
        ``keep`` does not increase within 1..iterations.

        >>> inverter.reencode("cat.jpg", iterations=2, keep=(1, 2)).shape
        (1, 2, 227, 227, 3)
        """
        kept = check_keep(iterations, keep)
        made = self._device_calls().reencode(photos, int(iterations), kept, stream)
        if made is not None:
            return made
        loop, shape = self._ready().looping(), (len(kept), *self._image_shape)
        return self._over_photos(photos, shape, np.uint8, lambda images: loop.reencode(images, int(iterations), kept))

    @overload
    def interpolate(
        self, photo_a: Photo | Features, photo_b: Photo | Features, steps: int = 8, stream: int | None = None
    ) -> Pixels: ...
    @overload
    def interpolate(
        self, photo_a: OnDevice, photo_b: OnDevice, steps: int = 8, stream: int | None = None
    ) -> Pixels | DeviceArray: ...
    def interpolate(
        self, photo_a: Any, photo_b: Any, steps: int = 8, stream: int | None = None
    ) -> Pixels | DeviceArray:
        """Decode ``steps`` features on the straight line from one photograph's to the other's (paper, Figure 7).

        Both ends are included: uint8 RGB (steps, side, side, 3). A floating-point array of shape ``feature_shape`` is
        taken as a feature itself. Arrays on the GPU are (1, side, side, 3) or (1, *feature_shape), both ends there:
        UsageError when one is not.

        >>> inverter.interpolate("cat.jpg", "dog.jpg", steps=3).shape
        (3, 227, 227, 3)
        """
        made = self._device_calls().interpolate(photo_a, photo_b, whole_number("steps", steps, 2, 1 << 20), stream)
        if made is not None:
            return made
        self._ready().decoding()
        weights = np.linspace(0, 1, int(steps), dtype=np.float32)
        start, end = self._feature(photo_a), self._feature(photo_b)
        weights = weights.reshape(-1, *[1] * start.ndim)
        return self.decode((1 - weights) * start + weights * end)

    def sample(self, count: int, seed: int = 0, temperature: float = 1.0) -> Images:
        """Decode codes that are drawn from the bundle's prior (paper, section 4.2): uint8 RGB (count, side, side, 3).

        ``features`` of what is returned are the codes, drawn by :func:`deepsim.runtime.prior.draw_codes`: each depends
        on its number, ``seed`` and ``temperature`` alone. Raises UsageError for a bundle without a prior.
        """
        require_prior(self.bundle.manifest.prior, self.bundle.path, self.layer)
        numbers = range(whole_number("count", count, 0))
        codes = draw_codes(self.feature_shape, numbers, seed, temperature)
        return Images.of(self.decode(codes), [Photograph(number, "") for number in numbers], codes)

    def stream(
        self, paths: Iterable[Photo], batch: int = 64, on_error: OnError = "stop", features: bool = False
    ) -> Iterator[Images]:
        """Reconstruct any number of photographs, ``batch`` at a time: yields uint8 RGB (batch, side, side, 3) in order.

        What is yielded is an array with ``names`` and ``index``, and with ``features`` those that the images were made
        from too (see :class:`deepsim.runtime.dataset.Images`). Photographs are read in one background thread and
        computed in others, a few batches ahead at most, so that reading, computing and what the caller does with a
        batch overlap; with a GPU two batches are under way, so that one is copied while the other is computed. Closing
        the generator stops all.

        An unusable photograph raises DataError, after the batches before it; with ``on_error="skip"`` a warning names
        it, and ``index`` has a gap.

        >>> [(images.names, images.index) for images in inverter.stream(["cat.jpg", "dog.jpg"], batch=1)]
        [(('cat.jpg',), (0,)), (('dog.jpg',), (1,))]
        """
        whole_number("batch", batch, 1)
        if on_error not in get_args(OnError):
            raise UsageError(f"on_error: {on_error!r}, expected stop or skip.")
        self._ready().looping()
        lazy = isinstance(paths, Iterable) and not isinstance(paths, (str, bytes, os.PathLike, np.ndarray))
        photographs = numbered(paths if lazy else check_photos(paths))

        def compute(pixels: Pixels) -> tuple[Pixels, NDArray[np.float32] | None]:
            if not features:
                return self.reconstruct(pixels), None
            encoded = self.encode(pixels)
            return self.decode(encoded), encoded

        batches = read_batches(photographs, batch, self.geometry.framing, on_error)
        return images_ahead(batches, compute, self.batches_at_once)

    def close(self) -> None:
        """Let go of the backend; later calls raise UsageError. Closing twice is fine."""
        self._sessions = None  # calls that run in other threads keep theirs until they end

    def __enter__(self) -> Inverter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Callable[..., Inverter], tuple[Any, ...]]:
        """Pickle as a path and options: another process opens the bundle again, on the same backend and device."""
        self._ready()
        return _reopen, (self._path, self.backend, self.device, self.max_batch, self._options)

    def __repr__(self) -> str:
        return (
            f"Inverter({str(self.bundle.path)!r}, encoder={self._described_encoder()}, layer={self.layer!r}, "
            f"backend={self.backend!r}, device={self.device!r}, max_batch={self.max_batch})"
        )

    def _described_encoder(self) -> str:
        """Name the encoder, and what runs it where that is not the backend on its device."""
        name = repr(self.bundle.manifest.encoder_name)
        if (self.encoder_backend, self.encoder_device) in ((self.backend, self.device), (None, None)):
            return name
        return f"{name} run by {self.encoder_backend} on {self.encoder_device}"

    @property
    def _image_shape(self) -> tuple[int, int, int]:
        return (self.image_size, self.image_size, 3)

    def _ready(self) -> Sessions:
        """Return what runs the bundle. Raises UsageError when closed, DeviceError in a forked child."""
        if os.getpid() != self._process:
            raise DeviceError(
                "inverter: made before this process was forked, which no backend survives. Make it after the fork, "
                "or start processes with the spawn method."
            )
        if self._sessions is None:
            raise UsageError("inverter: closed, expected an open one. Make a new Inverter.")
        return self._sessions

    def _device_calls(self) -> DeviceCalls:
        return DeviceCalls(self._ready().gpu, self.feature_shape, self.image_size)

    def _over_photos(
        self, photos: Photos, row: tuple[int, ...], dtype: type[np.generic], function: Callable[[Pixels], NDArray[Any]]
    ) -> NDArray[Any]:
        return self._chunks.over_photos(photos, self.geometry.framing, row, dtype, function)

    @property
    def _chunks(self) -> Chunks:
        return Chunks(self.max_batch, self.batches_at_once)

    def _feature(self, value: Any) -> NDArray[np.float32]:
        """Return one feature (C, H, W) or (C,), encoded from a photograph or taken as it is."""
        features: NDArray[np.float32]
        if is_features(value, self.feature_shape):
            array = host_array(value, "features").reshape(1, *self.feature_shape)
            features = feature_rows(check_features(array, self.feature_shape))
        else:
            features = self.encode(value)
        if len(features) != 1:
            raise ShapeError(f"photo: {len(features)} photographs, expected one. Pass them one by one.")
        return features.reshape(self.feature_shape)
