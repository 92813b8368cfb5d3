"""The loss of every row and its gradient at the variable: one pass forward and one backward for a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from deepsim.runtime.errors import UsageError
from deepsim.train.optimize import losses, priors
from deepsim.train.optimize.encoders import Encoder
from deepsim.train.optimize.losses import Mix
from deepsim.train.optimize.pictures import Pictures
from deepsim.train.optimize.presets import mv2015_tv, mv2016_fidelity
from deepsim.train.optimize.rules import by_mean_abs
from deepsim.train.optimize.settings import BY_LAYER, Settings
from deepsim.train.optimize.view import Shift, View


@dataclass(frozen=True)
class Wanted:
    """What a batch of rows is optimised towards: by tap, features (n, ...) and weights (n,)."""

    features: dict[str, Tensor]
    weights: dict[str, Tensor]

    def rows(self, chosen: slice | Tensor) -> Wanted:
        """Return some of the rows: a slice of them, or those of these numbers."""
        return Wanted(
            {tap: values[chosen] for tap, values in self.features.items()},
            {tap: values[chosen] for tap, values in self.weights.items()},
        )


@dataclass(frozen=True)
class Evaluated:
    """For each row: ``loss`` (n,), of which ``layers`` by tap, and ``gradient`` (n, ...) at the variable.

    ``again`` are the features of the prior's layer (n, ...), where a prior looks at them.
    """

    loss: Tensor
    layers: dict[str, Tensor]
    gradient: Tensor
    again: Tensor | None = None


@dataclass(frozen=True)
class Evaluator:
    """The networks and settings of an optimisation. At most ``at_once`` rows go through the networks together."""

    pictures: Pictures
    encoder: Encoder
    view: View
    settings: Settings
    taps: tuple[str, ...]
    masks: Mapping[str, Tensor] = field(default_factory=dict)
    at_once: int = 16

    @property
    def prior_tap(self) -> str | None:
        """Return the tap that ppgn's prior compares the codes with; None without it."""
        return self.pictures.layer if self.settings.prior else None

    def evaluate(self, variables: Tensor, wanted: Wanted, shifts: Sequence[Shift] = ()) -> Evaluated:
        """Return the losses of variables (n, ...) and their gradients; pictures are shifted where ``shifts`` say so."""
        found = []
        for first in range(0, len(variables), self.at_once):
            chosen = slice(first, first + self.at_once)
            found.append(self._part(variables[chosen], wanted.rows(chosen), shifts[chosen]))
        if len(found) == 1:
            return found[0]
        again = None if found[0].again is None else torch.cat([part.again for part in found if part.again is not None])
        layers = {tap: torch.cat([part.layers[tap] for part in found]) for tap in self.taps}
        loss, gradient = (torch.cat([getattr(part, name) for part in found]) for name in ("loss", "gradient"))
        return Evaluated(loss, layers, gradient, again)

    def _part(self, variables: Tensor, wanted: Wanted, shifts: Sequence[Shift]) -> Evaluated:
        drawn = self.pictures.run(variables)
        picture = drawn.output.detach().requires_grad_()
        with torch.enable_grad():
            seen = self.view(picture, shifts)
        taps = self.taps if self.prior_tap is None else (*self.taps, self.prior_tap)
        found = self.encoder.run(seen.detach(), taps)
        again = None if self.prior_tap is None else found.values[self.prior_tap].clone()
        layers: dict[str, Tensor] = {}

        def add(tap: str, features: Tensor, incoming: Tensor | None) -> Tensor | None:
            if tap not in wanted.features:  # the prior's alone
                return incoming
            weight = wanted.weights[tap] * self.settings.fidelity
            layers[tap], gradient = losses.add_loss(
                self.settings.loss, features, wanted.features[tap], weight, incoming, self.masks.get(tap), self._mix
            )
            return gradient

        (gradient,) = torch.autograd.grad(seen, picture, found.backward(add))
        with torch.no_grad():
            loss = torch.stack([layers[tap] for tap in self.taps]).sum(0)
            if self.settings.normalise == "twice":
                gradient = by_mean_abs(gradient)
            prior, slope = self._priors(variables)
            gradient = drawn.backward(gradient)
            gradient = gradient.add_(slope) if slope is not None else gradient
            return Evaluated(loss if prior is None else loss + prior, layers, gradient, again)

    def _priors(self, pixels: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Return the priors of pixels and their gradient; None where there are none."""
        value: Tensor | None = None
        slope: Tensor | None = None
        for weight, found in (
            (self.settings.tv, priors.total_variation),
            (self.settings.power, lambda x: priors.sixth_power(x, self.settings.power_of_colors)),
        ):
            if weight:
                values, gradient = found(pixels)
                factor = weight / pixels[0, 0].numel() if self.settings.per_pixel else weight
                value = factor * values if value is None else value + factor * values
                slope = factor * gradient if slope is None else slope.add_(gradient, alpha=factor)
        return value, slope

    @property
    def _mix(self) -> Mix:
        return Mix(self.settings.dists, self.settings.relative)


def resolved(settings: Settings, pictures: Pictures, encoder: Encoder, taps: Sequence[str]) -> Settings:
    """Return settings in which what depends on the layer has its value, of the last of ``taps``; check that all fit.

    Raises UsageError for priors of pixels on codes, and for a loss or prior that the layers do not have.
    """
    if pictures.layer is not None:
        for name in ("tv", "power", "color_norm", "blur", "blur_end"):
            if getattr(settings, name):
                raise UsageError(f"{name}: {getattr(settings, name):g}, a prior of pixels, but codes are optimised.")
    elif settings.prior:
        raise UsageError(f"prior: {settings.prior:g}, a prior of codes, but pixels are optimised.")
    for tap in taps:
        rank = len(encoder.shape_of(tap))
        if (rank == 1 and settings.loss in losses.ON_MAPS) or (rank == 3 and settings.loss in losses.ON_VECTORS):
            kind = "a vector" if rank == 1 else "a map"
            raise UsageError(f"loss {settings.loss}: layer {tap} is {kind}, expected the other.")
    if settings.prior and pictures.layer is not None and encoder.shape_of(pictures.layer) != pictures.shape:
        raise UsageError(f"prior: {encoder.name} {pictures.layer} has another shape than the codes, expected the same.")
    changes: dict[str, object] = {}
    if settings.tv == BY_LAYER:
        changes["tv"] = mv2015_tv(taps[-1])
    if settings.fidelity == BY_LAYER:
        changes["fidelity"] = mv2016_fidelity(taps[-1])
    if settings.jitter == BY_LAYER:
        changes["jitter"] = max(1, round(encoder.stride_of(taps[-1]) / 4))
    return settings.updated(changes)
