"""Pixel conventions: what a network means by an image."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Display: TypeAlias = Literal["clip", "stretch"]  # how raw images become pictures: see rounded and stretched
STRETCHED_TAIL = 2.0  # per cent of an image's values, at either end, that a stretched picture does not tell apart


@dataclass(frozen=True)
class PixelConvention:
    """How uint8 RGB pixels become a network's input: ``(pixel[channel] - mean) * scale`` in the given channel order.

    ``mean`` (0-255 units) and ``scale`` (per unit) are in the network's own channel order.

    >>> grey = np.full((1, 1, 1, 3), 128, np.uint8)
    >>> CAFFE_PIXELS.to_network(grey).ravel()
    array([24., 11.,  5.], dtype=float32)
    >>> bool((CAFFE_PIXELS.to_pixels(CAFFE_PIXELS.to_network(grey)) == grey).all())
    True
    """

    order: Literal["BGR", "RGB"]
    mean: tuple[float, float, float]
    scale: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def to_network(self, rgb: Pixels) -> NDArray[np.float32]:
        """Convert uint8 RGB (N, H, W, 3) to the network's float32 (N, 3, H, W)."""
        ordered = rgb[..., ::-1] if self.order == "BGR" else rgb
        values = (ordered.astype(np.float32) - np.asarray(self.mean, np.float32)) * np.asarray(self.scale, np.float32)
        return np.ascontiguousarray(values.transpose(0, 3, 1, 2))

    def to_levels(self, network: NDArray[np.floating]) -> NDArray[np.floating]:
        """Convert network values (N, 3, H, W) to grey levels in RGB (N, H, W, 3): add the mean. Nothing is clipped."""
        values = network.transpose(0, 2, 3, 1) / np.asarray(self.scale, np.float32) + np.asarray(self.mean, np.float32)
        return np.ascontiguousarray(values[..., ::-1] if self.order == "BGR" else values)

    def to_pixels(self, network: NDArray[np.floating]) -> Pixels:
        """Convert network values (N, 3, H, W) to uint8 RGB (N, H, W, 3): add the mean, round, clip."""
        return rounded(self.to_levels(network))

    def to_json(self) -> dict[str, Any]:
        """Return the convention as plain JSON values."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> PixelConvention:
        """Rebuild a convention from :meth:`to_json`."""
        return cls(record["order"], tuple(record["mean"]), tuple(record["scale"]))


def rounded(levels: NDArray[np.floating]) -> Pixels:
    """Round grey levels, such as those of ``Inverter.decode(features, raw=True)``, to uint8: half to even, clipped.

    >>> rounded(np.array([-35.0, 0.5, 1.5, 254.4, 300.0]))
    array([  0,   0,   2, 254, 255], dtype=uint8)
    """
    pixels: Pixels = np.clip(np.rint(levels), 0, 255).astype(np.uint8)
    return pixels


def stretched(levels: NDArray[np.float32]) -> Pixels:
    """Stretch raw images (N, H, W, 3) as in the pictures that icnn and brain-decoding-cookbook publish.

    For each image, all channels together: 2 % of the values at either end are clipped, then the lowest that is left
    becomes 0 and the highest 255. Fractions are cut off, as they do; an image of one level becomes black. Such pictures
    have other colours and contrasts than the network's: up to half of the range away.

    >>> stretched(np.linspace(-100, 400, 300, dtype=np.float32).reshape(1, 10, 10, 3))[0, [0, 5, 9], [0, 0, 9], 0]
    array([  0, 127, 255], dtype=uint8)
    """
    pictures = np.empty(levels.shape, np.uint8)
    for picture, image in zip(pictures, levels, strict=True):
        low, high = (np.percentile(image, percent) for percent in (STRETCHED_TAIL, 100 - STRETCHED_TAIL))
        shifted = np.clip(image, low, high)  # float32 from here to the end, as theirs: 254 or 255 hangs on its last bit
        shifted -= shifted.min()
        most = shifted.max()
        picture[:] = shifted * (255.0 / most) if most > 0 else 0
    return pictures


# Caffe: BGR, 0-255, channel means subtracted, unscaled.
CAFFE_PIXELS = PixelConvention("BGR", (104.0, 117.0, 123.0))
# torchvision: RGB in 0-1, ImageNet mean and standard deviation; here in 0-255 units.
IMAGENET_PIXELS = PixelConvention("RGB", (123.675, 116.28, 103.53), (1 / 58.395, 1 / 57.12, 1 / 57.375))
