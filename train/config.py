"""What a training run is made of: one typed record, its presets, and its reading from YAML or JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from deepsim.runtime.errors import UsageError
from deepsim.runtime.networks import encoder_spec, generator_spec

Normalisation = Literal["paper", "release"]
Precision = Literal["fp32", "bf16", "fp16"]
Schedule = Literal["constant", "halve", "cosine"]


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides the final weights of a run, and how often it reports.

    Networks: ``layer`` of ``encoder`` is inverted by a generator of ``width`` (1: the paper's). ``comparator`` is the
    layer that feature losses are measured at. Weights come from local files or, when those are empty, from ``seed``
    (encoder) and ``comparator_seed``; comparator and encoder share weights unless the comparator has its own file or
    ``comparator_seed`` >= 0. ``conditional``: the discriminator sees the inverted feature too.

    Objective (Eq. 1): ``lambda_feat``, ``lambda_adv``, ``lambda_img``, each may be 0; ``normalisation`` says what the
    losses sum to (see :mod:`deepsim.train.losses`).

    Optimisation: Adam with ``learning_rate``, ``beta1``, ``beta2``; ``schedule`` "halve" halves at each of
    ``milestones`` counted in a network's own updates, "cosine" falls to 0 at ``steps``; ``weight_decay`` is an L2 term
    in the gradient, on all of D and on the weights of the generator's Rconv layers; ``frozen_biases`` keeps the biases
    of the up-convolutional part at 0 as in the release.

    Data: ``mirror`` flips half of the crops; ``zoom`` is the share of crops taken at a random scale.
    """

    layer: str = "fc6"
    encoder: str = "caffenet"
    encoder_weights: str = ""
    comparator: str = "pool5"
    comparator_weights: str = ""
    comparator_seed: int = -1
    width: float = 1.0
    conditional: bool = False
    lambda_feat: float = 0.01
    lambda_adv: float = 100.0
    lambda_img: float = 2e-6
    normalisation: Normalisation = "release"
    stop_discriminator: float = 0.1
    resume_discriminator: float = 0.5
    stop_generator: float = 10.0
    batch: int = 64
    steps: int = 500_000
    learning_rate: float = 2e-4
    beta1: float = 0.9
    beta2: float = 0.999
    schedule: Schedule = "halve"
    milestones: tuple[int, ...] = (300_000, 500_000, 700_000, 900_000, 1_100_000)
    weight_decay: float = 0.0
    frozen_biases: bool = False
    mirror: bool = True
    zoom: float = 0.0
    precision: Precision = "fp32"
    channels_last: bool = True
    compile: bool = False
    deterministic: bool = False
    seed: int = 0
    log_every: int = 20
    image_every: int = 1000
    checkpoint_every: int = 5000
    validate_every: int = 1000

    def __post_init__(self) -> None:
        spec = encoder_spec(self.encoder)
        generator_spec(self.layer, spec, self.width)
        spec.up_to(self.comparator)
        for name in ("batch", "steps", "log_every", "image_every", "checkpoint_every", "validate_every"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name}: {getattr(self, name)}, expected at least 1. Choose a larger value.")
        for name in ("lambda_feat", "lambda_adv", "lambda_img", "weight_decay", "learning_rate"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise UsageError(f"{name}: {getattr(self, name)}, expected a finite value >= 0. Choose such a value.")
        if self.lambda_feat == self.lambda_adv == self.lambda_img == 0:
            raise UsageError("lambda_feat, lambda_adv, lambda_img: all 0, expected a loss. Set one above 0.")
        for name, hint in get_type_hints(TrainConfig).items():
            if get_origin(hint) is Literal and getattr(self, name) not in get_args(hint):
                known = ", ".join(get_args(hint))
                raise UsageError(f"{name}: {getattr(self, name)!r}, expected one of {known}. Choose one of these.")

    def to_json(self) -> str:
        """Return the record as JSON text."""
        return json.dumps(asdict(self), indent=2) + "\n"

    def updated(self, values: Mapping[str, Any]) -> TrainConfig:
        """Return a copy with some fields replaced, each converted to its type (YAML reads 1e-4 as text).

        Raises UsageError naming an unknown field or a value of the wrong type.
        """
        hints = get_type_hints(TrainConfig)
        unknown = sorted(set(values) - set(hints))
        if unknown:
            raise UsageError(f"{unknown[0]}: no such setting, expected one of {', '.join(hints)}. Check the spelling.")
        return replace(self, **{name: _converted(name, value, hints[name]) for name, value in values.items()})


def _converted(name: str, value: Any, hint: Any) -> Any:
    try:
        if hint is bool and isinstance(value, bool):
            return value
        if get_origin(hint) is tuple:
            return tuple(int(entry) for entry in value)
        if hint in (int, float) and not isinstance(value, bool):
            return hint(value)
        if hint is str or get_origin(hint) is Literal:
            return str(value)
    except (TypeError, ValueError):
        pass
    expected = getattr(hint, "__name__", str(hint))
    raise UsageError(f"{name}: {value!r}, expected {expected}. Correct the value.")


PRESETS: dict[str, TrainConfig] = {
    # Minutes on two cores: a low layer, where few steps already show a photograph, and half of the paper's width,
    # which in the same time gets further than the full one.
    "demo": TrainConfig(
        layer="norm2",
        comparator="norm2",
        width=0.5,
        lambda_feat=2e-3,
        lambda_adv=0.0,
        batch=8,
        steps=1000,
        learning_rate=1e-3,
        schedule="cosine",
        zoom=0.7,
        image_every=250,
        checkpoint_every=250,
        validate_every=125,
        log_every=5,
    ),
    # The paper: FC6, CONV5 comparator, unconditional discriminator.
    "paper": TrainConfig(),
    # The authors' release: conditional discriminator, L2 term, biases of the up-convolutions frozen.
    "release": TrainConfig(conditional=True, weight_decay=4e-4, frozen_biases=True, steps=1_000_000),
}
PRESETS["pool5"] = replace(PRESETS["paper"], layer="pool5")
# Seconds: the whole loop, adversarial part included, on a network a fraction of the size.
PRESETS["tiny"] = TrainConfig(
    layer="norm1",
    comparator="norm1",
    width=0.0625,
    batch=2,
    steps=20,
    learning_rate=1e-3,
    schedule="constant",
    log_every=1,
    image_every=10,
    checkpoint_every=5,
    validate_every=10,
)


# What a resumed run must share with its beginning: these decide networks, targets and the order of the data.
FIXED = (
    "layer", "encoder", "encoder_weights", "comparator", "comparator_weights", "comparator_seed", "width",
    "conditional", "frozen_biases", "seed",
)  # fmt: skip


def begun_run(resume: str, folder: Path) -> Path:
    """Return the folder of the run that is resumed: ``folder`` for "auto", else the one that holds the checkpoint."""
    return folder if resume == "auto" else Path(resume).resolve().parent.parent


def check_resumable(begun: TrainConfig, config: TrainConfig) -> None:
    """Raise UsageError when a resumed run's settings do not fit its beginning."""
    for name in FIXED:
        before, now = getattr(begun, name), getattr(config, name)
        if before != now:
            raise UsageError(f"{name}: {now!r}, the run was begun with {before!r}. Leave it, or choose a new --output.")
    if (begun.lambda_adv > 0) != (config.lambda_adv > 0):
        raise UsageError("lambda_adv: a discriminator cannot come or go while a run is resumed. Choose a new --output.")


def read_config(path: Path) -> dict[str, Any]:
    """Read settings from a YAML (or JSON) file. Raises UsageError when it is missing or not a mapping."""
    import yaml

    try:
        values = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{path}: not readable as YAML ({str(error).splitlines()[0]}). Check the file.") from error
    if not isinstance(values, dict):
        raise UsageError(f"{path}: not a mapping, expected lines such as 'layer: fc6'. Check the file.")
    return {str(name): list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def field_names() -> list[str]:
    """List the settings of a run, in order."""
    return [entry.name for entry in fields(TrainConfig)]
