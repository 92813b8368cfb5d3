"""Open a bundle ``NAME.deepsim/`` and hand out its files, each byte checked against the manifest before anyone sees it.

Hashes guard against damage and swaps, not forgery: a bundle is trusted code, use those that you or yours exported.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepsim.kernels.layers import Layer, Shape, shapes
from deepsim.runtime.errors import BundleCorrupt, BundleError, BundleUnsafe, DeepsimError
from deepsim.runtime.files import restore, sha256
from deepsim.runtime.generators import GeneratorSpec
from deepsim.runtime.geometry import MAX_SIDE
from deepsim.runtime.manifest import FILE_NAME, MAX_BYTES, FileRecord, Manifest
from deepsim.runtime.networks import EncoderSpec, GraphEncoder
from deepsim.runtime.pixels import PixelConvention

MAX_FILE_BYTES = 8 << 30
MAX_CHANNELS = 1 << 16
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}(/[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}){0,3}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Bundle:
    """A bundle folder whose manifest has been read and checked; its other files are read on demand."""

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Bundle:
        """Read and check the manifest of the bundle folder ``path``.

        Raises BundleError when it is missing or not a bundle, BundleCorrupt when a byte of the manifest changed,
        BundleUnsafe when the manifest names a file outside of the bundle or is built to mislead.

        >>> Bundle.open("norm2.deepsim").manifest.layer
        'norm2'
        """
        folder = Path(path)
        if not folder.is_dir():
            restore(folder)
        if not folder.is_dir():
            found = "a file" if folder.exists() else "not found"
            raise BundleError(
                f"{folder}: {found}, expected a bundle folder. Give the folder that deepsim export wrote."
            )
        try:
            data = _read_file(folder, FILE_NAME, None)
        except FileNotFoundError as error:
            raise BundleError(
                f"{folder}: no {FILE_NAME} in it, expected a bundle. Give the folder that deepsim export wrote."
            ) from error
        return cls(folder, _parse(data, str(folder / FILE_NAME)))

    def read(self, name: str) -> bytes:
        """Return the content of a listed file; exactly these bytes have the recorded size and SHA-256.

        Raises BundleUnsafe for a name or file that leaves the bundle (``..``, links, devices), BundleError when the
        manifest does not list it, BundleCorrupt when it is missing, cut off or changed.

        >>> len(Bundle.open("norm2.deepsim").read("README.md"))
        21
        """
        _check_name(name, str(self.path))
        record = self.manifest.files.get(name)
        if record is None:
            listed = ", ".join(sorted(self.manifest.files)) or "no files"
            raise BundleError(f"{self.path}: {name} is not in its manifest, which lists {listed}. Export it again.")
        try:
            data = _read_file(self.path, name, record.size)
        except FileNotFoundError as error:
            raise BundleCorrupt(
                f"{self.path / name}: missing, the manifest lists it. Copy or export it again."
            ) from error
        if sha256(data) != record.sha256:
            raise BundleCorrupt(
                f"{self.path / name}: its SHA-256 does not match the manifest. Copy or export it again."
            )
        return data


def _parse(data: bytes, source: str) -> Manifest:
    """Read and check a manifest; values that only arithmetic minds (NaN, a zero stride, depth) are BundleUnsafe too."""
    try:
        manifest = Manifest.from_bytes(data, source)
        _check(manifest, source)
        return manifest
    except DeepsimError:
        raise
    except (ArithmeticError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise BundleUnsafe(
            f"{source}: absurd values ({error!r}), expected a manifest. Do not use this bundle."
        ) from error


def _read_file(folder: Path, name: str, size: int | None) -> bytes:
    """Read a regular file through real folders only; its size must be ``size`` (None: at most a manifest's)."""
    with _opened(folder, name) as descriptor:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise BundleUnsafe(f"{folder / name}: not a regular file. Do not use this bundle.")
        if size is None and status.st_size > MAX_BYTES:
            raise BundleUnsafe(
                f"{folder / name}: {status.st_size:,} bytes, expected at most {MAX_BYTES:,}. Do not use it."
            )
        expected = status.st_size if size is None else size
        if status.st_size != expected:
            raise BundleCorrupt(
                f"{folder / name}: {status.st_size:,} bytes, expected {expected:,}. Copy or export the bundle again."
            )
        with os.fdopen(os.dup(descriptor), "rb") as file:
            return file.read(expected)  # bounded, should the file grow meanwhile


@contextmanager
def _opened(folder: Path, name: str) -> Iterator[int]:
    """Open ``folder/name`` for reading, one path component at a time, following no link below ``folder``."""
    *parents, last = name.split("/")
    with _access_errors(folder / name):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with _access_errors(folder / name):
            for part in parents:
                descriptor = _descend(descriptor, part, os.O_DIRECTORY)
            descriptor = _descend(descriptor, last, os.O_NONBLOCK)  # a FIFO must not block us
        yield descriptor
    finally:
        os.close(descriptor)


def _descend(parent: int, part: str, flags: int) -> int:
    child = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | flags, dir_fd=parent)
    os.close(parent)
    return child


@contextmanager
def _access_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.ENXIO):  # what a link, a file as folder, a socket answer
            raise BundleUnsafe(f"{path}: not a regular file reached without links. Do not use this bundle.") from error
        raise BundleError(f"{path}: {error.strerror}, expected a readable file. Check its permissions.") from error


def _check(manifest: Manifest, source: str) -> None:
    if not isinstance(manifest.name, str):
        raise BundleUnsafe(f"{source}: its name is {manifest.name!r}, expected text. Do not use this bundle.")
    for name, record in manifest.files.items():
        _check_name(name, source)
        _check_record(name, record, source)
    for engine in manifest.engines:
        _check_engine(engine, manifest.files, source)
    _check_networks(manifest, source)


def _check_name(name: str, source: str) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name) or name == FILE_NAME:
        raise BundleUnsafe(
            f"{source}: file name {name!r}, expected a plain relative path in the bundle. Do not use this bundle."
        )


def _check_record(name: str, record: FileRecord, source: str) -> None:
    size, digest = record.size, record.sha256
    if type(size) is not int or not 0 <= size <= MAX_FILE_BYTES:
        raise BundleUnsafe(f"{source}: size of {name} is {size!r}, expected 0 to {MAX_FILE_BYTES:,}. Do not use it.")
    if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
        raise BundleUnsafe(f"{source}: sha256 of {name} is not 64 hexadecimal digits. Do not use this bundle.")


def _check_engine(engine: Any, files: dict[str, FileRecord], source: str) -> None:
    path = engine.get("path") if isinstance(engine, dict) else None
    if not isinstance(path, str):
        raise BundleUnsafe(f"{source}: an engine without a path, expected target, precision, path. Do not use it.")
    _check_name(path, source)
    if not any(name == path or name.startswith(f"{path}/") for name in files):
        raise BundleUnsafe(f"{source}: engine {path} has no listed file, so no hash. Export the bundle again.")


def _check_networks(manifest: Manifest, source: str) -> None:
    """Refuse layer tables that do not fit together or whose tensors no real network has."""
    encoder, generator = manifest.encoder, manifest.generator
    fits = (
        (generator is None or _sane_generator(generator))
        and manifest.geometry.fits(manifest.full_size)
        and (generator is not None or not manifest.geometry.enlarges)
        and (encoder is None or (_sane_encoder(encoder) and _features_of(encoder) == manifest.feature_shape))
    )
    if not fits:
        side = manifest.geometry.side
        raise BundleUnsafe(f"{source}: its networks do not fit together, expected {side}x{side} pixels in and out.")


def _sane_generator(generator: GeneratorSpec) -> bool:
    return _sane_network(generator) and _is_image(shapes(generator.layers, generator.input_shape)[-1])


def _sane_encoder(encoder: EncoderSpec | GraphEncoder) -> bool:
    if isinstance(encoder, EncoderSpec):
        return _sane_network(encoder)
    return (
        isinstance(encoder.name, str)
        and isinstance(encoder.layer, str)
        and all(type(extent) is int for extent in encoder.feature_shape)
        and _sane_pixels(encoder.pixels)
    )


def _features_of(encoder: EncoderSpec | GraphEncoder) -> Shape:
    if isinstance(encoder, EncoderSpec):
        return shapes(encoder.layers, encoder.input_shape)[-1]
    return encoder.feature_shape


def _sane_network(spec: EncoderSpec | GeneratorSpec) -> bool:
    if not spec.layers or not all(type(extent) is int for extent in spec.input_shape):
        return False
    every_shape = [spec.input_shape, *shapes(spec.layers, spec.input_shape)]
    return (
        all(_sane_layer(layer) for layer in spec.layers)
        and all(0 < shape[0] <= MAX_CHANNELS and all(0 < e <= MAX_SIDE for e in shape[1:]) for shape in every_shape)
        and _sane_pixels(spec.pixels)
    )


def _sane_layer(layer: Layer) -> bool:
    extents = (layer.kernel, layer.stride, layer.padding, layer.output_padding, layer.groups)
    numbers = (layer.inputs, layer.outputs, *extents, *layer.shape)
    return (
        isinstance(layer.name, str)
        and all(type(number) is int and 0 <= number <= MAX_CHANNELS for number in numbers)
        and min(layer.kernel, layer.stride, layer.groups) > 0
    )


def _is_image(shape: Shape) -> bool:
    return len(shape) == 3 and shape[0] == 3 and shape[1] == shape[2]


def _sane_pixels(pixels: PixelConvention) -> bool:
    values = (*pixels.mean, *pixels.scale)
    return (
        pixels.order in ("BGR", "RGB")
        and len(pixels.mean) == len(pixels.scale) == 3
        and all(isinstance(value, (int, float)) for value in values)
        and all(value != 0 for value in pixels.scale)
    )
