"""Pictures inside the page: data URIs, and maps of where a reconstruction is wrong."""

from __future__ import annotations

import base64
import io

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

MAP_TOP = 128  # absolute error in grey levels at which the colour of an error map stops changing
QUALITIES = (92, 85, 75, 60)  # of the JPEG copies on the page, the first that keeps a picture below MAX_BYTES
MAX_BYTES = 48_000  # so that a page of noise stays small enough to send

Pixels = NDArray[np.uint8]

# Black over violet and orange to pale yellow, evenly rising in lightness.
_COLOURS = np.array([(10, 9, 20), (74, 22, 99), (165, 44, 96), (231, 106, 52), (250, 187, 76), (252, 251, 205)])


def picture(rgb: Pixels, alt: str, css_class: str = "") -> Markup:
    """Return an ``<img>`` that holds the picture (H, W, 3) itself, with its alternative text."""
    height, width = rgb.shape[:2]
    given = Markup(' class="{}"').format(css_class) if css_class else ""
    text = Markup('<img src="{}" alt="{}" width="{}" height="{}"{}>')
    return text.format(data_uri(rgb), alt, width, height, given)


def data_uri(rgb: Pixels) -> str:
    """Encode uint8 RGB (H, W, 3) as a JPEG data URI, without chroma subsampling.

    Every figure is computed from the pixels themselves, not from this copy.
    """
    image = Image.fromarray(np.ascontiguousarray(rgb))
    limit = MAX_BYTES * max(1, rgb.shape[1] / rgb.shape[0])  # wide pictures hold several
    copies = (_jpeg(image, quality) for quality in QUALITIES)
    data = next((copy for copy in copies if len(copy) <= limit), None) or _jpeg(image, QUALITIES[-1])
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"


def _jpeg(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


def error_map(image: Pixels, photo: Pixels) -> Pixels:
    """Colour the absolute error of (H, W, 3), averaged over the channels: 0 is black, ``MAP_TOP`` and above is pale."""
    levels = np.abs(image.astype(np.float64) - photo).mean(axis=-1)  # (H, W)
    return colours(levels / MAP_TOP)


def colours(values: NDArray[np.float64]) -> Pixels:
    """Map values 0-1 of any shape, clipped, to uint8 RGB on the colour scale of the error maps."""
    positions = np.linspace(0, 1, len(_COLOURS))
    channels = [np.interp(values, positions, _COLOURS[:, channel]) for channel in range(3)]
    mapped: Pixels = np.rint(np.stack(channels, axis=-1)).astype(np.uint8)
    return mapped


def thumbnail(rgb: Pixels, width: int) -> Pixels:
    """Shrink (H, W, 3) to at most ``width`` pixels across, keeping its proportions."""
    height, old = rgb.shape[:2]
    if old <= width:
        return rgb
    size = (width, max(1, round(height * width / old)))
    return np.asarray(Image.fromarray(np.ascontiguousarray(rgb)).resize(size, Image.Resampling.LANCZOS))
