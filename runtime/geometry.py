"""Where pixels lie: how a photograph becomes an encoder's square input, and its place in the generator's output.

An encoder has a :class:`Framing`, a bundle a :class:`Geometry`: the framing and where in the generator's larger output
the encoder's square lies. Nothing in the program knows a side of its own; 227, 256 and 240 are CaffeNet's.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

Resize = Literal["warp", "shorter"]
Interpolation = Literal["bilinear", "bicubic"]
MAX_SIDE = 4096  # pixels of any square, and the largest extent of a layer


@dataclass(frozen=True)
class Framing:
    """How a photograph of any size becomes the square that an encoder takes.

    ``resize`` "warp" brings it to ``size`` x ``size`` pixels and does not keep the aspect ratio (Dosovitskiy & Brox
    2016, section 4); "shorter" brings its shorter side to ``size`` and keeps it (torchvision, timm). The central
    ``side`` x ``side`` pixels are the encoder's input. Both interpolations are antialiased. Raises ValueError for
    values out of range.

    >>> Framing("warp", 256, 227).offsets(256, 256)
    (14, 14)
    """

    resize: Resize
    size: int
    side: int
    interpolation: Interpolation = "bilinear"

    def __post_init__(self) -> None:
        for name, known in (("resize", Resize), ("interpolation", Interpolation)):
            if getattr(self, name) not in get_args(known):
                raise ValueError(f"{name} {getattr(self, name)!r}, expected one of {', '.join(get_args(known))}")
        for name in ("size", "side"):
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= MAX_SIDE:
                raise ValueError(f"{name} {value!r}, expected a whole number from 1 to {MAX_SIDE}")
        if self.side > self.size:
            raise ValueError(f"side {self.side}, expected at most size, which is {self.size}")

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """Return the (height, width) to which a photograph of that many pixels is resized.

        >>> Framing("shorter", 256, 224).resized(480, 640)
        (256, 341)
        """
        if self.resize == "warp":
            return self.size, self.size
        shorter = min(height, width)
        return max(self.size, self.size * height // shorter), max(self.size, self.size * width // shorter)

    def offsets(self, height: int, width: int) -> tuple[int, int]:
        """Return (top, left) of the central square in a resized photograph; halves are rounded as torchvision does."""
        return round((height - self.side) / 2), round((width - self.side) / 2)

    def to_json(self) -> dict[str, Any]:
        """Return the record as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Framing:
        """Rebuild a framing from :meth:`to_json`. Raises ValueError or TypeError for what is not one."""
        return cls(**record)

    def __str__(self) -> str:
        how = f"warped to {self.size}x{self.size}" if self.resize == "warp" else f"shorter side to {self.size}"
        return f"{how} ({self.interpolation}), central {self.side}x{self.side}"


@dataclass(frozen=True)
class Geometry:
    """A bundle's geometry: ``framing`` of photographs, and ``offset``, where its square lies in the generator's output.

    The generator's output is a larger square, in which the losses scored the ``framing.side`` x ``framing.side`` pixels
    from ``offset`` on, on both axes. Where a generator gives less than that (Dosovitskiy & Brox 2015), the square from
    ``offset`` on has ``shown`` pixels on both axes, and images are that square, enlarged; 0: as many as the
    photograph's. Raises ValueError for another ``shown``.

    >>> Geometry.central(Framing("warp", 256, 227), 240).offset
    6
    """

    framing: Framing
    offset: int
    shown: int = 0

    def __post_init__(self) -> None:
        if type(self.shown) is not int or not 0 <= self.shown < self.framing.side:
            raise ValueError(f"generated side {self.shown!r}, expected at most the photograph's, {self.framing.side}")

    @classmethod
    def central(cls, framing: Framing, full: int) -> Geometry:
        """Return the geometry whose square lies centrally in an output of side ``full``, rounded down.

        Raises ValueError when the output is smaller than the square.
        """
        if full < framing.side:
            raise ValueError(f"output of side {full}, expected at least {framing.side}")
        return cls(framing, (full - framing.side) // 2)

    @classmethod
    def between(cls, framing: Framing, full: int) -> Geometry:
        """Return the geometry of a generator's output of side ``full``: central, or where it is smaller, the whole.

        >>> Geometry.between(Framing("warp", 256, 227), 128).generated_side
        128
        """
        return cls.central(framing, full) if full >= framing.side else cls(framing, 0, full)

    @property
    def side(self) -> int:
        """Return the side in pixels of an encoder's input and of a reconstruction."""
        return self.framing.side

    @property
    def generated_side(self) -> int:
        """Return the side in pixels of the square that was scored in the generator's output."""
        return self.shown or self.side

    @property
    def enlarges(self) -> bool:
        """Tell whether that square is smaller than a photograph's, so that images are enlarged."""
        return self.shown > 0

    def crop(self, images: NDArray[Any]) -> NDArray[Any]:
        """Cut the scored pixels from whole generated images (N, S, S, C), without a copy.

        >>> Geometry(CAFFE_FRAMING, 6).crop(np.zeros((1, 240, 240, 3))).shape
        (1, 227, 227, 3)
        """
        end = self.offset + self.generated_side
        return images[:, self.offset : end, self.offset : end]

    def fits(self, full: int) -> bool:
        """Tell whether the square lies within an output of side ``full``."""
        return 0 <= self.offset <= full - self.generated_side

    def to_json(self) -> dict[str, Any]:
        """Return the record as plain JSON values."""
        return {"photograph": self.framing.to_json(), "generated": {"side": self.generated_side, "offset": self.offset}}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Geometry:
        """Rebuild a geometry from :meth:`to_json`. Raises ValueError, TypeError or KeyError for what is not one."""
        framing, generated = Framing.from_json(record["photograph"]), record["generated"]
        if type(generated["side"]) is not int or not 1 <= generated["side"] <= framing.side:
            raise ValueError(f"generated side {generated['side']!r}, expected 1 to the photograph's, {framing.side}")
        if type(generated["offset"]) is not int:
            raise ValueError(f"offset {generated['offset']!r}, expected a whole number")
        return cls(framing, generated["offset"], generated["side"] if generated["side"] < framing.side else 0)


def enlarged(images: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """Enlarge images (N, S, S, C) to (N, side, side, C), bilinear between the centres of pixels, as Pillow does.

    Dosovitskiy & Brox 2015 do not say how their images became as large as the photographs that they are compared with:
    this is our rule.

    >>> enlarged(np.array([[[[0.0]], [[4.0]]]], np.float32).repeat(2, 2), 4)[0, :, 0, 0]
    array([0., 1., 3., 4.], dtype=float32)
    """
    full = images.shape[1]
    centres = np.clip((np.arange(side) + 0.5) * full / side - 0.5, 0, full - 1)
    first = np.minimum(centres.astype(np.intp), max(full - 2, 0))
    second, share = np.minimum(first + 1, full - 1), (centres - first).astype(np.float32)
    above, below = images.take(first, axis=1), images.take(second, axis=1)
    rows = above + share[:, None, None] * (below - above)
    left, right = rows.take(first, axis=2), rows.take(second, axis=2)
    return np.ascontiguousarray(left + share[:, None] * (right - left))


CAFFE_FRAMING = Framing("warp", 256, 227)  # Dosovitskiy & Brox 2016, section 4
IMAGENET_FRAMING = Framing("shorter", 256, 224)  # torchvision's classification models
"""Photographs of torchvision's ImageNet models; a model's own configuration goes before it."""
