"""Tasks: which networks learn, and what is encoded.

``inversion`` is the papers': the encoder is given and frozen, the generator learns to turn its features back into
photographs. In an ``autoencoder`` encoder and generator learn together, from random weights or from a file; the
features are a deterministic code. The discriminator learns in both where a term needs it, and every term of
:data:`deepsim.train.objective.TERMS` counts in both. A variational autoencoder (Dosovitskiy & Brox 2016, section 4.2)
has its name here and is refused: nothing samples its code yet.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from deepsim.kernels.layers import Layer
from deepsim.runtime.errors import UsageError
from deepsim.runtime.generators import LATENT
from deepsim.runtime.networks import EncoderSpec, encoder_spec

TaskName = Literal["inversion", "autoencoder", "vae"]
CODE_SIZE = 4096  # of the layer "latent", where nothing else is asked for
CODE_BEHIND = "fc6"  # the layer of every table that a code is computed from, as in the paper's section 4.2


@dataclass(frozen=True)
class Task:
    """What a training is for. ``verb`` begins the sentence that a run says of itself."""

    name: TaskName
    encoder_learns: bool
    verb: str


TASKS: dict[str, Task] = {
    "inversion": Task("inversion", encoder_learns=False, verb="Inverting"),
    "autoencoder": Task("autoencoder", encoder_learns=True, verb="Learning an autoencoder from"),
}


def task_of(name: str) -> Task:
    """Look a task up by name. Raises UsageError naming the tasks that can be trained.

    >>> task_of("autoencoder").encoder_learns
    True
    """
    if name in TASKS:
        return TASKS[name]
    found = "cannot be trained yet" if name in get_args(TaskName) else "unknown"
    raise UsageError(f"task {name!r}: {found}, expected one of {', '.join(TASKS)}.")


def encoder_for(task: str, encoder: str, layer: str, latent: int = CODE_SIZE) -> EncoderSpec:
    """Return the table of a task's encoder: a known one, or with ``layer`` "latent" one that ends in a code.

    That code is a fully connected layer of ``latent`` linear units behind fc6. Raises UsageError for an unknown task or
    encoder, and for a code of an encoder that does not learn.
    """
    spec = encoder_spec(encoder)
    learns = task_of(task).encoder_learns
    if layer != LATENT:
        return spec
    if not learns:
        raise UsageError(f"layer {LATENT!r}: only an encoder that learns has it, expected --task autoencoder.")
    inputs = spec.feature_shape(CODE_BEHIND)[0]
    return replace(spec, layers=(*spec.up_to(CODE_BEHIND), Layer(LATENT, "fc", inputs, latent)))


def encoder_of(config: Any) -> EncoderSpec:
    """Return the table of a configuration's encoder (see :func:`encoder_for`)."""
    return encoder_for(config.task, config.encoder, config.layer, config.latent)


def given_layer(layer: str) -> str:
    """Return the last layer up to ``layer`` whose weights a file of the encoder holds: of a code, the one before."""
    return CODE_BEHIND if layer == LATENT else layer
