"""Run a module as far as some of its submodules, and read their outputs as features."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from deepsim.kernels.layers import Shape
from deepsim.runtime.errors import UsageError
from deepsim.train.module_creation import one_line

Form = Literal["map", "channels-last", "tokens"]
_CHANNELS_LAST = ("SwinTransformer",)  # torchvision's, which has no attribute that says so
_CLASS_TOKEN = ("VisionTransformer",)  # torchvision's
_REORDERED = ("timm.models.hiera",)  # whose tokens lie in the order of its windows


class _Reached(BaseException):
    """Ends a pass at the last layer that is wanted; no module's ``except Exception`` catches it."""


@dataclass(frozen=True)
class LayerFormat:
    """How the output of a submodule becomes features of ``shape``, (C,) or (C, h, w), per image.

    "map": the output is (N, *shape) already. "channels-last": it is (N, h, w, C). "tokens": it is (N, T, C); the first
    ``prefix`` tokens (class, register) belong to no place and are dropped, the others are an h x h grid in rows.
    """

    form: Form
    shape: Shape
    prefix: int = 0

    def features(self, output: Tensor) -> Tensor:
        """Return the features (N, *shape) of an output."""
        if self.form == "map":
            return output
        if self.form == "channels-last":
            return output.permute(0, 3, 1, 2)  # (N, C, h, w)
        channels_first = output[:, self.prefix :].transpose(1, 2)  # (N, C, h * w)
        return torch.unflatten(channels_first, 2, self.shape[1:])  # (N, C, h, w)


def run_to(model: nn.Module, layers: Iterable[str], x: Tensor) -> dict[str, Tensor]:
    """Return the outputs of submodules from one pass over ``x`` that stops after the last of them.

    Raises UsageError for a submodule that the pass does not reach.
    """
    wanted, found = set(layers), dict[str, Tensor]()

    def keep(name: str, output: Tensor) -> None:
        # what runs next may overwrite the output in place
        found.setdefault(name, output.clone() if len(wanted) > 1 and isinstance(output, Tensor) else output)
        if len(found) == len(wanted):
            raise _Reached

    with ExitStack() as hooks:
        for name in wanted:
            hooks.enter_context(_hooked(model.get_submodule(name), name, keep))
        try:
            model(x)
        except _Reached:
            return found
    missing = sorted(wanted - set(found))
    raise UsageError(f"layer {missing[0]!r}: not run in a pass over an image, expected a submodule that is.")


@contextmanager
def _hooked(module: nn.Module, name: str, keep: Any) -> Iterator[None]:
    handle = module.register_forward_hook(lambda _, __, output: keep(name, output))
    try:
        yield
    finally:
        handle.remove()


@dataclass(frozen=True)
class Observation:
    """What a pass over two images shows: each layer's output, and the tensors that they depend on by their names."""

    outputs: dict[str, Tensor]
    needed: frozenset[str]


def observe(model: nn.Module, who: str, layers: Iterable[str], x: Tensor) -> Observation:
    """Run a whole model on ``x``; find what the named submodules give and which parameters and buffers they need.

    Raises UsageError, naming the model as ``who``, when the pass fails, or when a layer runs not once or gives no
    floating-point tensor.
    """
    wanted = list(layers)
    calls, outputs, called = Counter[str](), dict[str, Tensor](), set[str]()
    model.requires_grad_(True)

    def keep(name: str, output: Any) -> None:
        if len(outputs) < len(wanted):
            called.add(name)
        if name in wanted:
            calls[name] += 1
            outputs.setdefault(name, output.clone() if isinstance(output, Tensor) else output)

    def enter(name: str) -> Any:
        return lambda *_: called.add(name) if len(outputs) < len(wanted) else None

    with ExitStack() as hooks:
        for name, module in model.named_modules():
            hooks.callback(module.register_forward_pre_hook(enter(name)).remove)
            hooks.enter_context(_hooked(module, name, keep))
        try:
            model(x)
        except Exception as error:  # whatever a user's code raises
            raise UsageError(f"encoder {who}: {one_line(error)} (raised on images {tuple(x.shape)}).") from error
    for name in wanted:
        if calls[name] != 1:
            raise UsageError(
                f"encoder {who}: submodule {name!r} runs {calls[name]} times in a pass over an image, expected once."
            )
        _check_output(who, name, outputs[name], len(x))
    needed = _needed(model, [outputs[name] for name in wanted], called)
    model.requires_grad_(False)
    return Observation({name: output.detach() for name, output in outputs.items()}, needed)


def _check_output(who: str, layer: str, output: Any, count: int) -> None:
    if not isinstance(output, Tensor):
        parts = f" of {len(output)}" if hasattr(output, "__len__") else ""
        raise UsageError(
            f"encoder {who}: {layer!r} gives a {type(output).__name__}{parts}, expected one tensor per image."
        )
    if not output.is_floating_point() or output.ndim < 2 or len(output) != count:
        raise UsageError(
            f"encoder {who}: {layer!r} gives {output.dtype} {tuple(output.shape)} for {count} images, "
            f"expected floating-point numbers ({count}, ...)."
        )


def _needed(model: nn.Module, outputs: list[Tensor], called: set[str]) -> frozenset[str]:
    """Return the names of the tensors behind some outputs: parameters by their gradients, buffers by their module."""
    owned = {name for name in model.state_dict() if name.rpartition(".")[0] in called}
    parameters = dict(model.named_parameters(remove_duplicate=False))
    sources = [output for output in outputs if output.requires_grad]
    if len(sources) < len(outputs):  # computed under no_grad
        return frozenset(owned)
    try:
        sums = [output.sum() for output in sources]
        gradients = torch.autograd.grad(sums, list(parameters.values()), allow_unused=True)
    except RuntimeError:  # the model overwrites in place what a gradient needs
        return frozenset(owned)
    used = {name for name, gradient in zip(parameters, gradients, strict=True) if gradient is not None}
    return frozenset(used | (owned - set(parameters)))


@torch.no_grad()
def prune(model: nn.Module, needed: frozenset[str], run: Callable[[], object]) -> None:
    """Take out the submodules none of whose tensors is needed, so that they use no memory and no file holds them.

    ``run`` runs the model as far as its layers. All stay where it reads an attribute of one that it does not call.
    """
    unused = []
    for name, module in model.named_modules():
        own = [f"{name}.{key}" for key in module.state_dict()]
        if name and own and not needed.intersection(own):
            unused.append(name)
    outer = [name for name in unused if not any(name.startswith(f"{other}.") for other in unused)]
    with replaced(model, {name: nn.Identity() for name in outer}):
        fits = runs(model, run)
    if fits:
        for name in outer:
            replace_submodule(model, name, nn.Identity())


def runs(model: nn.Module, run: Callable[[], object]) -> bool:
    """Tell whether a pass misses no attribute of a module that another one stands in for."""
    forget(model)
    try:
        run()
    except (AttributeError, TypeError):
        return False
    return True


@contextmanager
def replaced(model: nn.Module, others: Mapping[str, nn.Module]) -> Iterator[None]:
    """Put other modules in the places of named submodules, for a while."""
    before = {name: model.get_submodule(name) for name in others}
    for name, module in others.items():
        replace_submodule(model, name, module)
    try:
        yield
    finally:
        for name, module in before.items():
            replace_submodule(model, name, module)


def replace_submodule(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put a module in the place of a named submodule, under the same name."""
    parent, _, child = name.rpartition(".")
    model.get_submodule(parent)._modules[child] = module


def forget(model: nn.Module) -> None:
    """Let modules drop what they keep of their weights: timm's drop attention biases as they go to training mode.

    Whoever changes the weights of a model that has run calls this, or it goes on with what the old weights gave.
    """
    model.train()
    model.eval()


def layer_format(model: nn.Module, who: str, layer: str, shape: Shape) -> LayerFormat:
    """Tell how an output of ``shape``, without the batch, becomes features.

    Raises UsageError for a shape that is no (C,), (C, h, h), (h, h, C) of a model known to put its channels last, or
    (T, C) with a square number of tokens.
    """
    last = getattr(model, "output_fmt", None) == "NHWC" or _is_torchvision(model, _CHANNELS_LAST)
    if len(shape) == 1:
        return LayerFormat("map", shape)
    if len(shape) == 3 and shape[1] == shape[2] and not (last and shape[0] == shape[1]):
        return LayerFormat("map", shape)
    if len(shape) == 3 and last and shape[0] == shape[1] != shape[2]:
        return LayerFormat("channels-last", (shape[2], *shape[:2]))
    if len(shape) == 2:
        return _tokens(model, who, layer, shape)
    known = "" if last else " ((h, h, C) where the model's output_fmt is NHWC)"
    raise UsageError(
        f"encoder {who}: {layer!r} gives {shape} per image, expected (C,), (C, h, h) or (T, C) with T square{known}."
    )


def _tokens(model: nn.Module, who: str, layer: str, shape: Shape) -> LayerFormat:
    count, channels = shape
    if type(model).__module__ in _REORDERED:
        raise UsageError(f"encoder {who}: {layer!r} gives tokens in an order of its own, expected rows of a grid.")
    before = _prefix_tokens(model)
    sides = {prefix: math.isqrt(max(0, count - prefix)) for prefix in {0, before}}
    fitting = {prefix: side for prefix, side in sides.items() if side > 0 and side**2 == count - prefix}
    if len(fitting) != 1:
        raise UsageError(
            f"encoder {who}: {layer!r} gives {count} tokens, expected a square number, or one behind the model's "
            f"num_prefix_tokens, which is {before}."
        )
    ((prefix, side),) = fitting.items()
    return LayerFormat("tokens", (channels, side, side), prefix)


def _prefix_tokens(model: nn.Module) -> int:
    if _is_torchvision(model, _CLASS_TOKEN):
        return 1
    return int(getattr(model, "num_prefix_tokens", 0))


def _is_torchvision(model: nn.Module, names: tuple[str, ...]) -> bool:
    return type(model).__module__.startswith("torchvision.models") and type(model).__name__ in names


def formats(model: nn.Module, who: str, outputs: Mapping[str, Tensor]) -> dict[str, LayerFormat]:
    """Return the format of each output (N, ...), as :func:`layer_format` does."""
    return {name: layer_format(model, who, name, tuple(output.shape[1:])) for name, output in outputs.items()}
