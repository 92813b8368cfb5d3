"""What an encoder sees of a generator's picture: its central square or the whole resized, in the encoder's own pixels.

Crop, resizing and the change of channel order, mean and scale are one differentiable function.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from deepsim.runtime.errors import UsageError
from deepsim.runtime.pixels import PixelConvention

Fit = Literal["crop", "resize"]
Shift = tuple[int, int]  # pixels down and to the right


@dataclass(frozen=True)
class View:
    """Turn pictures (N, 3, full, full) in the convention ``source`` into input (N, 3, side, side) in ``target``.

    ``fit`` "crop" takes the square from ``offset`` on, "resize" shrinks the whole picture (bilinear, antialiased, as
    Pillow and torchvision do for floats; values are neither rounded nor clipped).
    """

    source: PixelConvention
    target: PixelConvention
    full: int
    side: int
    offset: int
    fit: Fit = "crop"

    @classmethod
    def between(
        cls,
        source: PixelConvention,
        target: PixelConvention,
        full: int,
        side: int,
        fit: Fit = "crop",
        offset: int | None = None,
    ) -> View:
        """Build a view; without an offset the square is central, rounded down (256 to 227: 14; 240 to 227: 6).

        Raises UsageError when the square does not lie within the picture.
        """
        place = (full - side) // 2 if offset is None else offset
        if fit == "crop" and not 0 <= place <= full - side:
            raise UsageError(
                f"picture of {full} pixels: the encoder takes {side} from offset {place}, expected a square within. "
                "Pass --fit resize."
            )
        return cls(source, target, full, side, place, fit)

    def cut(self, pictures: Tensor) -> Tensor:
        """Return the part that the encoder sees: (N, 3, side, side), or with "resize" the whole."""
        if self.fit == "resize":
            return pictures
        end = self.offset + self.side
        return pictures[:, :, self.offset : end, self.offset : end]

    def __call__(self, pictures: Tensor, shifts: Sequence[Shift] = ()) -> Tensor:
        """Return the encoder's input of pictures, each shifted cyclically by its own ``shifts`` where there are any."""
        seen = self.cut(pictures)
        if self.fit == "resize" and self.full != self.side:
            seen = functional.interpolate(
                seen, (self.side, self.side), mode="bilinear", antialias=True, align_corners=False
            )
        if shifts:
            seen = torch.stack([row.roll(shift, (1, 2)) for row, shift in zip(seen, shifts, strict=True)])
        return _converted(seen, self.source, self.target).contiguous(memory_format=torch.channels_last)


def _converted(x: Tensor, source: PixelConvention, target: PixelConvention) -> Tensor:
    """Convert (N, 3, H, W) between conventions: ((x / scale + mean) in the other order - mean') scale'."""
    if source == target:
        return x
    turned = source.order != target.order

    def ordered(values: tuple[float, float, float]) -> Tensor:  # of the source, in the target's order
        return x.new_tensor(values[::-1] if turned else values).double()

    factor = x.new_tensor(target.scale).double() / ordered(source.scale)
    offset = (ordered(source.mean) - x.new_tensor(target.mean).double()) * x.new_tensor(target.scale).double()
    if turned:
        x = x.flip(1)
    return torch.addcmul(offset.to(x.dtype).view(3, 1, 1), x, factor.to(x.dtype).view(3, 1, 1))
