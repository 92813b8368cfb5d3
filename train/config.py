"""What a training run is made of: one typed record, each field with its help and range; and the presets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from deepsim.runtime.errors import UsageError
from deepsim.runtime.generators import Family, check_width, generator_spec
from deepsim.runtime.geometry import MAX_SIDE
from deepsim.runtime.networks import ENCODERS, encoder_spec
from deepsim.runtime.run_folder import run_of
from deepsim.train.module_references import OWN, is_module_reference, parse
from deepsim.train.objective import Normalisation, image_terms, uses, weights_of
from deepsim.train.settings import check_values, converted_values, setting
from deepsim.train.tasks import CODE_SIZE, LAMBDA_KL, TaskName, check_task, encoder_of, settings_of_task, task_of

Precision = Literal["fp32", "bf16", "fp16", "auto"]
Schedule = Literal["constant", "halve", "cosine"]
Optimizer = Literal["adam", "muon"]
Augmentation = Literal["none", "translation", "all"]
EncoderInterpolation = Literal["own", "bilinear", "bicubic"]
_OF_MODULES = ("encoder_side", "encoder_resize", "encoder_interpolation", "encoder_mean", "encoder_std")
_LARGEST = 2**62  # what every reader of a seed or a count takes


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides the final weights of a run, and how often it reports.

    Networks: ``task`` says which of them learn (see :mod:`deepsim.train.tasks`). ``layer`` of ``encoder`` is inverted
    by a ``generator`` of ``width`` (1: the paper's). ``comparator`` is the layer that feature losses are measured at,
    of ``comparator_network`` or, where that is empty, of the encoder's.
    Weights come from local files or, when those are empty, from ``seed`` (encoder) and ``comparator_seed``; comparator
    and encoder share weights unless the comparator has its own file or ``comparator_seed`` >= 0. Where the encoder
    learns, these are the weights that it begins with, which the comparator keeps. ``conditional``: the discriminator
    sees the inverted feature too.

    Objective (Eq. 1): a ``lambda`` for each term of :mod:`deepsim.train.objective`, each may be 0; ``normalisation``
    says what the losses sum to. With ``calibrate_feat`` the feature loss gets the strength that ``lambda_feat`` has for
    CaffeNet's pool5 (:mod:`deepsim.train.calibration`), and a run's settings hold the weight that was found.

    Optimisation: Adam with ``learning_rate``, ``beta1``, ``beta2``, or Muon (:mod:`deepsim.train.muon`) for the weights
    of tables of layers that learn; ``schedule`` "halve" halves at each of
    ``milestones`` counted in a network's own updates, "cosine" falls to 0 at ``steps`` or at the end of ``minutes``,
    whichever is nearer; ``weight_decay`` is an L2 term in the gradient, on all of D and on the weights of the
    generator's Rconv layers; ``frozen_biases`` keeps the biases of the up-convolutional part at 0 as in the release.

    Length: ``steps``, or ``minutes`` of training over all resumptions, or both, whichever ends first. One of them may
    be 0: no such limit.

    Data: ``mirror`` flips half of the crops; ``zoom`` is the share of crops taken at a random scale.
    """

    task: TaskName = setting(  # noqa: RUF009
        "inversion",
        "What learns: a generator for a given encoder (inversion), or both (autoencoder), through codes that are drawn "
        "from a normal distribution (vae).",
    )
    layer: str = setting(
        "fc6",
        "Layer to invert: norm1, norm2, conv3, conv4, pool5, fc6, fc7, fc8 (alexnet: pool1, pool2, conv3 ...); "
        "or latent, the code of an encoder that learns.",
    )
    latent: int = setting(CODE_SIZE, "Units of the code, with --layer latent.", least=1, most=1 << 20)
    encoder_width: float = setting(
        1.0, "Width of the encoder before a code, with --layer latent and random weights: 1, 0.5, 0.25 ..."
    )
    encoder: str = setting(
        "caffenet",
        f"Network whose features are inverted: {', '.join(ENCODERS)}; or any PyTorch module as "
        "torchvision:NAME@LAYER, timm:NAME@LAYER or package.module:callable@LAYER.",
    )
    encoder_weights: str = setting(
        "", "Local weights file of the encoder (.safetensors, .pt, .pth), or a bundle. Default: random, from the seed."
    )
    encoder_side: int = setting(0, "Side in pixels of a module's input; 0: the model's own.", least=0, most=MAX_SIDE)
    encoder_resize: int = setting(
        0,
        "Pixels that a photograph's shorter side is resized to for a module; 0: the model's own.",
        least=0,
        most=MAX_SIDE,
    )
    encoder_interpolation: EncoderInterpolation = setting(  # noqa: RUF009
        OWN, "How a photograph is resized for a module."
    )
    encoder_mean: tuple[float, ...] = setting(
        (),
        "Mean of R, G, B that a module's input is normalised with (pixels 0-1), as 0.5,0.5,0.5. Default: the model's.",
    )
    encoder_std: tuple[float, ...] = setting(
        (),
        "Standard deviation of R, G, B that a module's input is normalised with. Default: the model's own.",
        least=1e-6,
    )
    comparator: str = setting("pool5", "Layer at which the feature loss compares images.")
    comparator_network: str = setting(
        "",
        f"Network of the comparator, where it is not the encoder's: {', '.join(ENCODERS)}; or a PyTorch module as "
        "timm:NAME@LAYER.",
    )
    comparator_weights: str = setting("", "Weights file, or bundle, of a comparator that is not the encoder.")
    comparator_seed: int = setting(
        -1, "Seed of a random comparator that is not the encoder; -1: the encoder itself.", least=-1, most=_LARGEST
    )
    generator: Family = setting(  # noqa: RUF009
        "deepsim", "Tables of the generator: the paper's and ours, or those of Dosovitskiy & Brox 2015."
    )
    width: float = setting(1.0, "Width of the generator: 1 is the paper's; 0.5, 0.25 ... are narrower.")
    conditional: bool = setting(False, "Let the discriminator see the inverted feature (as the release does).")
    lambda_feat: float = setting(0.01, "Weight of the feature loss (Eq. 2).", least=0)
    calibrate_feat: bool = setting(
        False, "Give --lambda-feat the strength that it has for CaffeNet's pool5, whatever the comparator."
    )
    lambda_adv: float = setting(
        100.0, "Weight of the adversarial loss (Eq. 4); 0 trains without a discriminator.", least=0
    )
    lambda_img: float = setting(2e-6, "Weight of the image loss (Eq. 5).", least=0)
    lambda_kl: float = setting(
        0.0, f"Weight of the KL term (Eq. 8) of --task vae, where the default is {LAMBDA_KL:g}.", least=0
    )
    normalisation: Normalisation = setting(  # noqa: RUF009
        "release", "The paper's sums over the batch, or the release's sum/(2N) and means."
    )
    augmentation: Augmentation = setting(  # noqa: RUF009
        "none", "Changes at random what the discriminator sees, for few photographs: translation, or all."
    )
    stop_discriminator: float = setting(0.1, "Pause D below this loss ratio.", least=0)
    resume_discriminator: float = setting(0.5, "Resume D above this loss ratio.", least=0)
    stop_generator: float = setting(10.0, "Pause G above this loss ratio.", least=0)
    batch: int = setting(64, "Photographs per step, over all processes.", least=1, most=1 << 20)
    steps: int = setting(
        500_000,
        "Steps to train; with --minutes the most of them (0: no limit, the default there).",
        least=0,
        most=_LARGEST,
    )
    minutes: float = setting(
        0.0, "Minutes to train, over all resumptions; the cosine schedule ends with them.", least=0, most=1e7
    )
    optimizer: Optimizer = setting(  # noqa: RUF009
        "adam", "Adam, or Muon for the weights of the generator: orthogonalised momentum, for short runs."
    )
    learning_rate: float = setting(2e-4, "Learning rate.", least=0)
    beta1: float = setting(0.9, "Beta1 of Adam.", least=0, below=1)
    beta2: float = setting(0.999, "Beta2 of Adam.", least=0, below=1)
    schedule: Schedule = setting("halve", "Course of the learning rate.")  # noqa: RUF009
    milestones: tuple[int, ...] = setting(
        (300_000, 500_000, 700_000, 900_000, 1_100_000),
        "Updates at which 'halve' halves, separated by commas.",
        least=0,
        most=_LARGEST,
    )
    warm_up: int = setting(0, "Updates over which the learning rate rises from 0.", least=0, most=_LARGEST)
    average: float = setting(
        0.0,
        "Share of the running average of the generator's weights that an update leaves; validation and export use the "
        "average (0: none, they use the weights).",
        least=0,
        below=1,
    )
    weight_decay: float = setting(0.0, "L2 term in the gradient of D and of the Rconv weights.", least=0)
    frozen_biases: bool = setting(False, "Keep the biases of the up-convolutional part at 0 (release).")
    even_start: bool = setting(False, "Begin with up-convolutions that make no checkerboard.")
    mirror: bool = setting(True, "Flip half of the training crops.")
    zoom: float = setting(
        0.0, "Share of training crops taken at a random scale (0: the paper's rule).", least=0, most=1
    )
    precision: Precision = setting(  # noqa: RUF009
        "fp32", "Arithmetic of the networks (autocast); auto: bf16 where it is faster here, else fp32."
    )
    channels_last: bool = setting(True, "Keep activations in channels-last memory order.")
    compile: bool = setting(False, "Compile the networks that learn with torch.compile.")
    deterministic: bool = setting(False, "Use deterministic algorithms only, for bit-identical repeats.")
    seed: int = setting(0, "Seed of weights, held-out photographs, data order and dropout.", least=0, most=_LARGEST)
    log_every: int = setting(20, "Steps between log lines.", least=1, most=_LARGEST)
    image_every: int = setting(1000, "Steps between image grids.", least=1, most=_LARGEST)
    checkpoint_every: int = setting(5000, "Steps between checkpoints.", least=1, most=_LARGEST)
    validate_every: int = setting(1000, "Steps between validations.", least=1, most=_LARGEST)

    def __post_init__(self) -> None:
        check_values(self)
        if is_module_reference(self.encoder):
            self._check_module()
        else:
            self._check_table()
        self._check_comparator()
        check_task(self)
        if all(term.weight_in(self) == 0 for term in image_terms()):
            weights = ", ".join(term.weight for term in image_terms())
            raise UsageError(f"{weights}: all 0, expected a loss. Set one above 0.")
        if self.steps == 0 and self.minutes == 0:
            raise UsageError("steps, minutes: both 0, expected an end. Set one above 0.")
        if self.minutes and self.deterministic:
            raise UsageError(
                "minutes, deterministic: both set, but how far the clock lets a run come differs each time. "
                "Pass --steps with --deterministic."
            )
        if self.precision == "auto" and self.deterministic:
            raise UsageError("precision, deterministic: auto goes by times, which differ. Pass --precision fp32.")

    def _check_table(self) -> None:
        generator_spec(self.layer, encoder_of(self), self.width, self.generator)
        if not self.comparator_network:
            encoder_spec(self.encoder).up_to(self.comparator)
        for name in _OF_MODULES:
            if getattr(self, name) != type(self).__dataclass_fields__[name].default:
                raise UsageError(f"{name}: {getattr(self, name)!r}, but {self.encoder} is a table with its own pixels.")

    def _check_comparator(self) -> None:
        network = self.comparator_network
        if network and not is_module_reference(network):
            encoder_spec(network).up_to(self.comparator)
        elif network and self.comparator != (named := parse(network).layer):
            raise UsageError(
                f"comparator: {self.comparator!r}, but comparator_network names {named!r}. Pass one or the other."
            )

    def _check_module(self) -> None:
        check_width(self.width)
        reference = parse(self.encoder)
        if self.layer != reference.layer:
            raise UsageError(
                f"layer: {self.layer!r}, but the encoder names {reference.layer!r}. Pass one or the other."
            )
        if task_of(self.task).encoder_learns:
            raise UsageError(f"task: {self.task}, but {reference.model} is a module, which stays frozen.")
        for name in ("encoder_mean", "encoder_std"):
            if len(getattr(self, name)) not in (0, 3):
                raise UsageError(f"{name}: {getattr(self, name)}, expected three numbers, of R, G and B.")

    def to_json(self) -> str:
        """Return the record as JSON text."""
        return json.dumps(asdict(self), indent=2) + "\n"

    def updated(self, values: Mapping[str, Any]) -> TrainConfig:
        """Return a copy with some fields replaced, each converted to its type (YAML reads 1e-4 as text).

        Raises UsageError naming an unknown field or a value of the wrong type.

        >>> PRESETS["demo"].updated({"learning_rate": "1e-4"}).learning_rate
        0.0001
        """
        named = converted_values(type(self), values)
        begins = settings_of_task(named["task"]) if named.get("task", self.task) != self.task else {}
        return replace(self, **{**begins, **_layers_named(named), **named})


def _layers_named(values: Mapping[str, Any]) -> dict[str, str]:
    """Return the settings that references to modules bring: the layer that is inverted or compared at."""
    named: dict[str, str] = {}
    if is_module_reference(values.get("encoder", "")):
        named |= dict.fromkeys(("layer", "comparator"), parse(values["encoder"]).layer)
    if is_module_reference(values.get("comparator_network", "")):
        named["comparator"] = parse(values["comparator_network"]).layer
    return named


# The objectives that the paper's Figure 1 compares, with its weights.
_WEIGHTS = {"lambda_img": 2e-6, "lambda_adv": 100.0, "lambda_feat": 0.01}
OBJECTIVES: dict[str, dict[str, float]] = {
    name: {weight: value if weight.removeprefix("lambda_") in terms else 0.0 for weight, value in _WEIGHTS.items()}
    for name, terms in {
        "image": ("img",),
        "image+adv": ("img", "adv"),
        "image+feat": ("img", "feat"),
        "full": ("img", "adv", "feat"),
    }.items()
}

PRESETS: dict[str, TrainConfig] = {
    # Minutes on two cores: a low layer, where few steps already show a photograph, half of the paper's width, which in
    # the same time gets further than the full one, and the image loss alone: the others bring little so early, and a
    # step with the feature loss takes nearly twice as long.
    "demo": TrainConfig(
        layer="norm2",
        comparator="norm2",
        width=0.5,
        lambda_feat=0.0,
        lambda_adv=0.0,
        batch=8,
        steps=1000,
        optimizer="muon",
        learning_rate=3e-3,
        warm_up=50,
        schedule="cosine",
        precision="auto",
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
# The paper's variational autoencoder (section 4.2), its baseline of squared errors and the KL term (Figure 8a), whose
# weights the paper does not state: ours are those of the whole objective. And the same code without a distribution.
PRESETS["vae"] = PRESETS["paper"].updated({"task": "vae"})
PRESETS["vae-image"] = replace(PRESETS["vae"], lambda_feat=0.0, lambda_adv=0.0)
PRESETS["autoencoder"] = replace(PRESETS["paper"], task="autoencoder", layer="latent")
# Minutes on two cores: the same with narrow networks, a small code and a weight of the KL term that lets it tell
# something in so few steps. All of it is our choice. The high rate with its short memory and warm-up is what gets the
# narrow Table 1, which begins with images of a few grey levels, to those of photographs.
_SMALL_CODE: dict[str, Any] = {
    "encoder_width": 0.125, "width": 0.125, "latent": 64, "comparator": "norm1", "batch": 8, "steps": 600,
    "learning_rate": 4e-3, "beta2": 0.95, "warm_up": 20, "schedule": "cosine", "zoom": 0.7,
    "image_every": 150, "checkpoint_every": 150, "validate_every": 75, "log_every": 5,
}  # fmt: skip
PRESETS["vae-demo"] = replace(PRESETS["vae"], lambda_kl=0.1, lambda_adv=0.0, **_SMALL_CODE)
PRESETS["vae-image-demo"] = replace(PRESETS["vae-image"], lambda_kl=0.1, **_SMALL_CODE)
# Codes that no prior holds back grow, which brings images to those levels at an ordinary rate.
PRESETS["autoencoder-demo"] = replace(PRESETS["autoencoder"], lambda_feat=0.0, lambda_adv=0.0, **_SMALL_CODE).updated(
    {"encoder_width": 0.25, "learning_rate": 1e-3, "beta2": 0.999, "warm_up": 0}
)
# The baseline of the earlier paper, for fc6, fc7, fc8 and pool5: its networks and its squared error alone. The weight
# makes that about the mean over an image of 128 pixels. Its optimiser is not known, so this is the paper's.
PRESETS["dosovitskiy2015"] = replace(
    PRESETS["paper"], generator="dosovitskiy2015", lambda_feat=0.0, lambda_adv=0.0, lambda_img=4e-5
)
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
    "task", "layer", "latent", "encoder_width", "encoder", *_OF_MODULES, "encoder_weights",
    "comparator", "comparator_network", "comparator_weights", "comparator_seed", "calibrate_feat",
    "generator", "width", "conditional", "frozen_biases", "optimizer", "average", "seed",
)  # fmt: skip


def begun_run(resume: str, folder: Path) -> Path:
    """Return the folder of the run that is resumed: ``folder`` for "auto", else the one that holds the checkpoint."""
    return folder if resume == "auto" else run_of(Path(resume).resolve())


def check_resumable(begun: TrainConfig, config: TrainConfig) -> None:
    """Raise UsageError when a resumed run's settings do not fit its beginning."""
    for name in FIXED:
        before, now = getattr(begun, name), getattr(config, name)
        if before != now:
            raise UsageError(f"{name}: {now!r}, the run was begun with {before!r}. Leave it, or choose a new --output.")
    if config.minutes and config.minutes == begun.minutes and config.steps != begun.steps:
        raise UsageError(
            f"steps: {config.steps:,}, but the run was begun with {begun.minutes:g} minutes, which end it. "
            "Pass --minutes too: more of them, or 0 to go by steps alone."
        )
    if uses(begun, "discriminator") != uses(config, "discriminator"):
        raise UsageError(
            f"{weights_of('discriminator')}: a discriminator cannot come or go while a run is resumed. "
            "Choose a new --output."
        )


def read_config(path: Path) -> dict[str, Any]:
    """Read settings from a YAML (or JSON) file (see :func:`deepsim.train.config_file.read_mapping`)."""
    from deepsim.train.config_file import read_mapping  # wants PyYAML

    return read_mapping(path)


def field_names() -> list[str]:
    """List the settings of a run, in order."""
    return [entry.name for entry in fields(TrainConfig)]
