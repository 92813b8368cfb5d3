"""A running average of a network's weights, which is validated and exported in place of the last ones.

After update t the average is d times itself plus 1 - d times the weights, d = min(decay, (1 + t) / (10 + t)): what a
run begins with is soon forgotten. Generators of images are better with such an average than with their last weights
(Yazici et al. 2019, arXiv 1806.04498); the paper has none.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Average:
    """Keep the running average of a module's parameters. ``decay`` in 0-1 is what one update leaves of it."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._module, self._decay = module, decay
        self._values = {name: value.detach().clone() for name, value in module.named_parameters()}

    @torch.no_grad()
    def update(self, updates: int) -> None:
        """Take in the module's parameters after its update number ``updates``, counted from 1."""
        decay = min(self._decay, (1 + updates) / (10 + updates))
        for name, value in self._module.named_parameters():
            self._values[name].lerp_(value, 1 - decay)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the averaged parameters by name, and whatever else the module's state holds as it is."""
        return {**self._module.state_dict(), **self._values}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from the averaged parameters of :meth:`state_dict`. Raises RuntimeError for those of another module."""
        wanted = {name: tuple(value.shape) for name, value in self._values.items()}
        found = {name: tuple(value.shape) for name, value in state.items() if name in wanted}
        if found != wanted:
            name = next(name for name in wanted if found.get(name) != wanted[name])
            raise RuntimeError(f"{name}: {found.get(name, 'missing')}, expected {wanted[name]}")
        for name, value in self._values.items():
            value.copy_(state[name])

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Let the module have the averaged parameters for a while; its own come back unchanged."""
        own = {name: value.detach().clone() for name, value in self._module.named_parameters()}
        self._put(self._values)
        try:
            yield
        finally:
            self._put(own)

    @torch.no_grad()
    def _put(self, values: dict[str, Tensor]) -> None:
        for name, parameter in self._module.named_parameters():
            parameter.copy_(values[name])
