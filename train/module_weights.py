"""A module's weights: random ones that keep activations of order one, or those of a local file, never of a pickle."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deepsim.runtime.errors import CheckpointError
from deepsim.train.module_layers import run_to
from deepsim.train.weights import read_weights

_SWITCHES = ("gamma", "gamma1", "gamma2", "gamma_1", "gamma_2", "layer_scale")  # scales of whole branches
_SWITCHED_OFF = 1e-3
# EfficientNet of the package efficientnet-pytorch and its kin -> timm. Digits of blocks and norms are counted apart.
_EFFICIENTNET = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
_EFFICIENTNET_BLOCK = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_se_reduce": "se.conv_reduce",
    "_se_expand": "se.conv_expand",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
# A block that expands nothing has two convolutions: timm numbers its norms from the depthwise one.
_EFFICIENTNET_FIRST = {**_EFFICIENTNET_BLOCK, "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}


@torch.no_grad()
def randomise(model: nn.Module, layers: Iterable[str], x: Tensor) -> None:
    """Make a freshly drawn model keep activations of order one on ``x``, in one pass as far as ``layers``.

    The first output of every convolution and linear layer gets standard deviation 1, and mean 0 per channel where it
    has a bias (as :func:`~deepsim.train.encoders.random_encoder` does); batch norms take the statistics of ``x``.
    Branches that an initialisation switches off (norms that scale by 0, layer scales of 1e-6) are switched on, since
    random features would otherwise see none of their blocks.
    """
    for name, parameter in model.named_parameters():
        kind = name.rpartition(".")[2]
        norm = kind == "weight" and parameter.ndim == 1
        if (norm or kind in _SWITCHES) and bool(parameter.abs().max() <= _SWITCHED_OFF):
            parameter.fill_(1)
    handles = [
        module.register_forward_hook(_Normalise())
        for module in model.modules()
        if isinstance(module, (nn.Conv2d, nn.Linear))
    ]
    try:
        with _measuring(_norms(model)):
            run_to(model, layers, x)
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def calibrate(model: nn.Module, layers: Iterable[str], x: Tensor) -> None:
    """Give batch norms that never saw an image the statistics of ``x``, in one pass as far as ``layers``."""
    unused = [norm for norm in _norms(model) if not norm.running_mean.any() and bool((norm.running_var == 1).all())]
    if unused:
        with _measuring(unused):
            run_to(model, layers, x)


class _Normalise:
    """A forward hook that rescales its module's weights by the first output that it sees."""

    def __init__(self) -> None:
        self.done = False

    def __call__(self, module: Any, _: object, output: Tensor) -> Tensor:
        if self.done:
            return output
        self.done = True
        axis = 1 if isinstance(module, nn.Conv2d) else output.ndim - 1
        others = [other for other in range(output.ndim) if other != axis]
        if module.bias is not None:
            mean = output.mean(others, keepdim=True)
            module.bias.sub_(mean.flatten())
            output = output - mean
        deviation = output.std()
        if not deviation > 0:
            return output
        module.weight.div_(deviation)
        if module.bias is not None:
            module.bias.div_(deviation)
        return output / deviation


def _norms(model: nn.Module) -> list[Any]:
    kinds = nn.modules.batchnorm._BatchNorm
    return [module for module in model.modules() if isinstance(module, kinds) and module.running_mean is not None]


@contextmanager
def _measuring(norms: list[Any]) -> Iterator[None]:
    """Let batch norms take their statistics from the next batch alone; the rest of the model stays as it is."""
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, before, strict=True):
            norm.momentum = momentum
            norm.eval()


def read_module_weights(model: nn.Module, path: Path) -> dict[str, Tensor]:
    """Read a file's tensors under the model's own names.

    A prefix ``module.`` goes, and the names of the package efficientnet-pytorch become timm's. Raises CheckpointError.
    """
    weights = {name.removeprefix("module."): tensor for name, tensor in read_weights(path).items()}
    if "_conv_stem.weight" in weights:
        return {_timm_name(name, _block_names(model)): tensor for name, tensor in weights.items()}
    return weights


def _block_names(model: nn.Module) -> list[str]:
    """Return the names of an EfficientNet's blocks in timm, ``blocks.<stage>.<index>``, in order."""
    return [name for name, _ in model.named_modules() if re.fullmatch(r"blocks\.\d+\.\d+", name)]


def _timm_name(name: str, blocks: list[str]) -> str:
    """Return timm's name of a tensor of efficientnet-pytorch; a name of another kind stays as it is."""
    found = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name)
    if found and int(found[1]) < len(blocks):
        table = _EFFICIENTNET_BLOCK if int(found[1]) else _EFFICIENTNET_FIRST
        return f"{blocks[int(found[1])]}.{table.get(found[2], found[2])}.{found[3]}"
    layer, _, kind = name.rpartition(".")
    return f"{_EFFICIENTNET.get(layer, layer)}.{kind}"


@torch.no_grad()
def load(model: nn.Module, weights: Mapping[str, Tensor], needed: Iterable[str], who: str, path: Path) -> None:
    """Copy weights into a model; those that it does not have are left out, since they may belong behind the layer.

    Raises CheckpointError naming a needed tensor that is missing, of another shape or not finite.
    """
    own, required = model.state_dict(), set(needed)
    for name, tensor in own.items():
        given = weights.get(name)
        if given is None:
            if name in required and not name.endswith("num_batches_tracked"):
                raise CheckpointError(f"{path}: no tensor {name}, expected weights of {who}.")
            continue
        if given.shape != tensor.shape:
            if name in required:
                shapes = f"{tuple(given.shape)}, {who} has {tuple(tensor.shape)}"
                raise CheckpointError(f"{path}: {name} is {shapes}.")
            continue
        if given.is_floating_point() and not bool(given.isfinite().all()):
            raise CheckpointError(f"{path}: {name} is not finite, expected finite numbers.")
        tensor.copy_(given)
