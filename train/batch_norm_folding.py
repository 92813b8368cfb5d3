"""Fold batch norm into the convolution before it: weights scaled per channel, so that one operation does both.

Which batch norm follows which convolution is found by running the model, whatever Python its forward is made of.
"""

from __future__ import annotations

import copy
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from deepsim.train.module_layers import replace_submodule, replaced, runs

_LINEAR_WITHIN = 1e-4  # relative error of a convolution whose weights are scaled, against its scaled output


@dataclass(frozen=True)
class Pair:
    """The names of a convolution and of the batch norm that alone reads its output."""

    convolution: str
    norm: str


class _Uses(TorchFunctionMode):
    """Counts the functions that compute something from each of the watched tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[int] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run a function; count it for its arguments where its result is a tensor, and not for instance a shape."""
        result = func(*args, **(kwargs or {}))
        made, read = _tensors(result), _tensors((args, kwargs))
        self.counts.update(read if made else ())
        for new in made - read:  # at the address of a tensor that is gone, perhaps
            self.counts[new] = 0
        return result


def _tensors(tree: Any) -> set[int]:
    return {id(leaf) for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)}


class _Recorder:
    """Keeps, during one pass, what convolutions read and gave, and what batch norms read."""

    def __init__(self, model: nn.Module) -> None:
        self.convolutions: dict[str, list[tuple[Tensor, Tensor]]] = {}
        self.norms: dict[str, list[Tensor]] = {}
        self.others: list[Any] = []  # outputs of further modules that are features themselves
        self.model = model

    def watch(self, hooks: ExitStack, kept: Iterable[str]) -> None:
        """Register the hooks; the modules named ``kept`` give outputs that must stay as they are."""
        for name, module in self.model.named_modules():
            if isinstance(module, nn.Conv2d):
                self.convolutions[name] = []
                hooks.callback(module.register_forward_hook(self._convolution(name)).remove)
            elif _is_batch_norm(module):
                self.norms[name] = []
                hooks.callback(module.register_forward_pre_hook(self._norm(name)).remove)
        for name in kept:
            module = self.model.get_submodule(name)
            hooks.callback(module.register_forward_hook(lambda _, __, output: self.others.append(output)).remove)

    def _convolution(self, name: str) -> Callable[..., None]:
        return lambda _, args, output: self.convolutions[name].append((args[0], output))

    def _norm(self, name: str) -> Callable[..., None]:
        return lambda _, args: self.norms[name].append(args[0])

    def pairs(self, uses: Counter[int]) -> list[Pair]:
        """Return a convolution and a batch norm where each ran once, and nothing else reads what lies between."""
        read = {id(inputs[0]): name for name, inputs in self.norms.items() if len(inputs) == 1}
        kept = {id(output) for output in self.others}
        shared = Counter(id(own) for _, own in self.model.named_parameters(remove_duplicate=False))
        found = []
        for name, passes in self.convolutions.items():
            if len(passes) != 1 or id(passes[0][1]) not in read or id(passes[0][1]) in kept:
                continue
            weight = self.model.get_submodule(name)._parameters.get("weight")
            if uses[id(passes[0][1])] == 1 and weight is not None and shared[id(weight)] == 1:
                found.append(Pair(name, read[id(passes[0][1])]))
        return [pair for pair in found if self._linear(pair)]

    def _linear(self, pair: Pair) -> bool:
        """Tell whether scaling the weights scales the output: not where the module standardises its own weights."""
        inputs, output = self.convolutions[pair.convolution][0]
        convolution: Any = copy.deepcopy(self.model.get_submodule(pair.convolution))
        scale = torch.linspace(0.5, 1.5, output.shape[1])
        _rescale(convolution, scale.double(), torch.zeros(len(scale), dtype=torch.double))
        expected = output * scale[:, None, None]
        error = (convolution(inputs) - expected).norm() / expected.norm().clamp_min(1e-30)
        return bool(error < _LINEAR_WITHIN)


def _is_batch_norm(module: nn.Module) -> bool:
    """Tell whether a module is a batch norm of PyTorch or timm (with an activation) that has statistics."""
    known = type(module) is nn.BatchNorm2d or _with_activation(module)
    return known and module.running_mean is not None


def _with_activation(module: nn.Module) -> bool:
    name = f"{type(module).__module__}.{type(module).__name__}"
    return isinstance(module, nn.BatchNorm2d) and name == "timm.layers.norm_act.BatchNormAct2d"


@torch.no_grad()
def find_pairs(model: nn.Module, run: Callable[[], object], kept: Iterable[str]) -> list[Pair]:
    """Find the batch norms that can be folded into a convolution; ``run`` runs the model once in evaluation mode.

    ``kept`` names submodules whose output must stay as it is: a convolution that gives it is not found.
    """
    recorder = _Recorder(model)
    with ExitStack() as hooks:
        recorder.watch(hooks, kept)
        uses = hooks.enter_context(_Uses())
        run()
    pairs = recorder.pairs(uses.counts)
    return pairs if _called_only(model, pairs, run) else [pair for pair in pairs if _called_only(model, [pair], run)]


class _Hollow(nn.Module):
    """Calls another module, and has none of its attributes."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.hidden = (module,)  # in a tuple, it is not registered

    def forward(self, x: Tensor) -> Any:
        """Call the module."""
        return self.hidden[0](x)


def _called_only(model: nn.Module, pairs: Iterable[Pair], run: Callable[[], object]) -> bool:
    """Tell whether nothing but the batch norms themselves reads their weights."""
    with replaced(model, {pair.norm: _Hollow(model.get_submodule(pair.norm)) for pair in pairs}):
        return runs(model, run)


@torch.no_grad()
def fold(model: nn.Module, pairs: Iterable[Pair]) -> None:
    """Scale and shift each pair's convolution as its batch norm does, and put the activation alone in its place."""
    for pair in pairs:
        norm: Any = model.get_submodule(pair.norm)
        scale = torch.rsqrt(norm.running_var.double() + norm.eps)
        if norm.weight is not None:
            scale = scale * norm.weight.double()
        shift = -norm.running_mean.double() * scale
        _rescale(model.get_submodule(pair.convolution), scale, shift if norm.bias is None else shift + norm.bias)
        replace_submodule(model, pair.norm, _rest(norm))


def _rest(norm: Any) -> nn.Module:
    """Return what is left of a batch norm that was folded; the weights of an activation keep their names."""
    if not _with_activation(norm):
        return nn.Identity()
    return nn.Sequential(OrderedDict(drop=norm.drop, act=norm.act))


def _rescale(convolution: Any, scale: Tensor, shift: Tensor) -> None:
    """Make a convolution give ``scale * output + shift`` per channel; (C,) both, in double precision."""
    weight = convolution.weight
    bias = shift if convolution.bias is None else shift + scale * convolution.bias.double()
    convolution.weight = nn.Parameter((weight.double() * scale[:, None, None, None]).to(weight.dtype), False)
    convolution.bias = nn.Parameter(bias.to(weight.dtype), False)


def batch_norms(model: nn.Module) -> list[str]:
    """Return the names of the batch norms that a model still has."""
    return [name for name, module in model.named_modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
