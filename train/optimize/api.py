"""The call: targets in, pictures and codes out."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from deepsim.kernels.layers import Shape
from deepsim.runtime.errors import UsageError
from deepsim.train.devices import device_of
from deepsim.train.optimize.bounds import parse_bounds
from deepsim.train.optimize.encoders import Encoder, open_encoder
from deepsim.train.optimize.evaluation import Evaluator, resolved
from deepsim.train.optimize.job import Job
from deepsim.train.optimize.loop import NoWatcher, Watcher, optimise_chunk
from deepsim.train.optimize.outcome import Outcome
from deepsim.train.optimize.pictures import GeneratorPictures, Pictures, PixelPictures
from deepsim.train.optimize.place import Place, Precision
from deepsim.train.optimize.presets import preset as preset_of
from deepsim.train.optimize.settings import Settings
from deepsim.train.optimize.targets import Targets, from_arrays
from deepsim.train.optimize.view import View

PIXELS = "pixels"  # in place of a generator
_ACTIVATIONS = 1 << 30  # bytes that the features of the rows at once may take, and their like
_MOST_AT_ONCE = 32


@dataclass(frozen=True)
class Networks:
    """A generator (or pixels) and an encoder, opened on a device and in a precision."""

    pictures: Pictures
    encoder: Encoder
    place: Place

    @classmethod
    def open(
        cls,
        generator: str | os.PathLike[str],
        encoder: str,
        taps: Sequence[str],
        weights: Path | None = None,
        device: str = "auto",
        pixels: str | None = None,
        seed: int = 0,
        precision: Precision = "fp32",
    ) -> Networks:
        """Open both; ``generator`` is a bundle or "pixels". Raises as :func:`open_encoder` and Bundle.open do."""
        where = Place(device_of(device, torch.cuda.is_available()), precision)
        network = open_encoder(os.fspath(encoder), taps, weights, where, pixels, seed)
        if os.fspath(generator) == PIXELS:
            return cls(PixelPictures(network.framing.side), network, where)
        return cls(GeneratorPictures.open(generator, where), network, where)

    def view(self, settings: Settings) -> View:
        """Return what the encoder sees of a picture; where training scored the same square, that one."""
        side = self.encoder.framing.side
        geometry = self.pictures.geometry
        offset = geometry.offset if geometry is not None and geometry.side == side else None
        return View.between(self.pictures.pixels, self.encoder.pixels, self.pictures.side, side, settings.fit, offset)


def optimize_features(
    generator: str | os.PathLike[str],
    targets: Mapping[str, NDArray[np.generic]],
    encoder: str,
    preset: str = "icnn-gd",
    *,
    names: Sequence[str] | None = None,
    encoder_weights: str | os.PathLike[str] | None = None,
    encoder_pixels: str | None = None,
    masks: Mapping[str, NDArray[np.generic]] | None = None,
    layer_factors: Mapping[str, float] | None = None,
    starts: int = 1,
    batch: int = 0,
    seed: int = 0,
    device: str = "auto",
    precision: Precision = "fp32",
    **changes: Any,
) -> Outcome:
    """Find codes of a generator whose pictures have the wanted features; all targets share the networks' passes.

    ``generator`` is a bundle, or "pixels" to optimise pixels themselves. ``targets`` has features (N, ...) by layer:
    "fc6" after the ReLU, "fc6:linear" before it. ``encoder`` is a bundle folder, a table by name with
    ``encoder_weights``, or the reference of a PyTorch module (without its layer). ``preset`` names a record of
    :data:`deepsim.train.optimize.PRESETS`, ``changes`` replace fields of it (``iterations=100``). ``masks`` (0
    or 1, one feature's shape) choose units, ``layer_factors`` multiply weights of layers. A target called by ``names``
    gets the same start and noise alone and in any batch. ``batch`` rows (targets times ``starts``) are under way at
    once; 0: as many as memory allows, at most 32.

    Raises UsageError, DataError and its kinds, DeviceError.

    >>> targets = {"norm2": inverter.encode("cat.jpg")}
    >>> found = optimize_features("norm2.deepsim", targets, "norm2.deepsim", preset="bdpy", iterations=2)
    >>> found.images.shape, found.losses.shape
    ((1, 227, 227, 3), (1,))
    """
    networks = Networks.open(
        generator,
        encoder,
        list(targets),
        None if encoder_weights is None else Path(encoder_weights),
        device,
        encoder_pixels,
        seed,
        precision,
    )
    wanted = from_arrays(targets, networks.encoder, names)
    settings = preset_of(preset, changes)
    job = make_job(networks, wanted, settings, masks, layer_factors, starts, batch, seed)
    return joined(list(outcomes(job)))


def make_job(
    networks: Networks,
    targets: Targets,
    settings: Settings,
    masks: Mapping[str, NDArray[np.generic]] | None = None,
    factors: Mapping[str, float] | None = None,
    starts: int = 1,
    batch: int = 0,
    seed: int = 0,
) -> Job:
    """Check that everything fits, and resolve what depends on the layers. Raises UsageError, ShapeError, DataError."""
    for name in (*(masks or {}), *(factors or {})):
        if name not in targets.taps:
            raise UsageError(f"layer {name!r}: no target has it, expected one of {', '.join(targets.taps)}.")
    found = resolved(settings, networks.pictures, networks.encoder, targets.taps)
    selected = {tap: _mask(values, networks.encoder.shape_of(tap), tap) for tap, values in (masks or {}).items()}
    evaluator = Evaluator(
        networks.pictures,
        networks.encoder,
        networks.view(found),
        found,
        targets.taps,
        {tap: networks.place.put(mask) for tap, mask in selected.items()},
        rows_at_once(networks.encoder, targets.taps),
    )
    batch = batch or rows_at_once(networks.encoder, targets.taps)
    bounds = parse_bounds(found.bounds, networks.pictures.shape, networks.place, networks.pictures.statistics)
    return Job(evaluator, targets, bounds, factors or {}, starts, batch, seed, networks.place)


def outcomes(job: Job, watcher: Watcher | None = None) -> Iterator[Outcome]:
    """Yield the results of each chunk of targets, in order."""
    for chunk in job.chunks:
        yield optimise_chunk(job, chunk, watcher or NoWatcher())


def joined(parts: Sequence[Outcome]) -> Outcome:
    """Put the results of several chunks together. Raises ValueError without any."""
    if not parts:
        raise ValueError("no results to join, expected at least one.")
    arrays = ("codes", "images", "full", "losses", "starts", "iterations", "ended")
    whole: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in arrays}
    return Outcome(
        names=tuple(name for part in parts for name in part.names),
        **whole,
        layer_losses={tap: np.concatenate([part.layer_losses[tap] for part in parts]) for tap in parts[0].layer_losses},
    )


def rows_at_once(encoder: Encoder, taps: Sequence[str]) -> int:
    """Return how many rows go through the networks together: what the taps' features and their like leave room for."""
    bytes_per_row = 8 * sum(math.prod(encoder.shape_of(tap)) for tap in taps)
    return min(_MOST_AT_ONCE, max(1, _ACTIVATIONS // bytes_per_row))


def _mask(values: NDArray[np.generic], shape: Shape, tap: str) -> torch.Tensor:
    array = np.asarray(values, np.float32)
    if array.shape == shape[:1] and len(shape) == 3:  # channels
        array = np.broadcast_to(array[:, None, None], shape)
    if array.shape != shape or not np.isin(array, (0, 1)).all() or not array.any():
        raise UsageError(f"mask of {tap}: shape {array.shape}, expected zeros and ones, not all 0, of shape {shape}.")
    return torch.from_numpy(np.ascontiguousarray(array))
