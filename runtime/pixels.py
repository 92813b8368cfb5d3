"""Pixel conventions: what a network means by an image, and the crop between its output and the encoder's input."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

WARPED = 256  # photographs are warped to this square side, in pixels (paper, section 4)
CROP = 227  # side of the encoders' input, cut centrally from a warped photograph or a generated image

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class PixelConvention:
    """How uint8 RGB pixels become a network's input: ``(pixel[channel] - mean) * scale`` in the given channel order.

    ``mean`` (0-255 units) and ``scale`` (per unit) are in the network's own channel order.
    """

    order: Literal["BGR", "RGB"]
    mean: tuple[float, float, float]
    scale: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def to_network(self, rgb: Pixels) -> NDArray[np.float32]:
        """Convert uint8 RGB (N, H, W, 3) to the network's float32 (N, 3, H, W)."""
        ordered = rgb[..., ::-1] if self.order == "BGR" else rgb
        values = (ordered.astype(np.float32) - np.asarray(self.mean, np.float32)) * np.asarray(self.scale, np.float32)
        return np.ascontiguousarray(values.transpose(0, 3, 1, 2))

    def to_pixels(self, network: NDArray[np.floating]) -> Pixels:
        """Convert network values (N, 3, H, W) to uint8 RGB (N, H, W, 3): add the mean, round half to even, clip."""
        values = network.transpose(0, 2, 3, 1) / np.asarray(self.scale, np.float32) + np.asarray(self.mean, np.float32)
        rounded = np.clip(np.rint(values), 0, 255).astype(np.uint8)
        return np.ascontiguousarray(rounded[..., ::-1] if self.order == "BGR" else rounded)

    def to_json(self) -> dict[str, Any]:
        """Return the convention as plain JSON values."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> PixelConvention:
        """Rebuild a convention from :meth:`to_json`."""
        return cls(record["order"], tuple(record["mean"]), tuple(record["scale"]))


# Caffe: BGR, 0-255, channel means subtracted, unscaled.
CAFFE_PIXELS = PixelConvention("BGR", (104.0, 117.0, 123.0))
# torchvision: RGB in 0-1, ImageNet mean and standard deviation; here in 0-255 units.
IMAGENET_PIXELS = PixelConvention("RGB", (123.675, 116.28, 103.53), (1 / 58.395, 1 / 57.12, 1 / 57.375))


def crop_offset(size: int) -> int:
    """Return the offset of the central crop of side 227 in a square of side ``size``: 14 for 256, 6 for 240."""
    return (size - CROP) // 2


def crop(images: NDArray[Any]) -> NDArray[Any]:
    """Cut the central 227x227 pixels from (N, S, S, C), without a copy."""
    top, left = crop_offset(images.shape[1]), crop_offset(images.shape[2])
    return images[:, top : top + CROP, left : left + CROP]
