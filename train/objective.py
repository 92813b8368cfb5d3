"""The objective: every loss of training, one record and one function each, and the list that the generator minimises.

The generator minimises the weighted sum of :data:`TERMS` (Dosovitskiy & Brox 2016, arXiv 1602.02644, Eq. 1; x the
features, y the photograph, G(x) its reconstruction, C the comparator, D(y) the probability that y is a photograph):

==================  =========================================  ==================================================
term                the paper's sums over the batch            the release (Caffe's layers), N the batch
==================  =========================================  ==================================================
image_loss          sum |G(x) - y|^2  (Eq. 5)                  the same / (2 N)
feature_loss        sum |C(G(x)) - C(y)|^2  (Eq. 2)            the same / (2 N)
adversarial_loss    -sum log D(G(x))  (Eq. 4)                  the same / N
kl_loss             1/2 sum mu^2 + s^2 - log s^2 - 1  (Eq. 8)  the same / N
discriminator_loss  -sum log D(y) + log(1 - D(G(x)))  (Eq. 3)  100 (mean of -log D(y) + mean of -log(1 - D(G(x))))
==================  =========================================  ==================================================

The last is what the discriminator minimises, so it is no term of the generator. The published weights (0.01, 100, 2e-6)
belong to the release's normalisation. All losses are computed in fp32.

The KL term is that of a variational autoencoder, with mu and s^2 the means and variances of its codes and the paper's
weight 20 (section 4.2). Eq. 8 is a sum; beside squared errors over 2 N it is the mean over the batch, which the release
itself, without a variational autoencoder, does not say. Eq. 8 leaves the constant -1 of each unit out.

A new loss is a function and its record in :data:`TERMS`, and the field of its weight in
:class:`deepsim.train.config.TrainConfig`. Its option, its line of the log, TensorBoard's curve and what a run says of
itself follow from these. This module needs no torch until a loss is computed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import Tensor

    from deepsim.train.latent import Posterior

Normalisation = Literal["paper", "release"]
Need = Literal["comparator", "discriminator", "posterior"]

REAL, FAKE = 0, 1  # labels of the discriminator's 2-way softmax (release)
RELEASE_DISCRIMINATOR_WEIGHT = 100.0


@dataclass(frozen=True)
class Reconstruction:
    """What the terms of one step look at, each part computed when the first term asks for it.

    ``fake`` and ``real``: generated images and photographs (N, 3, side, side), mean-subtracted BGR in 0-255 units.
    ``compare`` computes :attr:`compared`, ``judge`` computes :attr:`judged`; only terms that need them may ask.
    ``posterior`` holds the distributions that the codes of ``fake`` were drawn from, None where none were drawn.
    """

    fake: Tensor
    real: Tensor
    normalisation: Normalisation
    compare: Callable[[], tuple[Tensor, Tensor]]
    judge: Callable[[], Tensor]
    posterior: Posterior | None = None

    @cached_property
    def compared(self) -> tuple[Tensor, Tensor]:
        """Return the comparator's features (N, ...) of ``fake``, with a gradient to it, and of ``real``."""
        return self.compare()

    @cached_property
    def judged(self) -> Tensor:
        """Return the discriminator's logits (N, 2) of ``fake``, real first, with a gradient to ``fake`` alone."""
        return self.judge()


@dataclass(frozen=True)
class Term:
    """One loss of the generator: what it is called, where its weight stands, how it is computed and what it needs.

    ``name`` is its key in log.jsonl and its tag in TensorBoard and ends in "_loss"; ``weight`` is the field of the
    configuration with its factor in Eq. 1, where 0 switches the term off. ``called`` is a name for people where the
    one that is made of ``name`` would not do.
    """

    name: str
    weight: str
    function: Callable[[Reconstruction], Tensor]
    needs: Need | None = None
    called: str | None = None

    @property
    def label(self) -> str:
        """Return the short name for people: "image" for ``image_loss``."""
        return self.called or self.name.removesuffix("_loss").replace("_", " ")

    def weight_in(self, config: Any) -> float:
        """Return the term's factor in a configuration."""
        return float(getattr(config, self.weight))


def image_loss(made: Reconstruction) -> Tensor:
    """Compare generated images with the photographs, in 0-255 units (Eq. 5)."""
    return squared_error(made.fake, made.real, made.normalisation)


def feature_loss(made: Reconstruction) -> Tensor:
    """Compare the comparator's features of generated images with those of the photographs (Eq. 2)."""
    return squared_error(*made.compared, made.normalisation)


def adversarial_loss(made: Reconstruction) -> Tensor:
    """Return -log D(G(x)): small where the discriminator takes generated images for photographs (Eq. 4)."""
    return negative_log_likelihood(made.judged, REAL, made.normalisation)


def kl_loss(made: Reconstruction) -> Tensor:
    """Return how far the codes' distributions are from the prior, in nats (Eq. 8). Raises ValueError without any."""
    if made.posterior is None:
        raise ValueError("posterior: this run draws no codes, expected distributions of them.")
    total = made.posterior.divergence().sum()
    return total / len(made.posterior.mean) if made.normalisation == "release" else total


TERMS: tuple[Term, ...] = (
    Term("image_loss", "lambda_img", image_loss),
    Term("feature_loss", "lambda_feat", feature_loss, needs="comparator"),
    Term("adversarial_loss", "lambda_adv", adversarial_loss, needs="discriminator"),
    Term("kl_loss", "lambda_kl", kl_loss, needs="posterior", called="KL"),
)
"""The terms of the generator's objective, in the order in which a step computes them."""


def used_terms(config: Any) -> list[Term]:
    """List the terms whose weight in a configuration is not 0.

    >>> from deepsim.train.config import PRESETS
    >>> [term.name for term in used_terms(PRESETS["dosovitskiy2015"])]
    ['image_loss']
    """
    return [term for term in TERMS if term.weight_in(config) != 0]


def uses(config: Any, need: Need) -> bool:
    """Tell whether a term with a weight needs the comparator, the discriminator, or distributions of codes."""
    return any(term.needs == need for term in used_terms(config))


def image_terms() -> list[Term]:
    """List the terms that look at images, of which a run needs one."""
    return [term for term in TERMS if term.needs != "posterior"]


def weights_of(need: Need) -> str:
    """Join the names of the weights of the terms with that need."""
    return ", ".join(term.weight for term in TERMS if term.needs == need)


def real_loss(logits: Tensor, normalisation: Normalisation) -> Tensor:
    """Return the discriminator's loss on photographs: -log D(y) (first term of Eq. 3)."""
    return negative_log_likelihood(logits, REAL, normalisation)


def fake_loss(logits: Tensor, normalisation: Normalisation) -> Tensor:
    """Return the discriminator's loss on generated images: -log(1 - D(G(x))) (second term of Eq. 3)."""
    return negative_log_likelihood(logits, FAKE, normalisation)


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor, normalisation: Normalisation) -> Tensor:
    """Return what the discriminator minimises (Eq. 3); the release scales it by 100."""
    loss = real_loss(real_logits, normalisation) + fake_loss(fake_logits, normalisation)
    return RELEASE_DISCRIMINATOR_WEIGHT * loss if normalisation == "release" else loss


def squared_error(a: Tensor, b: Tensor, normalisation: Normalisation) -> Tensor:
    """Return the summed squared difference of two batches (N, ...), over 2 N in the release's normalisation.

    >>> import torch
    >>> squared_error(torch.ones(2, 3), torch.zeros(2, 3), "paper")
    tensor(6.)
    """
    total = (a.float() - b.float()).square().sum()
    return total / (2 * len(a)) if normalisation == "release" else total


def negative_log_likelihood(logits: Tensor, label: int, normalisation: Normalisation) -> Tensor:
    """Return -log p(label) of logits (N, 2), summed (paper) or averaged (release) over the batch."""
    log_p = logits.float().log_softmax(1)[:, label]
    return -log_p.mean() if normalisation == "release" else -log_p.sum()
