"""Tasks: which networks learn, and what is encoded.

``inversion`` is the papers': the encoder is given and frozen, the generator learns to turn its features back into
photographs. In an ``autoencoder`` encoder and generator learn together, from random weights or from a file; the
features are a deterministic code. ``vae`` is the variational autoencoder of Dosovitskiy & Brox 2016, section 4.2: the
encoder gives a normal distribution for each unit of the code, and the generator decodes codes that are drawn from it
(see :mod:`deepsim.train.latent`). The discriminator learns in all of them where a term needs it; a conditional one
sees what the generator decodes, in a ``vae`` the code that was drawn. Every term of
:data:`deepsim.train.objective.TERMS` counts where it has a weight; the KL term belongs to ``vae`` alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from deepsim.kernels.layers import Layer
from deepsim.runtime.errors import UsageError
from deepsim.runtime.generators import LATENT, narrowed
from deepsim.runtime.networks import EncoderSpec, encoder_spec
from deepsim.runtime.prior import STANDARD_NORMAL, Prior

TaskName = Literal["inversion", "autoencoder", "vae"]
CODE_SIZE = 4096  # of the layer "latent", where nothing else is asked for: the paper does not state its own
CODE_BEHIND = "fc6"  # the layer of every table that a code is computed from, as in the paper's section 4.2
LAMBDA_KL = 20.0  # of a variational autoencoder (paper, section 4.2)


@dataclass(frozen=True)
class Task:
    """What a training is for. ``verb`` begins the sentence that a run says of itself.

    ``prior`` is the distribution that codes are pulled towards, and can be drawn from afterwards; None: none is.
    """

    name: TaskName
    encoder_learns: bool
    verb: str
    prior: Prior | None = None


TASKS: dict[str, Task] = {
    "inversion": Task("inversion", encoder_learns=False, verb="Inverting"),
    "autoencoder": Task("autoencoder", encoder_learns=True, verb="Learning an autoencoder from"),
    "vae": Task("vae", encoder_learns=True, verb="Learning a variational autoencoder from", prior=STANDARD_NORMAL),
}


def task_of(name: str) -> Task:
    """Look a task up by name. Raises UsageError naming the tasks that can be trained.

    >>> task_of("autoencoder").encoder_learns
    True
    """
    if name not in TASKS:
        raise UsageError(f"task {name!r}: unknown, expected one of {', '.join(TASKS)}.")
    return TASKS[name]


def settings_of_task(name: str) -> dict[str, Any]:
    """Return the settings that a task brings where they are not given: a ``vae`` has a code and the paper's weight."""
    return {"layer": LATENT, "lambda_kl": LAMBDA_KL} if name in TASKS and TASKS[name].prior else {}


def check_task(config: Any) -> None:
    """Raise UsageError where a configuration's layer, encoder or weight of the KL term does not fit its task."""
    if config.encoder_width != 1 and (config.layer != LATENT or config.encoder_weights):
        found = "weights from a file" if config.encoder_weights else f"layer {config.layer!r}"
        raise UsageError(
            f"encoder_width: {config.encoder_width:g} with {found}, expected a code behind random weights ({LATENT!r})."
        )
    if task_of(config.task).prior is None:
        if config.lambda_kl != 0:
            raise UsageError(f"lambda_kl: {config.lambda_kl:g}, but task {config.task} draws no codes, expected 0.")
        return
    if config.layer != LATENT:
        raise UsageError(f"layer: {config.layer!r}, but task {config.task} draws codes, expected {LATENT!r}.")
    if config.lambda_kl == 0:
        raise UsageError(
            f"lambda_kl: 0, but nothing else ties a {config.task}'s codes to its prior, expected a weight above 0. "
            "For codes without a prior pass --task autoencoder."
        )


def encoder_for(task: str, encoder: str, layer: str, latent: int = CODE_SIZE, width: float = 1.0) -> EncoderSpec:
    """Return the table of a task's encoder: a known one, or with ``layer`` "latent" one that ends in a code.

    That code is a fully connected layer of ``latent`` linear units behind fc6; of a ``vae`` it is the mean. ``width``
    scales the layers before the code. Raises UsageError for an unknown task, encoder or width, and for a code of an
    encoder that does not learn.
    """
    spec = encoder_spec(encoder)
    learns = task_of(task).encoder_learns
    if layer != LATENT:
        return spec
    if not learns:
        raise UsageError(f"layer {LATENT!r}: only an encoder that learns has it, expected --task autoencoder or vae.")
    inputs = spec.feature_shape(CODE_BEHIND)[0]
    layers = (*spec.up_to(CODE_BEHIND), Layer(LATENT, "fc", inputs, latent))
    return replace(spec, layers=narrowed(layers, width))


def encoder_of(config: Any) -> EncoderSpec:
    """Return the table of a configuration's encoder (see :func:`encoder_for`)."""
    return encoder_for(config.task, config.encoder, config.layer, config.latent, config.encoder_width)


def given_layer(layer: str) -> str:
    """Return the last layer up to ``layer`` whose weights a file of the encoder holds: of a code, the one before."""
    return CODE_BEHIND if layer == LATENT else layer
