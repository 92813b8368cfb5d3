"""The objective of Dosovitskiy & Brox 2016, equations 1-5, in the paper's and the release's normalisation.

============  ========================================  ==========================================
loss          paper (sums over the batch)               release (Caffe layers)
============  ========================================  ==========================================
feature (2)   sum |C(G(x)) - C(y)|^2                    the same / (2 N)
D (3)         -sum log D(y) + log(1 - D(G(x)))          100 (mean of -log D(y) + mean of -log(1 - D(G(x))))
adversarial   -sum log D(G(x))  (4)                     the same / N
image (5)     sum |G(x) - y|^2                          the same / (2 N)
============  ========================================  ==========================================

The published coefficients (0.01, 100, 2e-6) belong to the release's normalisation. All losses are computed in fp32.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from deepsim.train.config import Normalisation
from deepsim.train.discriminator import FAKE, REAL

RELEASE_DISCRIMINATOR_WEIGHT = 100.0


def squared_error(a: Tensor, b: Tensor, normalisation: Normalisation) -> Tensor:
    """Return the summed squared difference of two batches (N, ...), over 2 N in the release's normalisation."""
    total = (a.float() - b.float()).square().sum()
    return total / (2 * len(a)) if normalisation == "release" else total


def feature_loss(fake: Tensor, real: Tensor, normalisation: Normalisation = "release") -> Tensor:
    """Compare comparator features of generated and real images, (N, ...) each (Eq. 2)."""
    return squared_error(fake, real, normalisation)


def image_loss(fake: Tensor, real: Tensor, normalisation: Normalisation = "release") -> Tensor:
    """Compare generated and real images (N, 3, H, W) in 0-255 units (Eq. 5)."""
    return squared_error(fake, real, normalisation)


def negative_log_likelihood(logits: Tensor, label: int, normalisation: Normalisation) -> Tensor:
    """Return -log p(label) of logits (N, 2), summed (paper) or averaged (release) over the batch."""
    log_p = functional.log_softmax(logits.float(), 1)[:, label]
    return -log_p.mean() if normalisation == "release" else -log_p.sum()


def real_loss(logits: Tensor, normalisation: Normalisation = "release") -> Tensor:
    """Return the discriminator's loss on real images: -log D(y) (first term of Eq. 3)."""
    return negative_log_likelihood(logits, REAL, normalisation)


def fake_loss(logits: Tensor, normalisation: Normalisation = "release") -> Tensor:
    """Return the discriminator's loss on generated images: -log(1 - D(G(x))) (second term of Eq. 3)."""
    return negative_log_likelihood(logits, FAKE, normalisation)


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor, normalisation: Normalisation = "release") -> Tensor:
    """Return what the discriminator minimises (Eq. 3); the release scales it by 100."""
    loss = real_loss(real_logits, normalisation) + fake_loss(fake_logits, normalisation)
    return RELEASE_DISCRIMINATOR_WEIGHT * loss if normalisation == "release" else loss


def adversarial_loss(fake_logits: Tensor, normalisation: Normalisation = "release") -> Tensor:
    """Return what the generator minimises to fool the discriminator: -log D(G(x)) (Eq. 4)."""
    return negative_log_likelihood(fake_logits, REAL, normalisation)
