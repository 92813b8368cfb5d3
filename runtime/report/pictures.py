"""Pictures inside the page: data URIs, and maps of where a reconstruction is wrong."""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deepsim.runtime.report.markup import Html, element

MAP_TOP = 128  # absolute error in grey levels at which the colour of an error map stops changing
QUALITY = 92  # of the JPEG copies on the page; every figure is computed from the pixels themselves

Pixels = NDArray[np.uint8]

# Black over violet and orange to pale yellow, evenly rising in lightness.
_COLOURS = np.array([(10, 9, 20), (74, 22, 99), (165, 44, 96), (231, 106, 52), (250, 187, 76), (252, 251, 205)])


def picture(rgb: Pixels, alt: str, css_class: str | None = None) -> Html:
    """Return an ``<img>`` that holds the picture (H, W, 3) itself, with its alternative text."""
    height, width = rgb.shape[:2]
    return element("img", src=data_uri(rgb), alt=alt, width=width, height=height, class_=css_class)


def data_uri(rgb: Pixels) -> str:
    """Encode uint8 RGB (H, W, 3) as a JPEG data URI, without chroma subsampling."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(rgb)).save(buffer, "JPEG", quality=QUALITY, subsampling=0)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


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
