"""Random state dicts with the names and, narrower, the shapes of public ports."""

import json
from functools import cache
from pathlib import Path

import torch

LAYOUTS = {
    name: {tensor: tuple(shape) for tensor, shape in tensors}
    for name, tensors in json.loads((Path(__file__).parents[2] / "data/port-layouts.json").read_text()).items()
}
# Which release layout holds the same tensors in the same order.
RELEASE = {
    "bdpy/relu6generator": "ct/fc6",
    "bdpy/relu7generator": "ct/fc7",
    "bdpy/pool5generator": "ct/pool5",
    "bdpy/relu4generator": "ct/conv4",
    "bdpy/relu3generator": "ct/conv3",
    "bdpy/norm2generator": "ct/norm2",
    "bdpy/norm1generator": "ct/norm1",
    "bdpy/relu8?": "ct/fc8",
    "bdpy/alexnet": "ct/caffenet",
    "bdpy/reference_net": "ct/caffenet",
    "xdream/norm1": "ct/norm1",
    "xdream/norm2": "ct/norm2",
    "xdream/conv34": "ct/conv3",
    "xdream/pool5": "ct/pool5",
    "xdream/fc67": "ct/fc6",
    "xdream/fc8": "ct/fc8",
    **{name: name for name in LAYOUTS if name.startswith("ct/")},
}
GENERATORS = [name for name in RELEASE if name not in ("bdpy/alexnet", "bdpy/reference_net", "ct/caffenet")]


def meanings(name):
    """Return the release's name of each of a layout's names, by its place among those of its kind."""
    names, release = list(LAYOUTS[name]), list(LAYOUTS[RELEASE[name]])
    if name.startswith("xdream"):  # biases of the up-convolutional part are left out
        weights = [tensor for tensor in release if tensor.endswith("weight")]
        pairs = zip([tensor for tensor in names if tensor.endswith("weight")], weights, strict=True)
        return {kind(own): kind(theirs) for own, theirs in pairs for kind in (str, as_bias) if kind(own) in names}
    return dict(zip(names, release * (len(names) // len(release)), strict=True))


def as_bias(tensor):
    return tensor.replace("weight", "bias")


def narrowed(shape, divisor):
    """Divide channels, but not kernels and not the three channels of an image."""
    channels = [extent if extent == 3 else max(1, extent // divisor) for extent in shape[:2]]
    return (*channels, *shape[2:])


@cache
def release_weights(name, divisor=16, biased=True):
    """Draw the weights of a release layout, such as "ct/fc6", as tensors of order one; up-convolutions without biases.

    The layer's name is in the seed, so that no two networks are the same.
    """
    rng = torch.Generator().manual_seed(sum(map(ord, name)))
    weights = {}
    for tensor, shape in LAYOUTS[name].items():
        shape = narrowed(shape, divisor)
        if tensor.endswith("weight"):
            fan_in = (
                shape[0] * 4 if tensor.startswith("deconv") else shape[1] * (shape[-1] ** 2 if len(shape) == 4 else 1)
            )
            weights[tensor] = torch.randn(shape, generator=rng) * (2 / fan_in) ** 0.5
        else:
            weights[tensor] = torch.randn(shape, generator=rng) * (0.1 if biased else 0)
    last = [tensor for tensor in weights if tensor.endswith("weight")][-1]
    weights[last] *= 60 if last == "deconv0.weight" else 1
    return weights


def port_weights(name, divisor=16):
    """Return a port's state dict of the weights of its release layout; a tensor with two names is one tensor."""
    weights = release_weights(RELEASE[name], divisor)
    return {own: weights[tensor] for own, tensor in meanings(name).items()}
