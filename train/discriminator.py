"""The discriminator: does this image come from the data or from the generator?"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from deepsim.runtime.errors import UsageError

_CONVOLUTIONS = ((32, 7, 4), (64, 5, 1), (128, 3, 2), (256, 3, 1), (256, 3, 2))  # channels, kernel, stride; no padding


class Discriminator(nn.Module):
    """Score images (N, 3, side, side), mean-subtracted BGR in 0-255 units, with two logits each: (N, 2), real first.

    Dosovitskiy & Brox 2016, section 3 and supplement: five convolutions with ReLU (227 > 56 > 52 > 25 > 23 > 11; other
    sides pass the same ones), global average pooling, dropout 0.5. Unconditional (``feature_size`` None): fc 256, ReLU,
    dropout, fc 2. Conditional, as in the release: the inverted feature, flattened to (N, feature_size), passes fc 1024
    and fc 512 with ReLU and joins the 256 pooled values; then dropout, fc 512, ReLU, dropout, fc 2. ``width`` scales
    all hidden sizes.
    """

    def __init__(self, feature_size: int | None = None, width: float = 1.0) -> None:
        super().__init__()

        def scaled(channels: int) -> int:
            return max(1, round(channels * width))

        layers: list[nn.Module] = []
        inputs = 3
        for channels, kernel, stride in _CONVOLUTIONS:
            layers += [nn.Conv2d(inputs, scaled(channels), kernel, stride), nn.ReLU(inplace=True)]
            inputs = scaled(channels)
        self.convolutions = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.condition: nn.Module | None = None
        hidden = scaled(256)
        if feature_size is not None:
            sizes = (feature_size, scaled(1024), scaled(512))
            self.condition = nn.Sequential(
                nn.Flatten(), nn.Linear(*sizes[:2]), nn.ReLU(inplace=True), nn.Linear(*sizes[1:]), nn.ReLU(inplace=True)
            )
            inputs, hidden = inputs + sizes[2], sizes[2]
        self.classify = nn.Sequential(
            nn.Dropout(0.5), nn.Linear(inputs, hidden), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Linear(hidden, 2)
        )

    def forward(self, images: Tensor, features: Tensor | None = None) -> Tensor:
        """Return logits (N, 2); ``features`` (N, ...) is required by the conditional form and ignored otherwise."""
        pooled: Tensor = self.convolutions(images)
        if self.condition is not None:
            if features is None:
                raise ValueError("discriminator: features missing, the conditional form needs them.")
            pooled = torch.cat((pooled, self.condition(features)), 1)
        logits: Tensor = self.classify(pooled)
        return logits


def check_side(side: int) -> None:
    """Raise UsageError when images of so many pixels are too small for the convolutions."""
    least = 1
    for _, kernel, stride in reversed(_CONVOLUTIONS):
        least = (least - 1) * stride + kernel
    if side < least:
        raise UsageError(f"discriminator: images of {side} pixels, expected {least} or more. Pass --lambda-adv 0.")


def initialise_discriminator(discriminator: Discriminator, rng: torch.Generator) -> None:
    """Draw He-normal weights, biases 0; the variance of the first convolution and the fc layers is scaled by 0.1.

    Source: the release; the factor is read as one on the variance, as in ``initialise_generator``.
    """
    first = discriminator.convolutions[0]
    for module in discriminator.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            scale = 0.1 if module is first or isinstance(module, nn.Linear) else 1.0
            variance = scale * 2 / math.prod(module.weight.shape[1:])
            nn.init.normal_(module.weight, std=math.sqrt(variance), generator=rng)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
