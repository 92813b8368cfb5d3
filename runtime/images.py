"""Photographs in, uint8 RGB out: read an image file (see :data:`FORMATS`), resize it and cut an encoder's square.

The pixels of every entry point: uint8 RGB, 0-255, (height, width, 3). Embedded colour profiles are not applied.
"""

from __future__ import annotations

import io
import logging
import os
import stat
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from deepsim.runtime.errors import DataError, DtypeError, OutOfMemory, ShapeError
from deepsim.runtime.files import write_atomic
from deepsim.runtime.geometry import Framing
from deepsim.runtime.names import Names
from deepsim.runtime.pixels import Pixels
from deepsim.runtime.png import encode_png
from deepsim.runtime.walk import walk

Photo: TypeAlias = "str | os.PathLike[str] | Image.Image | Pixels"

_T = TypeVar("_T")

# Pillow's name of each format that is read, and the suffixes by which files in folders are found.
FORMATS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "AVIF": (".avif",),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "BMP": (".bmp", ".dib"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
}
SUFFIXES = tuple(suffix for suffixes in FORMATS.values() for suffix in suffixes)
MAX_PIXELS = 89_478_485  # as Pillow's own warning: 256 MiB of RGB; a larger header is refused before it is decoded

_log = logging.getLogger("deepsim")
_ORIENTATION, _BITS, _PHOTOMETRIC = 0x0112, 0x0102, 0x0106  # tags of EXIF and TIFF
# Where, and how in lower case, files begin that are met in folders of images and not read.
_NOT_READ = (
    (4, b"ftyphei", "HEIC; convert it, as with heif-convert"),
    (4, b"ftypmif1", "HEIF; convert it, as with heif-convert"),
    (0, b"ii*\0", "a TIFF of a kind that Pillow does not read"),
    (0, b"mm\0*", "a TIFF of a kind that Pillow does not read"),
    (4, b"jp  ", "JPEG 2000"),
    (0, b"<!doctype", "a web page"),
    (0, b"<html", "a web page"),
    (0, b"<svg", "an SVG drawing"),
    (0, b"<?xml", "XML, such as an SVG drawing"),
    (0, b"%pdf", "a PDF document"),
    (0, b"version https://", "a pointer of Git LFS, whose file was not fetched"),
)
_PNG_START = b"\x89PNG\r\n\x1a\n"
_PNG_METADATA = (b"iCCP", b"tEXt", b"zTXt", b"iTXt")  # colour profiles and texts: no pixel depends on them here
# Pillow's ImageOps.exif_transpose turns images too, but writes all of their EXIF anew, for which some is too damaged.
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
    """Read an image file of one of :data:`FORMATS`, told by its content, as :func:`to_rgb` converts it.

    Of an animation the first frame is read, of several pages the first. Raises DataError naming the file when it is
    missing, not a regular file (nothing is opened then, so a FIFO cannot block), of another format, truncated, damaged,
    or of more than ``MAX_PIXELS`` pixels.

    >>> rgb = read_image("cat.jpg")
    >>> rgb.shape, rgb.dtype
    ((300, 400, 3), dtype('uint8'))
    """
    return _on_file(path, _decode)


def image_from_bytes(content: bytes, subject: str) -> Pixels:
    """Read an image from the content of a file as :func:`read_image` does; ``subject`` names it in messages."""
    with _pillow_errors(subject):
        return _on_content(subject, io.BytesIO(content), _decode)


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Return (height, width) in pixels as a file's header states them, before rotation, without decoding it.

    Raises DataError where :func:`read_image` does, except for damage behind the header.

    >>> image_size("cat.jpg")
    (300, 400)
    """
    return _on_file(path, lambda image: (image.height, image.width))


def to_rgb(image: Image.Image) -> Pixels:
    """Convert a Pillow image of any mode to uint8 RGB (H, W, 3), turned upright as its EXIF orientation says.

    Transparency is composited on white; 16-bit greyscale is divided by 257 and rounded (12-bit TIFF by 4095 / 255);
    1-bit becomes 0 and 255.
    Raises DataError for what cannot be decoded and for modes without a defined range ("I", "F").
    """
    with _pillow_errors(f"{image.mode} image"):
        return _decode(image)


def resize(rgb: Pixels, framing: Framing) -> Pixels:
    """Resize (H, W, 3) as a framing says, antialiased: "warp" to (size, size, 3), else the shorter side to size.

    Raises DtypeError or ShapeError when ``rgb`` is no uint8 image.
    """
    _check(rgb, "image", rank=3)
    height, width = framing.resized(*rgb.shape[:2])
    if rgb.shape[:2] == (height, width):
        return np.ascontiguousarray(rgb)
    image = Image.fromarray(np.ascontiguousarray(rgb))
    return np.array(image.resize((width, height), Image.Resampling[framing.interpolation.upper()]))


def prepare(photo: Photo, framing: Framing) -> Pixels:
    """Bring one photograph to an encoder's square, uint8 RGB (side, side, 3).

    What has that size already is taken as it is; anything else is resized and cropped centrally.
    Raises DataError for unusable files, DtypeError or ShapeError for arrays that are no uint8 (H, W, 3).

    >>> prepare("cat.jpg", Framing("warp", 256, 227)).shape
    (227, 227, 3)
    """
    rgb, side = _rgb(photo), framing.side
    _check(rgb, "photo", rank=3)
    if rgb.shape[:2] == (side, side):
        return np.ascontiguousarray(rgb)
    return np.ascontiguousarray(central(resize(rgb, framing), framing))


def central(resized: Pixels, framing: Framing) -> Pixels:
    """Cut an encoder's square from a resized photograph (H, W, 3), without a copy."""
    top, left = framing.offsets(*resized.shape[:2])
    return resized[top : top + framing.side, left : left + framing.side]


def prepare_batch(photos: Photo | Sequence[Photo], framing: Framing) -> Pixels:
    """Bring photographs to one uint8 RGB batch (N, side, side, 3), each as :func:`prepare` does, in order.

    ``photos`` is a sequence of paths, Pillow images or arrays, mixed at will, or a uint8 array (N, H, W, 3); a single
    photograph is a batch of one. N = 0 is allowed. Raises as :func:`prepare`.
    """
    if isinstance(photos, np.ndarray):
        return _prepare_array(photos, framing)
    if isinstance(photos, (str, os.PathLike, Image.Image)):
        return prepare(photos, framing)[None]
    batch = np.empty((len(photos), framing.side, framing.side, 3), np.uint8)
    for index, photo in enumerate(photos):
        batch[index] = prepare(photo, framing)
    return batch


def find_images(paths: Iterable[str | os.PathLike[str]], apart_from: Path | None = None) -> list[Path]:
    """List image files: the files among ``paths`` as given, folders searched through, in the order given.

    In folders, names that end in one of :data:`SUFFIXES` (any case) count, sorted; hidden files and folders do not.
    A warning counts by suffix what is left out. Symbolic links are followed, a folder that is reached twice is listed
    once. The folder ``apart_from`` (where results go) is not searched, unless it is given itself. Raises DataError when
    a path is missing, a folder cannot be read, or no image is found.

    >>> [path.name for path in find_images(["photos", "cat.jpg"])]
    ['a.jpg', 'b.png', 'cat.jpg']
    """
    return list(map(Path, image_names(paths, apart_from)))


def image_names(paths: Iterable[str | os.PathLike[str]], apart_from: Path | None = None) -> Names:
    """List image files as :func:`find_images` does, in little memory: their paths as texts."""
    given = [Path(path) for path in paths]
    found, left_out = Names(), Counter[str]()
    for path in given:
        with _pillow_errors(str(path)):  # of these only the OSError and ValueError (a NUL byte) of stat occur
            is_folder = stat.S_ISDIR(path.stat().st_mode)
            found.extend(walk(path, SUFFIXES, apart_from, left_out) if is_folder else [str(path)])
    where = ", ".join(map(str, given[:3])) or "no path"
    counted = ", ".join(f"{count} {suffix}" for suffix, count in sorted(left_out.items()))
    if not found:
        but = f", but {counted}" if counted else ""
        raise DataError(f"{where}: no images found{but}, expected files named {' '.join(SUFFIXES)}.")
    if counted:
        _log.warning("%s: left out %s; images are read from %s.", where, counted, " ".join(SUFFIXES))
    return found


def save_png(rgb: Pixels, path: str | os.PathLike[str], texts: Mapping[str, str] | None = None) -> None:
    """Write uint8 RGB (H, W, 3) as a PNG file, atomically, with ``texts`` (keyword to text) among its metadata.

    Raises DtypeError or ShapeError; DeviceError (disk full).

    >>> save_png(np.zeros((2, 3, 3), np.uint8), "black.png")
    >>> image_size("black.png")
    (2, 3)
    """
    _check(rgb, str(path), rank=3)
    write_atomic(Path(path), encode_png(rgb, texts))


def png_text(path: str | os.PathLike[str], keyword: str) -> str | None:
    """Return a text that :func:`save_png` wrote with an image, None where the file has none. Raises DataError."""
    text = _on_file(path, lambda image: image.info.get(keyword))
    return str(text) if isinstance(text, str) else None


@contextmanager
def _pillow_errors(subject: str) -> Iterator[None]:
    """Turn whatever a damaged file makes Pillow raise into a DataError about ``subject``."""
    try:
        yield
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{subject}: no such file, expected an image.") from error
    except UnidentifiedImageError as error:
        raise DataError(f"{subject}: not an image that is read here, expected one of {', '.join(FORMATS)}.") from error
    except MemoryError as error:
        raise OutOfMemory(
            f"{subject}: not enough memory to decode it. Close something or use a smaller image."
        ) from error
    except _DAMAGE as error:
        what = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        reason = " ".join(what.split()).rstrip(".") or type(error).__name__
        raise DataError(f"{subject}: unreadable ({reason}), expected a whole image. Replace or remove it.") from error


def _on_file(path: str | os.PathLike[str], function: Callable[[Image.Image], _T]) -> _T:
    """Apply ``function`` to an opened image file."""
    with _pillow_errors(os.fspath(path)):
        if not stat.S_ISREG(Path(path).stat().st_mode):
            raise DataError(f"{path}: not a regular file, expected an image file.")
        with Path(path).open("rb") as file:
            return _on_content(path, file, function)


def _on_content(subject: str | os.PathLike[str], file: BinaryIO, function: Callable[[Image.Image], _T]) -> _T:
    """Apply ``function`` to the image in an opened file.

    Where that fails for a PNG, it is tried without its colour profile and texts: Pillow refuses large and damaged ones.
    """
    try:
        return _on_image(subject, file, function)
    except _DAMAGE as error:
        bare = _without_metadata(file)
        if isinstance(error, UnidentifiedImageError) and bare is None:
            _name_cause(file)
        if bare is None:
            raise
    return _on_image(subject, bare, function)


def _name_cause(file: BinaryIO) -> None:
    """Raise ValueError that says what a file is, where it is one that people take for an image."""
    file.seek(0)
    start = file.read(16)
    for place, mark, what in _NOT_READ:
        if start[place:].lower().startswith(mark):
            raise ValueError(what)


def _on_image(path: str | os.PathLike[str], file: BinaryIO, function: Callable[[Image.Image], _T]) -> _T:
    with Image.open(file, formats=tuple(FORMATS)) as image:
        if image.width * image.height > MAX_PIXELS:
            size = f"{image.width} x {image.height} pixels"
            raise DataError(f"{path}: {size}, expected at most {MAX_PIXELS:,} in all. Make it smaller.")
        return function(image)


def _without_metadata(file: BinaryIO) -> BinaryIO | None:
    """Return a PNG file without the chunks of :data:`_PNG_METADATA`; None for other files and where there are none."""
    file.seek(0)
    if file.read(len(_PNG_START)) != _PNG_START:
        return None
    chunks = file.read()  # each is length, type, data, checksum
    kept, place = [_PNG_START], 0
    while place + 12 <= len(chunks):
        end = place + 12 + int.from_bytes(chunks[place : place + 4], "big")
        if chunks[place + 4 : place + 8] not in _PNG_METADATA:
            kept.append(chunks[place:end])
        place = end
    found = b"".join(kept)
    return io.BytesIO(found) if len(found) < len(_PNG_START) + len(chunks) else None


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
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):  # Pillow scales it to 0-65535
        return _from_16_bit(image)
    if image.mode in ("I", "F"):
        raise ValueError(f"mode {image.mode} has no defined range of grey levels, convert it to L or I;16")
    if image.has_transparency_data:
        rgba = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _from_16_bit(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.uint32)
    highest = 4095 if _tiff_tag(image, _BITS, 16) == 12 else 65535  # Pillow gives 12 bits as they are
    if _tiff_tag(image, _PHOTOMETRIC, 1) == 0:  # 0 is white; Pillow inverts 8 bits only
        values = highest - values
    grey = ((values * 255 + highest // 2) // highest).astype(np.uint8)  # rounded: 0 -> 0, highest -> 255
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[values == transparent] = 255
    return Image.fromarray(grey).convert("RGB")


def _tiff_tag(image: Image.Image, tag: int, default: int) -> int:
    """Return a whole number from a TIFF file's directory, of several the first; ``default`` for other images."""
    value = getattr(image, "tag_v2", {}).get(tag, default)
    return int(value[0] if isinstance(value, tuple) else value)


def _rgb(photo: Photo) -> Pixels:
    if isinstance(photo, np.ndarray):
        return photo
    if isinstance(photo, Image.Image):
        return to_rgb(photo)
    if isinstance(photo, (str, os.PathLike)):
        return read_image(photo)
    raise DtypeError(f"photo: {type(photo).__name__}, expected a path, a Pillow image or an array. Convert it first.")


def _prepare_array(photos: NDArray[np.uint8], framing: Framing) -> Pixels:
    if photos.ndim == 3:
        return prepare(photos, framing)[None]
    _check(photos, "photos", rank=4)
    if photos.shape[1:3] == (framing.side, framing.side):
        return np.ascontiguousarray(photos)
    batch = np.empty((len(photos), framing.side, framing.side, 3), np.uint8)
    for index, photo in enumerate(photos):
        batch[index] = prepare(photo, framing)
    return batch


def _check(rgb: NDArray[np.uint8], subject: str, rank: int) -> None:
    """Raise DtypeError or ShapeError unless ``rgb`` is uint8 ([N,] H, W, 3) with H and W above 0."""
    if rgb.dtype != np.uint8:
        raise DtypeError(f"{subject}: {rgb.dtype}, expected uint8 with values 0-255. Scale and convert it first.")
    if rgb.ndim != rank or rgb.shape[-1] != 3 or 0 in rgb.shape[-3:]:
        expected = "(N, H, W, 3)" if rank == 4 else "(H, W, 3)"
        raise ShapeError(f"{subject}: shape {rgb.shape}, expected RGB {expected}. Reorder or reshape it first.")
