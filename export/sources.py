"""What is exported: the weights of a training run, or seeded random ones, with where they come from."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from deepsim.kernels.layers import Layer, Shape
from deepsim.runtime.errors import CheckpointError, UsageError
from deepsim.runtime.files import restore
from deepsim.runtime.generators import Family, GeneratorSpec, generator_spec
from deepsim.runtime.geometry import CAFFE_FRAMING, Geometry
from deepsim.runtime.networks import EncoderSpec, GraphEncoder, encoder_spec
from deepsim.runtime.pixels import Display, Pixels
from deepsim.runtime.prior import Prior
from deepsim.runtime.run_folder import (
    CONFIG,
    ENCODER,
    GENERATOR,
    LATEST,
    STATE,
    checkpoints,
    exported_weights,
    read_photographs,
    run_of,
)
from deepsim.train.module_references import is_module_reference, parse
from deepsim.train.tasks import CODE_SIZE, encoder_for, task_of

if TYPE_CHECKING:
    from torch import Tensor

    from deepsim.train.module_encoders import ModuleEncoder

Weights = dict[str, NDArray[np.float32]]
_SINCE = {"task": "inversion", "latent": CODE_SIZE, "encoder_width": 1.0}  # settings that old runs lack


@dataclass(frozen=True)
class Source:
    """An encoder up to the inverted layer and its generator, with weights by release names (float32, checked).

    Published weights may be those of one of the two: the other is None then. An encoder that is a graph has no weights
    by name: ``module`` is the PyTorch module that becomes the graph. ``photographs``: uint8 RGB (N, side, side, 3) that
    the run showed itself, N may be 0. ``provenance`` is plain JSON. ``display`` is how raw images become pictures.
    ``prior`` is the distribution that the codes were pulled towards, None where none was.
    """

    encoder: EncoderSpec | GraphEncoder | None
    generator: GeneratorSpec | None
    encoder_weights: Weights
    generator_weights: Weights
    photographs: Pixels
    provenance: dict[str, Any]
    module: ModuleEncoder | None = None
    display: Display = "clip"
    prior: Prior | None = None

    @property
    def table(self) -> EncoderSpec:
        """Return the encoder's table of layers. Raises UsageError for a graph, and where there is no encoder."""
        if not isinstance(self.encoder, EncoderSpec):
            found = "none" if self.encoder is None else f"{self.encoder.name}, a graph"
            raise UsageError(f"encoder: {found}, expected a table of layers.")
        return self.encoder

    @property
    def generator_table(self) -> GeneratorSpec:
        """Return the generator's table of layers. Raises UsageError where there is no generator."""
        if self.generator is None:
            raise UsageError("generator: none, expected a table of layers.")
        return self.generator

    @property
    def graph_module(self) -> ModuleEncoder:
        """Return the module of an encoder that is a graph. Raises ValueError for a table, and where there is none."""
        if self.module is None:
            raise ValueError("encoder: no PyTorch module, expected one that becomes a graph.")
        return self.module

    @property
    def layer(self) -> str:
        """Return the name of the inverted layer; without a generator, of the encoder's last."""
        if self.generator is not None:
            return self.generator.layer
        return self.encoder.layer if isinstance(self.encoder, GraphEncoder) else self.table.layers[-1].name

    @property
    def geometry(self) -> Geometry:
        """Return where photographs and generated images lie to each other: as training scored them.

        Without an encoder it is CaffeNet's; without a generator, photographs fill the square.
        """
        framing = CAFFE_FRAMING if self.encoder is None else self.encoder.framing
        return Geometry.between(framing, framing.side if self.generator is None else self.generator.output_size)


def newest_run(folder: Path = Path("runs")) -> Path:
    """Return the run under ``folder`` with the newest checkpoint. Raises UsageError when there is none."""
    runs = [run for run in folder.glob("*") if (checkpoints(run) / LATEST).is_file()]
    if not runs:
        raise UsageError(
            f"{folder}: no training run in it, expected a run or checkpoint folder as SOURCE. "
            "Train one (deepsim train --preset demo), or pass --random --layer fc6."
        )
    return max(runs, key=lambda run: (checkpoints(run) / LATEST).stat().st_mtime)


def check_output(path: Path, output: Path) -> None:
    """Raise UsageError when a bundle at ``output`` would replace the run or checkpoint ``path`` that it is made of.

    Links and other spellings count too.
    """
    checkpoints = checkpoint_of(path).parent.resolve()
    target = output.resolve()
    if target in checkpoints.parents or checkpoints in (target, *target.parents):
        raise UsageError(
            f"{output}: holds the checkpoints that are exported, or lies among them. Choose another place."
        )


def load_run(path: Path) -> Source:
    """Load a run folder (its latest checkpoint) or one checkpoint folder of a run.

    Raises CheckpointError naming the file when something is missing, damaged, not finite or of another network.
    """
    checkpoint = checkpoint_of(path)
    run = run_of(checkpoint)
    config, provenance = _json(run / CONFIG), _run_provenance(checkpoint)
    try:
        task = task_of(config.get("task", "inversion"))
        encoder, module = _encoder(config, run)
        generator = generator_spec(
            config["layer"], encoder, config.get("width", 1.0), config.get("generator", "deepsim")
        )
    except (KeyError, UsageError) as error:
        reason = f"no setting {error}." if isinstance(error, KeyError) else str(error)
        raise CheckpointError(f"{run / CONFIG}: {reason} Name a run of this version.") from error
    encoder_weights: Weights = {}
    if isinstance(encoder, EncoderSpec):
        encoder = replace(encoder, layers=encoder.up_to(generator.layer))
        file = (exported_weights(checkpoint) if task.encoder_learns else run) / ENCODER
        encoder_weights = _weights(file, encoder.layers, exact=False)
    return Source(
        encoder,
        generator,
        encoder_weights,
        _weights(exported_weights(checkpoint) / GENERATOR, generator.layers, exact=True),
        read_photographs(run, encoder.framing.side),
        provenance,
        module,
        prior=task.prior,
    )


def run_provenance(path: Path) -> dict[str, Any]:
    """Return what a bundle says of a run or checkpoint folder that it is made of; no weights are read.

    Raises CheckpointError naming the file when something is missing or damaged.
    """
    return _run_provenance(checkpoint_of(path))


def _run_provenance(checkpoint: Path) -> dict[str, Any]:
    run = run_of(checkpoint)
    trained = _training(_json(run / CONFIG), _json(checkpoint / STATE), checkpoint.name)
    return {"from": "training run", "run": as_text(run.resolve().name), **trained}


def _encoder(config: Mapping[str, Any], run: Path) -> tuple[EncoderSpec | GraphEncoder, ModuleEncoder | None]:
    """Return a run's encoder: a table, or the record of a module and the module with the run's weights."""
    if not is_module_reference(config["encoder"]):
        task, latent, width = (config.get(name, value) for name, value in _SINCE.items())
        return encoder_for(task, config["encoder"], config["layer"], latent, width), None
    from deepsim.train.module_encoders import build_module_encoder
    from deepsim.train.module_preprocessing import preprocessing_options

    options = preprocessing_options(config)
    module = build_module_encoder(parse(config["encoder"]), weights=run / ENCODER, options=options)
    return module.record(), module


def random_source(layer: str, encoder_name: str = "caffenet", seed: int = 0, family: Family = "deepsim") -> Source:
    """Draw seeded random weights for an encoder and its generator, every layer's output of order one.

    Raises UsageError on an unknown encoder or layer.
    """
    from deepsim.export.calibration import calibration_images
    from deepsim.export.random_weights import random_generator_weights
    from deepsim.export.torch_networks import encode
    from deepsim.train.encoders import random_encoder

    encoder = encoder_spec(encoder_name)
    generator = generator_spec(layer, encoder, family=family)
    encoder = replace(encoder, layers=encoder.up_to(layer))
    tensors = random_encoder(encoder, layer, seed).state_dict()
    features = encode(encoder, layer, tensors, calibration_images(4, encoder.framing.side, seed))
    return Source(
        encoder,
        generator,
        {name: tensor.numpy() for name, tensor in tensors.items()},
        random_generator_weights(generator, features, seed),
        np.zeros((0, *encoder.input_shape[1:], 3), np.uint8),
        {"from": "random weights", "seed": seed},
    )


def as_text(name: str) -> str:
    """Return a file's name as text that any format can hold: bytes that are no UTF-8 become U+FFFD."""
    return os.fsencode(name).decode("utf-8", "replace")


def check_weights(weights: Mapping[str, Tensor], layers: Iterable[Layer], source: str, exact: bool) -> Weights:
    """Convert weights to float32 arrays, in the order of the table, after checking names, shapes and values.

    ``exact`` refuses names that the table lacks. Raises CheckpointError that names ``source`` and the tensor.
    """
    expected = _expected(layers)
    if exact and (extra := sorted(set(weights) - set(expected))):
        raise CheckpointError(f"{source}: {extra[0]} belongs to another network, expected weights of this one.")
    checked: Weights = {}
    for name, shape in expected.items():
        if name not in weights:
            raise CheckpointError(f"{source}: no {name}, expected shape {shape}.")
        if tuple(weights[name].shape) != shape:
            found = tuple(weights[name].shape)
            raise CheckpointError(f"{source}: {name} has shape {found}, expected {shape}.")
        if not weights[name].is_floating_point() or not bool(weights[name].isfinite().all()):
            raise CheckpointError(f"{source}: {name} is not finite, expected finite numbers. Name an older checkpoint.")
        checked[name] = weights[name].float().contiguous().numpy()
    return checked


def _expected(layers: Iterable[Layer]) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {}
    for layer in layers:
        if layer.has_weights:
            shapes[f"{layer.name}.weight"], shapes[f"{layer.name}.bias"] = layer.weight_shape, (layer.outputs,)
    return shapes


def checkpoint_of(path: Path) -> Path:
    """Resolve a run or checkpoint folder to a checkpoint folder. Raises CheckpointError where it is neither."""
    if (path / STATE).is_file():
        return path
    latest = checkpoints(path) / LATEST
    if not latest.is_file():
        raise CheckpointError(f"{path}: no run or checkpoint, expected checkpoints/latest or state.json.")
    name = latest.read_text(errors="replace").strip()
    if name and "/" not in name:
        restore(latest.parent / name)
    if not name or "/" in name or not (latest.parent / name).is_dir():
        raise CheckpointError(
            f"{latest}: names {name!r}, expected a folder beside it. Name a checkpoint folder itself."
        )
    return latest.parent / name


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not readable ({error}), expected JSON. Name another checkpoint.") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: {type(content).__name__}, expected an object. Name another checkpoint.")
    return content


def _weights(path: Path, layers: tuple[Layer, ...], exact: bool) -> Weights:
    from deepsim.train.weights import read_weights

    return check_weights(read_weights(path), layers, str(path), exact)


def _training(config: dict[str, Any], state: dict[str, Any], checkpoint: str) -> dict[str, Any]:
    """Return what is worth knowing of a training, without folders of the machine that it ran on."""
    settings = {
        name: as_text(Path(value).name) if name.endswith("_weights") else value for name, value in config.items()
    }
    return {"checkpoint": checkpoint, "step": state.get("step"), "torch": state.get("torch"), "config": settings}
