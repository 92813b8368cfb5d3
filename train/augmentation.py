"""What the discriminator sees, changed at random: photographs and generated images alike, so that it cannot memorise.

Zhao et al. 2020 (DiffAugment, arXiv 2006.10738): on few photographs a discriminator learns them by heart. Where all
that it sees is changed by the same differentiable rules, it cannot, and generated images are not pulled towards the
changes. The paper has none of this. Every image gets its own random numbers, from PyTorch's generator on the CPU.
"""

from __future__ import annotations

import torch
from torch import Tensor

from deepsim.runtime.errors import UsageError
from deepsim.train.config import Augmentation

SHIFT = 1 / 8  # of the side: the furthest translation
BRIGHTNESS = 127.5  # grey levels: twice the largest change
CUT = 1 / 2  # of the side: the square that is cut out


def augmented(images: Tensor, how: Augmentation) -> Tensor:
    """Return changed images (N, 3, side, side) of the generators' image space, with a gradient to ``images``.

    "translation" shifts each by up to an eighth of the side on both axes. "all" first changes brightness (up to 64 grey
    levels), saturation (0 to 2) and contrast (0.5 to 1.5), then shifts, and sets a square of half the side to 0, the
    mean colour. What comes from outside is 0 too. Raises UsageError for an unknown way.

    >>> augmented(torch.ones(2, 3, 16, 16), "none").equal(torch.ones(2, 3, 16, 16))
    True
    """
    if how == "none":
        return images
    if how == "translation":
        return _translated(images)
    if how == "all":
        return _cut_out(_translated(_coloured(images)))
    raise UsageError(f"augmentation: {how!r}, expected none, translation or all.")


def _random(images: Tensor) -> Tensor:
    """Draw a number in 0-1 for each image, (N, 1, 1, 1)."""
    return torch.rand(len(images), 1, 1, 1).to(images)


def _coloured(images: Tensor) -> Tensor:
    x = images + (_random(images) - 0.5) * BRIGHTNESS
    grey = x.mean(1, keepdim=True)
    x = grey + (x - grey) * (2 * _random(images))
    middle = x.mean((1, 2, 3), keepdim=True)
    return middle + (x - middle) * (0.5 + _random(images))


def _translated(images: Tensor) -> Tensor:
    """Shift by whole pixels: rows and columns are picked from the images with a frame of zeros around them."""
    count, _, height, width = images.shape
    furthest = int(height * SHIFT + 0.5)
    framed = torch.nn.functional.pad(images, (furthest,) * 4)
    down, right = torch.randint(2 * furthest + 1, (2, count, 1)).to(images.device)
    rows = (torch.arange(height, device=images.device) + down)[:, None, :, None]
    columns = (torch.arange(width, device=images.device) + right)[:, None, None, :]
    return framed.gather(2, rows.expand(-1, 3, -1, framed.shape[3])).gather(3, columns.expand(-1, 3, height, -1))


def _cut_out(images: Tensor) -> Tensor:
    count, _, height, width = images.shape
    side = int(height * CUT + 0.5)
    top, left = (torch.randint(extent + side % 2, (count, 1)) - side // 2 for extent in (height, width))
    inside = [
        (torch.arange(extent) >= first) & (torch.arange(extent) < first + side)
        for extent, first in ((height, top), (width, left))
    ]
    hidden = inside[0][:, None, :, None] & inside[1][:, None, None, :]
    return images * (~hidden).to(images)
