"""Build the PyTorch module of a reference (see :mod:`deepsim.train.module_references`).

Nothing here downloads: models are built with random weights.
"""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from deepsim.runtime.errors import DeepsimError, UsageError, missing_extra
from deepsim.train.module_references import FORMS, ModuleReference

_LISTED = 8  # names that an error lists
# As torchvision's own weights want these two; without weights, its constructors turn the option off.
_INPUT_TRANSFORMED = ("googlenet", "inception_v3")


def create(reference: ModuleReference, seed: int, side: int | None = None) -> nn.Module:
    """Build the model of a reference on the CPU, in evaluation mode, with weights drawn from ``seed``.

    ``side`` is another side in pixels than the model's own; models of one fixed side are built for it. PyTorch's
    global generator is left as it was. Raises UsageError for an unknown model and for whatever a callable raises,
    DeviceError for a package that is not installed.
    """
    build = {"timm": _timm, "torchvision": _torchvision, "python": _python}[reference.kind]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build(reference.name, side)
    if not isinstance(model, nn.Module) or isinstance(model, torch.jit.ScriptModule):
        found = f"{type(model).__module__}.{type(model).__qualname__}"
        raise UsageError(f"encoder {reference.model}: gives a {found}, expected a torch.nn.Module.")
    return model.eval()


def check_layers(model: nn.Module, who: str, layers: Iterable[str]) -> None:
    """Raise UsageError for a layer that is no submodule, naming those that are spelled alike and a few others."""
    names = [name for name, _ in model.named_modules() if name]
    for layer in layers:
        if layer not in names:
            top = [name for name, _ in model.named_children()]
            raise UsageError(f"encoder {who}: no submodule {layer!r}, {_alternatives(layer, names, top)}.")


def one_line(error: BaseException) -> str:
    """Return an error's class and the first line of its text."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__


def _alternatives(name: str, known: Sequence[str], shown: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, 3)
    more = ", ".join(shown[:_LISTED]) + (" and others" if len(shown) > _LISTED else "")
    return f"near it are {', '.join(near)}; it has {more}" if near else f"it has {more}"


def _timm(name: str, side: int | None) -> nn.Module:
    try:
        timm = importlib.import_module("timm")
    except ImportError as error:
        raise missing_extra("timm", "timm") from error
    architecture = name.partition(".")[0]
    if not timm.is_model(architecture):
        known = timm.list_models()
        raise UsageError(f"encoder timm:{name}: unknown, {_near(architecture, known)}.")
    tags = timm.list_models(f"{architecture}.*", pretrained=True)
    if "." in name and name not in tags:
        raise UsageError(f"encoder timm:{name}: unknown weights, expected {', '.join(tags) or architecture}.")
    config = timm.get_pretrained_cfg(name)
    resized = {"img_size": side} if side is not None and config is not None and config.fixed_input_size else {}
    model: nn.Module = timm.create_model(name, pretrained=False, **resized)
    return model


def _torchvision(name: str, side: int | None) -> nn.Module:
    try:
        models = importlib.import_module("torchvision.models")
    except ImportError as error:
        raise missing_extra("torchvision", "train") from error
    architecture, _, tag = name.partition(".")
    known = models.list_models(module=models)
    if architecture not in known:
        raise UsageError(f"encoder torchvision:{name}: unknown, {_near(architecture, known)}.")
    tags = list(models.get_model_weights(architecture).__members__)
    if tag and tag not in tags:
        raise UsageError(f"encoder torchvision:{name}: unknown weights, expected {', '.join(tags)}.")
    options: dict[str, Any] = {}
    if architecture in _INPUT_TRANSFORMED:
        options = {"transform_input": True, "init_weights": False}
    elif architecture.startswith("vit_"):
        options = {"image_size": side or torchvision_transforms(name).crop_size[0]}
    model: nn.Module = models.get_model(architecture, weights=None, **options)
    return model


def torchvision_transforms(name: str) -> Any:
    """Return the transforms of torchvision's published weights: those of the tag, else the default ones."""
    models = importlib.import_module("torchvision.models")
    architecture, _, tag = name.partition(".")
    weights = models.get_model_weights(architecture)
    return (weights[tag] if tag else weights.DEFAULT).transforms()


def _near(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, 3)
    return f"near it are {', '.join(near)}" if near else f"expected one of its {len(known)} models, such as {known[0]}"


def _python(name: str, side: int | None) -> Any:
    """Import a callable, also from the current directory as ``python -m`` does, and call it without arguments."""
    module_name, _, attribute = name.partition(":")
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        target = _import(module_name, name)
        for part in attribute.split("."):
            if not hasattr(target, part):
                public = [found for found in vars(target) if not found.startswith("_")]
                raise UsageError(f"encoder {name}: no {part!r}, {_alternatives(part, public, public)}.")
            target = getattr(target, part)
        return target()
    except DeepsimError:
        raise
    except (Exception, SystemExit) as error:  # whatever a user's code raises
        raise UsageError(f"encoder {name}: {one_line(error)} (raised by it).") from error
    finally:
        sys.path.remove(folder)
        sys.path.append(folder)  # behind the installed packages, for what the model imports when it runs


def _import(module: str, name: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # an import inside it
        near = difflib.get_close_matches(module, ["timm", "torchvision"], 1)
        hint = f"; near it is {near[0]}" if near else ""
        raise UsageError(f"encoder {name}: no Python module {error.name!r}, expected {FORMS}{hint}.") from error
