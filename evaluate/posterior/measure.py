"""Codes over photographs: the divergence of each unit from the prior, collapsed units, errors of reconstructions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepsim.evaluate.posterior.networks import Autoencoder
from deepsim.runtime.metrics import rmse
from deepsim.runtime.pixels import Pixels
from deepsim.runtime.prior import draw_codes
from deepsim.train.latent import COLLAPSED, Posterior, collapsed

SHOWN = 8  # photographs in the picture
_APART = 1 << 40  # numbers of noise, so that no draw for a photograph is one of the prior's samples


@dataclass
class Figures:
    """What is known of the codes so far: sums over ``count`` photographs, and the pictures of the first of them.

    ``divergence`` is in nats for each unit; ``mean_error`` and ``drawn_error`` are RMSEs in grey levels, of images of
    mean codes and of drawn ones. ``rows`` are the rows of the picture, by name.
    """

    units: int
    count: int = 0
    divergence: NDArray[np.float64] = field(init=False)
    mean_error: float = 0.0
    drawn_error: float = 0.0
    rows: dict[str, list[Pixels]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.divergence = np.zeros(self.units)

    @property
    def per_unit(self) -> NDArray[np.float64]:
        """Return the divergence of each unit in nats, averaged over the photographs: float64 (units,)."""
        return self.divergence / self.count

    def to_json(self) -> dict[str, Any]:
        """Return the figures as plain JSON values."""
        found = self.per_unit
        return {
            "photographs": self.count,
            "units": self.units,
            "kl": {"unit": "nats", "total": float(found.sum()), "per_unit": found.tolist()},
            "collapsed": {"count": collapsed(torch.from_numpy(found)), "below": COLLAPSED},
            "rmse": {
                "unit": "grey levels",
                "mean code": self.mean_error / self.count,
                "drawn code": self.drawn_error / self.count,
            },
        }


def measure(networks: Autoencoder, batches: Iterable[Pixels], draws: int, seed: int = 0) -> Iterator[Figures]:
    """Measure uint8 RGB photographs (n, side, side, 3) batch by batch; yield the same figures after each.

    ``draws``, at least 1, is how many codes of each photograph are drawn for the picture; the first is measured. The
    noise of a photograph depends on its place and ``seed`` alone.
    """
    figures = Figures(networks.units)
    for photos in batches:
        _add(figures, networks, photos, draws, seed)
        yield figures


def _add(figures: Figures, networks: Autoencoder, photos: Pixels, draws: int, seed: int) -> None:
    found = networks.encode(photos)
    shown = max(0, min(len(photos), SHOWN - figures.count))
    mean, drawn = networks.decode(found.mean), networks.decode(_drawn(found, figures, 0, seed))
    figures.divergence += found.divergence().double().sum(0).cpu().numpy()
    figures.mean_error += float(rmse(mean, photos).sum())
    figures.drawn_error += float(rmse(drawn, photos).sum())
    rows = {"photograph": photos, "mean code": mean, "drawn code": drawn}
    for draw in range(1, draws if shown else 1):
        part = Posterior(found.mean[:shown], found.log_variance[:shown])
        rows[f"drawn code {draw + 1}"] = networks.decode(_drawn(part, figures, draw, seed))
    for name, images in rows.items():
        figures.rows.setdefault(name, []).extend(images[:shown])
    figures.count += len(photos)


def _drawn(found: Posterior, figures: Figures, draw: int, seed: int) -> Tensor:
    first = _APART * (draw + 1) + figures.count
    noise = draw_codes((figures.units,), range(first, first + len(found.mean)), seed)
    return found.at(torch.from_numpy(noise).to(found.mean.device))


def sampled(networks: Autoencoder, count: int, seed: int = 0) -> Pixels:
    """Generate images (count, side, side, 3) of codes drawn from the prior, those of ``deepsim sample --seed``."""
    return networks.decode(torch.from_numpy(draw_codes((networks.units,), range(count), seed)))
