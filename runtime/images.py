"""Photographs in, uint8 RGB out: read any JPEG, PNG or WEBP file, warp it to 256x256, cut the central 227x227.

The pixels of every entry point: uint8 RGB, 0-255, (height, width, 3). Embedded colour profiles are not applied.
"""

from __future__ import annotations

import io
import os
import stat
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from deepsim.runtime.errors import DataError, DtypeError, OutOfMemory, ShapeError
from deepsim.runtime.files import write_atomic
from deepsim.runtime.pixels import CROP, WARPED, Pixels, crop, crop_offset

Photo: TypeAlias = "str | os.PathLike[str] | Image.Image | Pixels"

FORMATS = ("JPEG", "PNG", "WEBP")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
MAX_PIXELS = 89_478_485  # as Pillow's own warning: 256 MiB of RGB; a larger header is refused before it is decoded

_ORIENTATION = 0x0112  # EXIF tag
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# What Pillow raises on damaged files, found by reading its plugins and by fuzzing them.
_DAMAGE = (
    *(OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, EOFError, AttributeError),
    *(
        RuntimeError,
        AssertionError,
        struct.error,
        zlib.error,
        Image.DecompressionBombError,
        Image.DecompressionBombWarning,
    ),
)


def read_image(path: str | os.PathLike[str]) -> Pixels:
    """Read a JPEG, PNG or WEBP file, of an animation its first frame, as :func:`to_rgb` converts it.

    Raises DataError naming the file when it is missing, not a regular file (nothing is opened then, so a FIFO cannot
    block), not one of the three formats, truncated, damaged, or of more than ``MAX_PIXELS`` pixels.
    """
    with _open(path) as image:
        return _decode(image)


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Return (height, width) in pixels as a file's header states them, before rotation, without decoding it.

    Raises DataError where :func:`read_image` does, except for damage behind the header.
    """
    with _open(path) as image:
        return image.height, image.width


def to_rgb(image: Image.Image) -> Pixels:
    """Convert a Pillow image of any mode to uint8 RGB (H, W, 3), turned upright as its EXIF orientation says.

    Transparency is composited on white; 16-bit greyscale is divided by 257 and rounded; 1-bit becomes 0 and 255.
    Raises DataError for what cannot be decoded and for modes without a defined range ("I", "F").
    """
    with _pillow_errors(f"{image.mode} image"):
        return _decode(image)


def warp(rgb: Pixels, size: int = WARPED) -> Pixels:
    """Resize (H, W, 3) to (size, size, 3), bilinear with antialiasing; the aspect ratio is not kept (paper, section 4).

    Raises DtypeError or ShapeError when ``rgb`` is no uint8 image.
    """
    _check(rgb, "image", rank=3)
    if rgb.shape[:2] == (size, size):
        return np.ascontiguousarray(rgb)
    image = Image.fromarray(np.ascontiguousarray(rgb))
    return np.array(image.resize((size, size), Image.Resampling.BILINEAR))


def prepare(photo: Photo) -> Pixels:
    """Bring one photograph to the encoders' uint8 RGB (227, 227, 3).

    What is 227x227 already is taken as it is; anything else is warped to 256x256 and cropped centrally (offset 14).
    Raises DataError for unusable files, DtypeError or ShapeError for arrays that are no uint8 (H, W, 3).
    """
    rgb = _rgb(photo)
    _check(rgb, "photo", rank=3)
    if rgb.shape[:2] == (CROP, CROP):
        return np.ascontiguousarray(rgb)
    start = crop_offset(WARPED)
    return np.ascontiguousarray(warp(rgb)[start : start + CROP, start : start + CROP])


def prepare_batch(photos: Photo | Sequence[Photo]) -> Pixels:
    """Bring photographs to one uint8 RGB batch (N, 227, 227, 3), each as :func:`prepare` does, in order.

    ``photos`` is a sequence of paths, Pillow images or arrays, mixed at will, or a uint8 array (N, H, W, 3); a single
    photograph is a batch of one. N = 0 is allowed. Raises as :func:`prepare`.
    """
    if isinstance(photos, np.ndarray):
        return _prepare_array(photos)
    if isinstance(photos, (str, os.PathLike, Image.Image)):
        return prepare(photos)[None]
    batch = np.empty((len(photos), CROP, CROP, 3), np.uint8)
    for index, photo in enumerate(photos):
        batch[index] = prepare(photo)
    return batch


def find_images(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """List image files: the files among ``paths`` as given, folders searched through, in the order given.

    In folders, names ending in .jpg, .jpeg, .png or .webp (any case) count, sorted; hidden files and folders do not.
    Symbolic links are followed, a folder that is reached twice is listed once. Raises DataError when a path is missing,
    a folder cannot be read, or no image is found.
    """
    given = [Path(path) for path in paths]
    found: list[Path] = []
    for path in given:
        with _pillow_errors(str(path)):  # of these only the OSError and ValueError (a NUL byte) of stat occur
            found += sorted(_walk(path)) if stat.S_ISDIR(path.stat().st_mode) else [path]
    if not found:
        where = ", ".join(map(str, given[:3])) or "no path"
        raise DataError(f"{where}: no images found, expected files named {' '.join(SUFFIXES)}. Choose another folder.")
    return found


def save_png(rgb: Pixels, path: str | os.PathLike[str]) -> None:
    """Write uint8 RGB (H, W, 3) as a PNG file, atomically. Raises DtypeError or ShapeError; DeviceError (disk full)."""
    _check(rgb, str(path), rank=3)
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(rgb)).save(buffer, format="PNG")
    write_atomic(Path(path), buffer.getvalue())


@contextmanager
def _pillow_errors(subject: str) -> Iterator[None]:
    """Turn whatever a damaged file makes Pillow raise into a DataError about ``subject``."""
    try:
        yield
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{subject}: no such file, expected an image. Check the path.") from error
    except UnidentifiedImageError as error:
        expected = " or ".join(FORMATS)
        raise DataError(f"{subject}: not an image, expected {expected}. Convert or remove this file.") from error
    except MemoryError as error:
        raise OutOfMemory(
            f"{subject}: not enough memory to decode it. Close something or use a smaller image."
        ) from error
    except _DAMAGE as error:
        what = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        reason = " ".join(what.split()).rstrip(".") or type(error).__name__
        raise DataError(f"{subject}: unreadable ({reason}), expected a whole image. Replace or remove it.") from error


@contextmanager
def _open(path: str | os.PathLike[str]) -> Iterator[Image.Image]:
    with _pillow_errors(os.fspath(path)):
        if not stat.S_ISREG(Path(path).stat().st_mode):
            raise DataError(f"{path}: not a regular file, expected an image file. Choose another path.")
        with Path(path).open("rb") as file, Image.open(file, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                size = f"{image.width} x {image.height} pixels"
                raise DataError(f"{path}: {size}, expected at most {MAX_PIXELS:,} in all. Make it smaller.")
            yield image


def _decode(image: Image.Image) -> Pixels:
    image.load()
    upright = _UPRIGHT.get(_orientation(image))
    return np.array(_convert(image if upright is None else image.transpose(upright)))


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation 1-8; damaged EXIF counts as none, as it does in image viewers."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except _DAMAGE:
        return 1
    return value if isinstance(value, int) else 1


def _convert(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        return _from_16_bit(image)
    if image.mode in ("I", "F"):
        raise DataError(f"{image.mode} image: no defined range of grey levels. Convert it to mode 'L' or 'I;16'.")
    if image.has_transparency_data:
        rgba = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _from_16_bit(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.uint32)
    grey = ((values + 128) // 257).astype(np.uint8)  # v / 257 rounded: 0 -> 0, 65535 -> 255
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[values == transparent] = 255
    return Image.fromarray(grey).convert("RGB")


def _rgb(photo: Photo) -> Pixels:
    if isinstance(photo, np.ndarray):
        return photo
    if isinstance(photo, Image.Image):
        return to_rgb(photo)
    if isinstance(photo, (str, os.PathLike)):
        return read_image(photo)
    raise DtypeError(f"photo: {type(photo).__name__}, expected a path, a Pillow image or an array. Convert it first.")


def _prepare_array(photos: NDArray[np.uint8]) -> Pixels:
    if photos.ndim == 3:
        return prepare(photos)[None]
    _check(photos, "photos", rank=4)
    if photos.shape[1:3] == (CROP, CROP):
        return np.ascontiguousarray(photos)
    if photos.shape[1:3] == (WARPED, WARPED):
        return np.ascontiguousarray(crop(photos))
    batch = np.empty((len(photos), CROP, CROP, 3), np.uint8)
    for index, photo in enumerate(photos):
        batch[index] = prepare(photo)
    return batch


def _check(rgb: NDArray[np.uint8], subject: str, rank: int) -> None:
    """Raise DtypeError or ShapeError unless ``rgb`` is uint8 ([N,] H, W, 3) with H and W above 0."""
    if rgb.dtype != np.uint8:
        raise DtypeError(f"{subject}: {rgb.dtype}, expected uint8 with values 0-255. Scale and convert it first.")
    if rgb.ndim != rank or rgb.shape[-1] != 3 or 0 in rgb.shape[-3:]:
        expected = "(N, H, W, 3)" if rank == 4 else "(H, W, 3)"
        raise ShapeError(f"{subject}: shape {rgb.shape}, expected RGB {expected}. Reorder or reshape it first.")


def _walk(folder: Path) -> Iterator[Path]:
    """Yield the images below ``folder``, each real folder once."""
    seen: set[tuple[int, int]] = set()
    for name, folders, files in os.walk(folder, onerror=_raise, followlinks=True):
        status = Path(name).stat()
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(entry for entry in folders if not entry.startswith("."))
        yield from (
            Path(name, entry) for entry in files if entry.lower().endswith(SUFFIXES) and not entry.startswith(".")
        )


def _raise(error: OSError) -> None:
    raise error
