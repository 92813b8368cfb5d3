"""Muon: momentum whose matrix is orthogonalised before each update, for the weights of a table of layers.

Jordan et al. 2024 (kellerjordan.github.io/posts/muon): the momentum of a weight, seen as the matrix of a linear map, is
replaced by about the nearest orthogonal matrix. As in Liu et al. 2025 (arXiv 2502.16982) its step has the size of
Adam's, 0.2 root mean square, so that one learning rate serves both. Biases are left to Adam.
PyTorch's own takes matrices only; the weights here are convolutions, and the layer decides which matrix they are.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional
from torch.optim import Adam

from deepsim.kernels.layers import Layer, refuse_kind

MOMENTUM = "momentum"  # the state of a weight
_DECAY = 0.95
_ITERATIONS = 5
_QUINTIC = (3.4445, -4.7750, 2.0315)  # Jordan et al.: steepest at 0 of those that bring singular values near 1
_SIZE = 0.2  # root mean square of Adam's usual step, in learning rates
_SMALLEST = 1e-7


def matrix_of(layer: Layer, weight: Tensor) -> Tensor:
    """Return a layer's weight, or anything of its shape, as the matrix (outputs, inputs) of the map that it is.

    A fully connected weight is one already. A convolution maps C k k inputs to the outputs of one place. A transposed
    convolution maps C t t inputs, t = k / stride rounded up, to the outputs of stride x stride places; taps that the
    kernel lacks are 0. Raises UnknownLayerError for another kind.

    >>> up = Layer("deconv5", "deconv", 512, 256, 4, 2, 1)
    >>> matrix_of(up, torch.zeros(512, 256, 4, 4)).shape
    torch.Size([1024, 2048])
    """
    if layer.kind in ("fc", "conv"):
        return weight.reshape(weight.shape[0], -1)
    taps, missing = _taps(layer)
    split = functional.pad(weight, (0, missing, 0, missing)).reshape(*weight.shape[:2], *(taps, layer.stride) * 2)
    return split.permute(3, 5, 1, 0, 2, 4).reshape(-1, weight.shape[0] * taps * taps)


def weight_of(layer: Layer, matrix: Tensor) -> Tensor:
    """Return what :func:`matrix_of` made a matrix of, in the shape of the layer's weight."""
    if layer.kind in ("fc", "conv"):
        return matrix.reshape(layer.weight_shape)
    taps, missing = _taps(layer)
    inputs, outputs = layer.weight_shape[:2]
    split = matrix.reshape(layer.stride, layer.stride, outputs, inputs, taps, taps)
    whole = split.permute(3, 2, 4, 0, 5, 1).reshape(inputs, outputs, *(taps * layer.stride,) * 2)
    return whole[..., : layer.kernel, : layer.kernel] if missing else whole


def _taps(layer: Layer) -> tuple[int, int]:
    """Return how many taps per axis reach one place of a transposed convolution, and how many its kernel lacks."""
    if layer.kind != "deconv":
        raise refuse_kind(layer, "Muon")
    taps = math.ceil(layer.kernel / layer.stride)
    return taps, taps * layer.stride - layer.kernel


def orthogonalised(matrix: Tensor) -> Tensor:
    """Return about the nearest (semi-)orthogonal matrix of a matrix, by Newton-Schulz iterations: U V^T of U S V^T.

    Singular values come near 1 (0.7 to 1.2); a matrix of zeros stays one.
    """
    a, b, c = _QUINTIC
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    x = wide / (wide.norm() + _SMALLEST)
    for _ in range(_ITERATIONS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    found: Tensor = x if wide is matrix else x.T
    return found


class Muon(Adam):
    """Muon for the weights of a table's layers, and Adam for its other parameters.

    ``groups`` are Adam's: a group with the key "layers", one for each of its parameters, is Muon's. As in the release,
    the L2 term "weight_decay" is added to the gradient. Steps are ``lr`` times 0.2 root mean square.
    """

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Make one update of every parameter that has a gradient; the gradients of Muon's are used up."""
        for group in self.param_groups:
            for layer, weight in zip(group.get("layers", ()), group["params"], strict=False):
                if weight.grad is not None:
                    self._orthogonal(layer, weight, weight.grad.add(weight, alpha=group["weight_decay"]), group["lr"])
                    weight.grad = None  # nothing is left to Adam
        super().step(closure)

    def _orthogonal(self, layer: Layer, weight: Tensor, gradient: Tensor, rate: float) -> None:
        state = self.state[weight]
        if not state:
            state[MOMENTUM] = torch.zeros_like(weight)
        momentum: Tensor = state[MOMENTUM].lerp_(gradient, 1 - _DECAY)
        matrix = matrix_of(layer, gradient.lerp(momentum, _DECAY))  # Nesterov's look ahead
        size = _SIZE * math.sqrt(max(matrix.shape))
        weight.sub_(weight_of(layer, orthogonalised(matrix)), alpha=rate * size)
