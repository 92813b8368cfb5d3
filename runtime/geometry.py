"""Where pixels lie: how a photograph becomes an encoder's square input, and its place in the generator's output.

An encoder has a :class:`Framing`, a bundle a :class:`Geometry`: the framing and where in the generator's larger output
the encoder's square lies. Nothing in the program knows a side of its own; 227, 256 and 240 are CaffeNet's.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

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
    from ``offset`` on, on both axes.

    >>> Geometry.central(Framing("warp", 256, 227), 240).offset
    6
    """

    framing: Framing
    offset: int

    @classmethod
    def central(cls, framing: Framing, full: int) -> Geometry:
        """Return the geometry whose square lies centrally in an output of side ``full``, rounded down.

        Raises ValueError when the output is smaller than the square.
        """
        if full < framing.side:
            raise ValueError(f"output of side {full}, expected at least {framing.side}")
        return cls(framing, (full - framing.side) // 2)

    @property
    def side(self) -> int:
        """Return the side in pixels of an encoder's input and of a reconstruction."""
        return self.framing.side

    def crop(self, images: NDArray[Any]) -> NDArray[Any]:
        """Cut the scored pixels from whole generated images (N, S, S, C), without a copy.

        >>> Geometry(CAFFE_FRAMING, 6).crop(np.zeros((1, 240, 240, 3))).shape
        (1, 227, 227, 3)
        """
        end = self.offset + self.side
        return images[:, self.offset : end, self.offset : end]

    def fits(self, full: int) -> bool:
        """Tell whether the square lies within an output of side ``full``."""
        return 0 <= self.offset <= full - self.side

    def to_json(self) -> dict[str, Any]:
        """Return the record as plain JSON values."""
        return {"photograph": self.framing.to_json(), "generated": {"side": self.side, "offset": self.offset}}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Geometry:
        """Rebuild a geometry from :meth:`to_json`. Raises ValueError, TypeError or KeyError for what is not one."""
        framing, generated = Framing.from_json(record["photograph"]), record["generated"]
        if generated["side"] != framing.side:
            raise ValueError(f"generated side {generated['side']!r}, expected the photograph's, {framing.side}")
        if type(generated["offset"]) is not int:
            raise ValueError(f"offset {generated['offset']!r}, expected a whole number")
        return cls(framing, generated["offset"])


CAFFE_FRAMING = Framing("warp", 256, 227)  # Dosovitskiy & Brox 2016, section 4
IMAGENET_FRAMING = Framing("shorter", 256, 224)  # torchvision's classification models
"""Photographs of torchvision's ImageNet models; a model's own configuration goes before it."""
