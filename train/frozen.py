"""Tables of layers with frozen weights: a pass forward that stops at the last tap, and one backward to its input.

A tap is a place where features are read: "conv1_1" is a layer's output, after its activation, "conv1_1:linear" the same
before it. No autograd: one gradient travels back, each layer takes it over, and what a tap adds is added in place.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from deepsim.kernels.layers import Layer, Shape, shapes
from deepsim.runtime.errors import UsageError
from deepsim.train import frozen_layers
from deepsim.train.frozen_layers import Kept, Weights, phases_of

LINEAR = ":linear"
Put = Callable[[Tensor], Tensor]
AddGradient = Callable[[str, Tensor, Tensor | None], Tensor | None]
"""Gets a tap, its features and the gradient that has come from behind it (None: none); returns both added."""


@dataclass
class _Step:
    """What one layer's backward needs: its input, its output after the activation, and before it where that is a tap.

    After an activation in place, ``linear`` is None.
    """

    layer: Layer
    own: Weights
    x: Tensor
    y: Tensor
    linear: Tensor | None
    kept: Kept


class FrozenPass:
    """One pass of a batch: ``values`` has the features at the taps, ``output`` what the last layer gave."""

    def __init__(self, steps: list[_Step], taps: frozenset[str]) -> None:
        self._steps, self._taps = steps, taps
        self.output = steps[-1].y
        self.values: dict[str, Tensor] = {}
        for step in steps:
            if step.layer.name in taps:
                self.values[step.layer.name] = step.y
            if step.linear is not None:
                self.values[step.layer.name + LINEAR] = step.linear

    @torch.no_grad()
    def backward(self, add: AddGradient, gradient: Tensor | None = None) -> Tensor:
        """Return the gradient at the input, from what ``add`` adds at each tap and ``gradient`` at the output.

        Uses up the pass: gradients overwrite each other. Raises ValueError when no gradient came.
        """
        self.values.clear()
        while self._steps:
            step = self._steps.pop()  # its memory is free once this turn is over
            name = step.layer.name
            if name in self._taps:
                gradient = add(name, step.y, gradient)
            if gradient is not None:
                gradient = frozen_layers.activate_backward(step.layer, gradient, step.y)
            if step.linear is not None:
                gradient = add(name + LINEAR, step.linear, gradient)
            if gradient is not None:
                gradient = frozen_layers.backward(step.layer, gradient, step.x, step.own, step.kept)
        if gradient is None:
            raise ValueError("no gradient at any tap or at the output, expected one.")
        return gradient


class FrozenTable:
    """A network that is a table of layers, with weights ``NAME.weight``, ``NAME.bias`` that never change.

    ``put`` brings each of them to where and how precisely the network is computed.
    """

    def __init__(
        self, name: str, layers: tuple[Layer, ...], input_shape: Shape, weights: Mapping[str, Tensor], put: Put
    ) -> None:
        self.name, self.layers, self.input_shape = name, layers, input_shape
        self._shapes = dict(zip((layer.name for layer in layers), shapes(layers, input_shape), strict=True))
        self._weights = [_placed(layer, weights, put) for layer in layers]

    @property
    def taps(self) -> list[str]:
        """List every place where features can be read, those before an activation last."""
        linear = [layer.name + LINEAR for layer in self.layers if layer.activation != "none"]
        return [layer.name for layer in self.layers] + linear

    def shape_of(self, tap: str) -> Shape:
        """Return the shape of the features at a tap, (C, H, W) or (C,). Raises UsageError naming the layers."""
        name = tap.removesuffix(LINEAR)
        if name not in self._shapes:
            raise UsageError(f"{self.name}: no layer {tap!r}, it has {', '.join(self._shapes)}.")
        return self._shapes[name]

    @torch.no_grad()
    def run(self, x: Tensor, taps: Collection[str] = ()) -> FrozenPass:
        """Run a batch (N, *input_shape) to the last of the taps; without any, to the end."""
        wanted = frozenset(tap for tap in taps if not tap.endswith(LINEAR))
        linear = {tap.removesuffix(LINEAR) for tap in taps if tap.endswith(LINEAR)}
        steps: list[_Step] = []
        for layer, own in zip(self._needed(wanted | linear), self._weights, strict=False):
            z, kept = frozen_layers.forward(layer, x, own)
            keep = layer.name in linear or layer.kind == "reshape"  # whose output may be its input's memory
            y = frozen_layers.activate(layer, z, keep)
            steps.append(_Step(layer, own, x, y, z if layer.name in linear else None, kept))
            x = y
        return FrozenPass(steps, wanted)

    def features(self, x: Tensor, taps: Collection[str]) -> dict[str, Tensor]:
        """Return the features of a batch at the taps."""
        return self.run(x, taps).values

    def _needed(self, wanted: Collection[str]) -> tuple[Layer, ...]:
        names = [layer.name for layer in self.layers]
        for name in wanted:
            self.shape_of(name)
        return self.layers[: 1 + max(map(names.index, wanted))] if wanted else self.layers


def _placed(layer: Layer, weights: Mapping[str, Tensor], put: Put) -> Weights:
    if not layer.has_weights:
        return Weights()
    weight, bias = (put(weights[f"{layer.name}.{kind}"]) for kind in ("weight", "bias"))
    return Weights(weight, bias, phases_of(layer, weight))
