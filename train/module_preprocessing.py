"""How photographs become a module's input: the record that its package publishes, and what a user sets instead."""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from deepsim.runtime.errors import UsageError
from deepsim.runtime.geometry import Framing, Interpolation, Resize
from deepsim.runtime.pixels import PixelConvention
from deepsim.train.module_creation import torchvision_transforms
from deepsim.train.module_references import OWN, ModuleReference

Channels = tuple[float, float, float]
_RESIZES: dict[str, Resize] = {"center": "shorter", "squash": "warp"}  # timm's crop_mode
_INTERPOLATIONS: dict[str, Interpolation] = {"bilinear": "bilinear", "bicubic": "bicubic"}
IMAGENET_CONFIG: Mapping[str, Any] = {
    "input_size": (3, 224, 224),
    "interpolation": "bilinear",
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
    "crop_pct": 0.875,
    "crop_mode": "center",
}
"""What a user's module gets for every key that its ``pretrained_cfg`` lacks: torchvision's ImageNet preprocessing."""


@dataclass(frozen=True)
class Preprocessing:
    """How a photograph becomes a module's input: its square, and its pixels."""

    framing: Framing
    pixels: PixelConvention


@dataclass(frozen=True)
class PreprocessingOptions:
    """What a user sets instead of the model's own preprocessing; None keeps the model's own.

    ``side``: of the input, in pixels. ``size``: of the resized photograph, in pixels; with another ``side`` alone, the
    ratio of the two stays. ``mean`` and ``std``: of the channels in RGB order, for pixels from 0 to 1.
    """

    side: int | None = None
    size: int | None = None
    interpolation: Interpolation | None = None
    mean: Channels | None = None
    std: Channels | None = None


def preprocessing_options(config: Mapping[str, Any]) -> PreprocessingOptions:
    """Return what a run's settings ``encoder_side``, ``encoder_resize`` ... replace; those of older runs have none."""
    interpolation = config.get("encoder_interpolation", OWN)
    return PreprocessingOptions(
        config.get("encoder_side") or None,
        config.get("encoder_resize") or None,
        None if interpolation == OWN else interpolation,
        tuple(config.get("encoder_mean") or ()) or None,  # type: ignore[arg-type]  # the record checks that it has three
        tuple(config.get("encoder_std") or ()) or None,  # type: ignore[arg-type]
    )


def preprocessing_of(
    reference: ModuleReference, model: nn.Module, options: PreprocessingOptions | None = None
) -> Preprocessing:
    """Return a model's preprocessing, with ``options`` in place of its own.

    timm's comes from ``resolve_data_config``, torchvision's from the transforms of its weights. A user's module may
    carry a dictionary ``pretrained_cfg`` with timm's keys, those of :data:`IMAGENET_CONFIG`. Raises UsageError for
    what a :class:`Framing` cannot say: another crop mode or interpolation, no square, another number of channels.
    """
    options = options or PreprocessingOptions()
    config = _configs(reference, model)
    who = f"encoder {reference.model}"
    side = _side(who, config["input_size"])
    size = math.floor(side / config["crop_pct"])
    resize = _known(who, "crop mode", config["crop_mode"], _RESIZES)
    interpolation = _known(who, "interpolation", options.interpolation or config["interpolation"], _INTERPOLATIONS)
    if options.side is not None:
        size, side = math.floor(options.side / config["crop_pct"]), options.side
    try:
        framing = Framing(resize, size if options.size is None else options.size, side, interpolation)
    except ValueError as error:
        raise UsageError(f"{who}: {error}.") from error
    return Preprocessing(framing, _pixels(who, options.mean or config["mean"], options.std or config["std"]))


def _configs(reference: ModuleReference, model: nn.Module) -> dict[str, Any]:
    """Return a model's preprocessing under timm's keys."""
    if reference.kind == "torchvision":
        return _of_transforms(reference)
    if reference.kind == "timm":
        resolved: dict[str, Any] = importlib.import_module("timm.data").resolve_data_config({}, model=model)
        return resolved
    own = getattr(model, "pretrained_cfg", {})
    if not isinstance(own, Mapping):
        raise UsageError(f"encoder {reference.model}: pretrained_cfg is {type(own).__name__}, expected a dictionary.")
    return {key: IMAGENET_CONFIG[key] if own.get(key) is None else own[key] for key in IMAGENET_CONFIG}


def _of_transforms(reference: ModuleReference) -> dict[str, Any]:
    transforms = torchvision_transforms(reference.name)
    if type(transforms).__name__ != "ImageClassification" or len(transforms.crop_size) != 1:
        raise UsageError(f"encoder {reference.model}: {transforms}, expected transforms for classification.")
    side = transforms.crop_size[0]
    return {
        "input_size": (3, side, side),
        "interpolation": transforms.interpolation.value,
        "mean": transforms.mean,
        "std": transforms.std,
        "crop_pct": side / (transforms.resize_size[0] + 0.5),  # rounded down, it gives the size back
        "crop_mode": "center",
    }


def _side(who: str, shape: Any) -> int:
    if len(shape) != 3 or shape[0] != 3 or shape[1] != shape[2]:
        raise UsageError(f"{who}: input {tuple(shape)}, expected three channels and a square.")
    return int(shape[1])


def _known(who: str, what: str, value: str, known: Mapping[str, Any]) -> Any:
    if value not in known:
        raise UsageError(f"{who}: {what} {value!r}, expected one of {', '.join(known)}.")
    return known[value]


def _pixels(who: str, mean: Any, std: Any) -> PixelConvention:
    """Convert means and deviations of pixels from 0 to 1 to 0-255 units."""
    if len(mean) != 3 or len(std) != 3 or not all(map(math.isfinite, (*mean, *std))) or min(std) < 1e-6:
        raise UsageError(
            f"{who}: mean {tuple(mean)}, std {tuple(std)}, expected three finite numbers, std at least 1e-6."
        )
    red, green, blue = (round(255 * value, 6) for value in mean)  # 255 * 0.485 is 123.67499999999998
    scale = tuple(1 / round(255 * value, 6) for value in std)
    return PixelConvention("RGB", (red, green, blue), (scale[0], scale[1], scale[2]))
