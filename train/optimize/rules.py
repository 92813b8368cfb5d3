"""The update rule: from a gradient to the next variable, every row (target and start) on its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from deepsim.train.optimize.priors import blur, project_colors
from deepsim.train.optimize.randomness import Stream
from deepsim.train.optimize.settings import Settings

Bounds = tuple[Tensor | None, Tensor | None]


class Rule:
    """The state of an update rule for a batch of variables, and one step of it (see :class:`Settings`).

    ``state`` holds all that a resumed run needs, tensors like the variable. ``scale`` multiplies the step size.
    """

    def __init__(self, settings: Settings, bounds: Bounds, scale: float = 1.0) -> None:
        self.settings, self.bounds, self.scale = settings, bounds, scale
        self.state: dict[str, Tensor] = {}

    def begin(self, variable: Tensor) -> None:
        """Set the state to zeros of the variable's shape."""
        names = {"momentum": ("velocity",), "rms": ("velocity", "squares"), "adamw": ("first", "second"), "lbfgs": ()}
        self.state = {name: torch.zeros_like(variable) for name in names[self.settings.optimizer]}

    def advance(self, variable: Tensor, gradient: Tensor, iteration: int) -> Tensor:
        """Return the variable after the update of an iteration, from 0 on; ``gradient`` is overwritten."""
        settings = self.settings
        if settings.normalise != "none":
            gradient = by_mean_abs(gradient)
        moved = self._step(variable, gradient, iteration)
        decay = settings.at("decay", iteration)
        if decay:
            moved = moved * (1 - decay)
        moved = self.clip(moved)
        if settings.color_norm:
            moved = project_colors(moved, settings.color_norm)
        sigma = settings.at("blur", iteration)
        return blur(moved, sigma) if sigma else moved

    def clip(self, variable: Tensor) -> Tensor:
        """Return the variable within its bounds."""
        lower, upper = self.bounds
        return variable if lower is None and upper is None else variable.clamp(lower, upper)

    def _step(self, variable: Tensor, gradient: Tensor, iteration: int) -> Tensor:
        settings, rate = self.settings, self.settings.at("step", iteration) * self.scale
        if settings.optimizer == "adamw":
            return self._adamw(variable, gradient, iteration, rate)
        momentum, velocity = settings.at("momentum", iteration), self.state["velocity"]
        if settings.reset_momentum and iteration in settings.drops:
            velocity.zero_()
        if settings.optimizer == "momentum":
            velocity.mul_(momentum).add_(gradient)
            return variable - rate * velocity
        squares = self.state["squares"]
        squares.mul_(settings.forget).addcmul_(gradient, gradient)
        velocity.mul_(momentum).add_(gradient / (1 / rate + squares.sqrt()))
        return variable - velocity

    def _adamw(self, variable: Tensor, gradient: Tensor, iteration: int, rate: float) -> Tensor:
        """Loshchilov & Hutter 2019, algorithm 2, as torch.optim.AdamW computes it."""
        settings, first, second = self.settings, self.state["first"], self.state["second"]
        first.lerp_(gradient, 1 - settings.beta1)
        second.mul_(settings.beta2).addcmul_(gradient, gradient, value=1 - settings.beta2)
        unbiased = first / (1 - settings.beta1 ** (iteration + 1))
        root = (second / (1 - settings.beta2 ** (iteration + 1))).sqrt()
        return variable * (1 - rate * settings.weight_decay) - rate * unbiased / (root + settings.epsilon)


def by_mean_abs(gradient: Tensor) -> Tensor:
    """Divide each row of a gradient (n, ...) by its mean absolute value; a row of zeros stays as it is."""
    mean = gradient.abs().mean(tuple(range(1, gradient.ndim)), keepdim=True)
    return gradient / torch.where(mean > 0, mean, torch.ones_like(mean))


def ppgn_direction(
    settings: Settings, variable: Tensor, gradient: Tensor, again: Tensor, streams: Sequence[Stream], iteration: int
) -> Tensor:
    """Return minus ppgn's direction: e1 (E(G(h)) - h) + e2 dlog p/dh + N(0, e3), with ``again`` = E(G(h))."""
    direction = settings.prior * (again - variable) - settings.condition * gradient
    if settings.noise:
        drawn = torch.stack([stream.noise(iteration, variable.shape[1:]) for stream in streams])
        direction = direction + settings.noise * drawn.to(variable)
    return -direction
