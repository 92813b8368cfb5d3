"""The Inverter's calls on arrays in the memory of a GPU: the arrays checked, the work in the order of streams."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from deepsim.runtime.backends.sessions import DeviceSession
from deepsim.runtime.device_arrays import DeviceArray, DeviceView, check_view, handle_of, sources_of, view_of
from deepsim.runtime.errors import ShapeError, UsageError
from deepsim.runtime.inputs import whole_number


class OnDevice(Protocol):
    """An array of another library that may lie on a GPU (DLPack): PyTorch, CuPy, JAX, numba."""

    def __dlpack_device__(self) -> tuple[Any, Any]:
        """Return DLPack's type and number of the device."""
        ...


class DeviceCalls:
    """Calls on a session's GPU for arrays that lie there; every method returns None for anything else.

    ``feature_shape`` and ``side`` are the bundle's. Without a ``stream``, it is the one that the array is ready on.
    """

    def __init__(self, session: DeviceSession | None, feature_shape: tuple[int, ...], side: int) -> None:
        self._session, self._feature_shape, self._image_shape = session, feature_shape, (side, side, 3)

    def encode(self, photos: object, stream: int | None) -> DeviceArray | None:
        """Encode photographs that lie on the GPU."""
        return self._call(photos, "photos", stream, lambda session, view, queue: session.encode_on_device(view, queue))

    def decode(self, features: object, full: bool, raw: bool, stream: int | None) -> DeviceArray | None:
        """Decode features that lie on the GPU."""
        return self._call(
            features, "features", stream, lambda session, view, queue: session.decode_on_device(view, full, raw, queue)
        )

    def reconstruct(self, photos: object, stream: int | None) -> DeviceArray | None:
        """Reconstruct photographs that lie on the GPU."""
        return self._call(
            photos, "photos", stream, lambda session, view, queue: session.reconstruct_on_device(view, queue)
        )

    def reencode(
        self, photos: object, iterations: int, keep: tuple[int, ...], stream: int | None
    ) -> DeviceArray | None:
        """Re-encode photographs that lie on the GPU."""
        return self._call(
            photos,
            "photos",
            stream,
            lambda session, view, queue: session.reencode_on_device(view, iterations, keep, queue),
        )

    def interpolate(self, photo_a: object, photo_b: object, steps: int, stream: int | None) -> DeviceArray | None:
        """Interpolate between two arrays on the GPU. Raises UsageError when only one lies there."""
        given = None if stream is None else handle_of(whole_number("stream", stream, 0, 1 << 63))
        subjects = ("photo_a", "photo_b")
        views = [self._view(photo, name, given) for photo, name in zip((photo_a, photo_b), subjects, strict=True)]
        if self._session is None or (views[0] is None and views[1] is None):
            return None
        if views[0] is None or views[1] is None:
            raise UsageError("photo_a, photo_b: one is on the GPU, the other is not. Put both there.")
        session, queue = self._session, views[0].stream if given is None else given
        ends = [self._end(session, view, name, queue) for view, name in zip(views, subjects, strict=True) if view]
        made = session.interpolate_on_device(ends[0], ends[1], steps, queue)
        made.sources = sources_of(queue, *filter(None, views))
        return made

    def _call(
        self,
        value: object,
        subject: str,
        stream: int | None,
        method: Callable[[DeviceSession, DeviceView, int], DeviceArray],
    ) -> DeviceArray | None:
        given = None if stream is None else handle_of(whole_number("stream", stream, 0, 1 << 63))
        view = self._view(value, subject, given)
        if self._session is None or view is None:
            return None
        is_feature = subject == "features"
        check_view(
            view,
            subject,
            self._feature_shape if is_feature else self._image_shape,
            np.float32 if is_feature else np.uint8,
        )
        queue = view.stream if given is None else given
        self._session.order(view.stream, queue)
        made = method(self._session, view, queue)
        made.sources = sources_of(queue, view)
        return made

    def _view(self, value: object, subject: str, stream: int | None) -> DeviceView | None:
        """Return how an array on a GPU lies there, where the session is on one too; else None."""
        return None if self._session is None else view_of(value, subject, stream)

    def _end(self, session: DeviceSession, view: DeviceView, subject: str, queue: int) -> DeviceView:
        """Return one end of an interpolation as a feature that is ready on ``queue``; photographs are encoded there."""
        is_feature = view.dtype == np.float32
        if is_feature:
            count = check_view(view, subject, self._feature_shape, np.float32)
        else:
            count = check_view(view, subject, self._image_shape, np.uint8)
        if count != 1:
            raise ShapeError(f"{subject}: {count} on the GPU, expected one. Pass them one by one.")
        session.order(view.stream, queue)
        if is_feature:
            return view
        feature = session.encode_on_device(view, queue)
        return DeviceView(feature.address, feature.shape, feature.dtype, queue, feature)
