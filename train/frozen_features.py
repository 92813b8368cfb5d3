"""Features of a frozen encoder for training: as :class:`deepsim.train.networks.Encoder` gives them, in less time.

A table of layers is run by :mod:`deepsim.train.frozen`: weights get no gradient, what a backward pass needs is kept
once, and local response normalisation is a product with a band matrix. Only the images get a gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor

from deepsim.train.frozen import FrozenTable
from deepsim.train.networks import Encoder

Features = Callable[[Tensor, Collection[str]], dict[str, Tensor]]
"""Gets images (N, 3, side, side) of the generators' image space and layers' names; returns these layers' features."""


class FrozenFeatures:
    """Compute features of an encoder that is a table, with a gradient to the images and to nothing else.

    ``dtype`` is what the networks compute in: float32, or bfloat16 or float16 under autocast. The encoder's weights
    are read when this is made. Gradients agree with autograd's through the encoder to rounding.

    >>> from deepsim.runtime.networks import CAFFENET
    >>> from deepsim.train.encoders import random_encoder
    >>> encoder = random_encoder(CAFFENET, "norm1", seed=0)
    >>> FrozenFeatures(encoder, torch.float32)(torch.zeros(2, 3, 227, 227), ["norm1"])["norm1"].shape
    torch.Size([2, 96, 27, 27])
    """

    def __init__(self, encoder: Encoder, dtype: torch.dtype) -> None:
        self._convert, self._dtype = encoder.convert, dtype
        spec = encoder.spec
        self._table = FrozenTable(spec.name, encoder.layers, spec.input_shape, encoder.state_dict(), self._put)

    def __call__(self, images: Tensor, names: Collection[str]) -> dict[str, Tensor]:
        """Return the features of the named layers from one pass that stops after the last of them."""
        with torch.autocast(images.device.type, enabled=False):
            x = self._put(self._convert(images.float()))
            if not (torch.is_grad_enabled() and x.requires_grad):
                return self._table.features(x, names)
            ordered = list(names)
            found = _Pass.apply(x, self._table, ordered)  # type: ignore[no-untyped-call]
            return dict(zip(ordered, found, strict=True))

    def _put(self, values: Tensor) -> Tensor:
        cast = values.to(self._dtype)
        return cast.contiguous(memory_format=torch.channels_last) if cast.ndim == 4 else cast


class _Pass(torch.autograd.Function):
    """One pass of a frozen table as a node of autograd's graph; its gradient can be asked for once."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, table: FrozenTable, names: list[str]) -> tuple[Tensor, ...]:
        made = table.run(x, names)
        ctx.made, ctx.names = made, names
        return tuple(made.values[name].clone() for name in names)  # the pass reads its own once more

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor, None, None]:  # type: ignore[override]
        pulls = dict(zip(ctx.names, gradients, strict=True))

        def add(name: str, _: Tensor, behind: Tensor | None) -> Tensor | None:
            own = pulls[name]
            if own is None or behind is None:
                return behind if own is None else own.clone()  # overwritten on its way, and not ours
            return behind.add_(own)

        with torch.autocast(ctx.made.output.device.type, enabled=False):
            return ctx.made.backward(add), None, None
