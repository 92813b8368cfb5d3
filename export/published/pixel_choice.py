"""What published networks of Caffe's kind mean by an image: no file of weights says it, so it is told and recorded."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from deepsim.export.published.networks import SourceFile
from deepsim.runtime.errors import UsageError
from deepsim.runtime.pixels import CAFFE_PIXELS, Display, PixelConvention

Order = Literal["BGR", "RGB"]
_NEAR = 1.5  # grey levels: the published means differ by less


@dataclass(frozen=True)
class PixelChoice:
    """The convention of the networks, where its mean comes from in words, and the file that it was read from.

    ``display`` is how raw images become pictures; "stretch" reproduces those of icnn and brain-decoding-cookbook.
    """

    convention: PixelConvention
    mean_from: str
    source: SourceFile | None = None
    display: Display = "clip"

    def __str__(self) -> str:
        channels = zip(self.convention.order, self.convention.mean, strict=True)
        means = ", ".join(f"{channel} {mean:g}" for channel, mean in channels)
        shown = "" if self.display == "clip" else "; pictures are stretched, so their colours are not the network's"
        return f"{self.convention.order}, 0-255, minus {means} ({self.mean_from}){shown}"


def choose_pixels(mean: str | None = None, order: Order = "BGR") -> PixelChoice:
    """Return the convention of ``mean`` ("104,117,123" or the file of a mean image), in the channel order ``order``.

    Both the numbers and the file's channels are in the network's own order. Without ``mean`` it is the mean of Caffe's
    ILSVRC networks. Raises UsageError for what is neither, and for that mean with its channels swapped, which is a
    common mistake; DataError for a file that is no mean image, or whose channels look swapped.
    """
    default = CAFFE_PIXELS.mean if order == CAFFE_PIXELS.order else CAFFE_PIXELS.mean[::-1]
    if mean is None:
        return PixelChoice(PixelConvention(order, default), "the default")
    numbers = _numbers(mean)
    if numbers is None:
        return _from_file(Path(mean), order)
    if max(abs(value - other) for value, other in zip(numbers, default[::-1], strict=True)) < _NEAR:
        other = "RGB" if order == "BGR" else "BGR"
        raise UsageError(
            f"--mean {mean}: the ILSVRC means in {other} order, expected the network's order, {order}. "
            f"Pass {','.join(f'{value:g}' for value in default)}, or --order {other} if the network takes {other}."
        )
    return PixelChoice(PixelConvention(order, numbers), "--mean")


def _numbers(text: str) -> tuple[float, float, float] | None:
    """Read three numbers with commas; None for text that may name a file."""
    parts = text.split(",")
    try:
        values = [float(part) for part in parts]
    except ValueError:
        return None
    if len(values) != 3 or not all(math.isfinite(value) and -1000 <= value <= 1000 for value in values):
        raise UsageError(f"--mean {text}: expected three numbers in grey levels, such as 104,117,123.")
    return values[0], values[1], values[2]


def _from_file(path: Path, order: Order) -> PixelChoice:
    if not path.exists():
        raise UsageError(f"--mean {path}: no such file, expected three numbers such as 104,117,123 or a mean image.")
    from deepsim.export.published.mean_image import read_mean_image

    found = read_mean_image(path, order)
    mean = found.mean if order == "BGR" else found.mean[::-1]
    return PixelChoice(PixelConvention(order, mean), f"channel means of {found.source.name}", found.source)
