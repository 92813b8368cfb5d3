"""Photographs that the page offers: of a folder that the user names, else those of the scikit-image package."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from deepsim.runtime.errors import DeviceError
from deepsim.runtime.images import find_images, read_image
from deepsim.runtime.pixels import Pixels
from deepsim.train.photographs import HELD_OUT, central_square, files

MOST = 12


@dataclass(frozen=True)
class Sample:
    """A photograph (H, W, 3) and its name."""

    name: str
    rgb: Pixels


def samples(folder: Path | None) -> tuple[Sample, ...]:
    """Read the first :data:`MOST` photographs of a folder; None: four of scikit-image, or none without that package.

    They are read once, here: requests name a sample by its number. Raises DataError for a folder without images and
    for one that cannot be read.
    """
    if folder is not None:
        return tuple(Sample(path.name, read_image(path)) for path in find_images([folder])[:MOST])
    try:
        paths = files(HELD_OUT)
    except DeviceError:  # the extra demo brings the package; the page works without
        return ()
    found = [Sample(path.stem, central_square(read_image(path))) for path in paths]
    return tuple(sorted(found, key=_is_grey))  # those in colour first: the page begins with two of them


def _is_grey(sample: Sample) -> bool:
    return bool((sample.rgb == sample.rgb[..., :1]).all())
