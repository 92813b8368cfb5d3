"""The codes of a variational autoencoder: an encoder with two heads, draws of its codes, and what these tell.

Dosovitskiy & Brox 2016, section 4.2: the encoder gives a mean mu and a variance sigma^2 for each unit of the code, the
generator decodes z = mu + sigma * eps with eps ~ N(0, I), and Eq. 8 pulls the codes towards the prior N(0, I). The
second head gives log sigma^2, so that any number is a variance; the paper does not say which form its head has.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from deepsim.kernels.layers import Layer
from deepsim.runtime.networks import EncoderSpec
from deepsim.runtime.pixels import Pixels
from deepsim.train.networks import Encoder, LayerWeights, to_image_space

COLLAPSED = 0.01
"""Nats: a unit whose divergence from the prior, averaged over photographs, is less tells nothing (our threshold)."""

LOG_VARIANCE = "log_variance"  # the second head's name in a checkpoint's encoder.safetensors


@dataclass(frozen=True)
class Posterior:
    """The normal distributions of a batch's codes, of independent units: ``mean`` and ``log_variance``, (N, units)."""

    mean: Tensor
    log_variance: Tensor

    @classmethod
    def of(cls, heads: Tensor) -> Posterior:
        """Return what an encoder's output (N, 2 * units) says: means, then logarithms of variances; fp32."""
        return cls(*heads.float().chunk(2, 1))

    def draw(self) -> Tensor:
        """Draw a code for each image, float32 (N, units): mu + sigma * eps, with a gradient to both.

        eps comes from PyTorch's generator, which training seeds by seed, step and rank before each step: a resumed run
        draws the same.
        """
        return self.at(torch.randn_like(self.mean))

    def at(self, noise: Tensor) -> Tensor:
        """Return the codes mu + sigma * noise, float32 (N, units)."""
        return self.mean + (self.log_variance / 2).exp() * noise

    def divergence(self) -> Tensor:
        """Return the Kullback-Leibler divergence of each unit from N(0, 1) in nats, float32 (N, units).

        Half of mu^2 + sigma^2 - log sigma^2 - 1. Eq. 8 leaves the constant -1 out; with it, the prior itself has 0.

        >>> zero = torch.zeros(1, 2)
        >>> Posterior(torch.tensor([[0.0, 2.0]]), zero).divergence()
        tensor([[0., 2.]])
        """
        return (self.mean.square() + self.log_variance.exp() - self.log_variance - 1) / 2


class VariationalEncoder(Encoder):
    """An encoder with a second head beside its last layer: (N, 3, side, side) -> (N, 2 * units), for a posterior.

    :meth:`features` still returns the code's mean as the last layer, which is what evaluation and export use. The
    second head begins with weights of 0: sigma is 1 then, the prior's (our choice).
    """

    def __init__(self, spec: EncoderSpec, layer: str) -> None:
        super().__init__(spec, layer)
        self.spread = spread_of(self.layers[-1])
        self.heads = (self.spread,)
        self.add_module(LOG_VARIANCE, LayerWeights(self.spread).requires_grad_(False))

    @classmethod
    def beginning_as(cls, encoder: Encoder) -> VariationalEncoder:
        """Return an encoder with the weights of another, whose last layer becomes the head of means."""
        made = cls(encoder.spec, encoder.layer)
        made.load_state_dict({**made.state_dict(), **encoder.state_dict()})
        return made

    def forward(self, images: Tensor) -> Tensor:
        """Return means and logarithms of variances of the images' codes, one behind the other."""
        x = self.convert(images)
        for layer in self.layers[:-1]:
            x = self.run_layer(layer, x)
        return torch.cat((self.run_layer(self.layers[-1], x), self.run_layer(self.spread, x)), 1)


def spread_of(mean: Layer) -> Layer:
    """Return the second head's layer beside the head of means: as many linear units."""
    return Layer(LOG_VARIANCE, "fc", mean.inputs, mean.outputs)


def collapsed(divergences: Tensor) -> int:
    """Count the units that tell nothing, of divergences (units,) that are averaged over photographs."""
    return int((divergences < COLLAPSED).sum())


@torch.no_grad()
def code_figures(encoder: nn.Module, photos: Pixels) -> dict[str, float]:
    """Measure the codes of uint8 RGB photographs (N, side, side, 3), for the log; {} where no codes are drawn.

    "validation_kl" is the divergence from the prior in nats for each image, all units together; "collapsed_units" is
    how many of them tell nothing.
    """
    if not isinstance(encoder, VariationalEncoder):
        return {}
    images = to_image_space(torch.from_numpy(photos).to(next(encoder.parameters()).device))
    divergences = Posterior.of(encoder(images)).divergence().mean(0)
    return {"validation_kl": float(divergences.sum()), "collapsed_units": collapsed(divergences)}
