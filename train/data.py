"""Training and validation images: datasets of photographs, and batches that are a pure function of their position.

A photograph is resized as the encoder's framing says (the paper's rule, section 4: warped to 256x256); training takes
a random square of it (227x227), validation the central one. Which image, square and mirror a batch holds depends on
(seed, step, rank, world size) alone, so a resumed run continues with the very bytes that an uninterrupted one would
have seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from deepsim.runtime.errors import DataError, UsageError, missing_extra
from deepsim.runtime.geometry import Framing
from deepsim.runtime.images import central, resize
from deepsim.runtime.pixels import Pixels
from deepsim.train.datasets import Dataset, DeadLeavesDataset, FolderDataset, MixedDataset, scan
from deepsim.train.workers import Sample, Skipped, make_batches

try:
    import torch
    from torch import Tensor
except ModuleNotFoundError as error:
    raise missing_extra("torch", "train") from error

__all__ = [
    "Dataset",
    "DeadLeavesDataset",
    "FolderDataset",
    "MixedDataset",
    "batches",
    "mean_image",
    "random_region",
    "scan",
    "validation_batch",
]

_ORDER, _CROP = 1, 2  # name the two families of random generators, so that no two share a seed


def batches(
    dataset: Dataset,
    framing: Framing,
    batch: int,
    seed: int,
    start_step: int,
    mirror: bool,
    zoom: float,
    rank: int = 0,
    world_size: int = 1,
    workers: int = 0,
) -> Iterator[Tensor]:
    """Yield uint8 RGB batches (batch, side, side, 3) for step ``start_step``, ``start_step + 1``, ... without end.

    Step s takes the samples ``s * batch * world_size`` onwards of an endless sequence of epochs, each a permutation of
    the dataset by (seed, epoch); rank r takes the r-th ``batch`` of them. Crop, mirror and zoom of a sample come from
    (seed, epoch, index), so neither ``workers`` (processes) nor ``start_step`` changes a byte of any step.

    With ``mirror`` half of the samples are flipped left to right. ``zoom`` in 0-1 is the share of samples for which,
    before it is resized, a random region of the photograph is taken (see :func:`random_region`); 0 is the paper's rule.
    Unreadable files are skipped by name and replaced by the next readable one of the same dataset.
    Raises UsageError for figures out of range; DataError when over 1 % of a dataset (and over one file) is unreadable;
    DeviceError when a worker cannot be started or dies.
    """
    plan = _Plan(dataset, framing, seed, mirror, zoom)
    _check_plan(plan, batch, start_step, rank, world_size)
    return _load(plan, _Positions(len(dataset), batch, seed, start_step, rank, world_size), workers)


def validation_batch(dataset: Dataset, count: int, framing: Framing) -> Tensor:
    """Return the central crops of the first ``count`` readable images: uint8 RGB (count, side, side, 3).

    Raises DataError when the dataset has fewer, or when too many are unreadable.
    """
    images: list[Pixels] = []
    for index in range(len(dataset)):
        if len(images) == count:
            break
        images += _central(dataset, index, framing)
    if len(images) < count:
        raise DataError(f"validation images: {len(images)} readable, expected {count}. Add images or ask for fewer.")
    return torch.from_numpy(np.stack(images) if images else np.empty((0, framing.side, framing.side, 3), np.uint8))


def mean_image(dataset: Dataset, framing: Framing, limit: int = 1000) -> NDArray[np.float32]:
    """Average the central crops of up to ``limit`` images, evenly spread: float32 RGB (side, side, 3), 0-255.

    Raises DataError when none is readable, or too many are not.
    """
    count = min(limit, len(dataset))
    total, met = np.zeros((framing.side, framing.side, 3), np.float64), 0
    for number in tqdm(range(count), "mean image", unit="image", disable=None, leave=False, delay=2):
        for image in _central(dataset, number * len(dataset) // count, framing):
            total += image
            met += 1
    if met == 0:
        raise DataError("mean image: no readable image, expected at least one.")
    return (total / met).astype(np.float32)


def random_region(photo: Pixels, rng: np.random.Generator, size: int) -> Pixels:
    """Cut a random rectangle of 0.25 to 1 of the photograph's area, its sides' ratio 3:4 to 4:3, as a view.

    A small photograph gives larger parts, so that no region has fewer pixels than the ``size`` x ``size`` that it is
    resized to (where the photograph itself has as many): zooming never adds blur. An image of that size stays as it is.
    """
    height, width = photo.shape[:2]
    smallest = min(1.0, max(0.25, size**2 / (height * width)))
    area = rng.uniform(smallest, 1) * height * width
    ratio = float(np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3))))
    if smallest == 1.0:
        return photo
    rows = min(height, round((area / ratio) ** 0.5))
    columns = min(width, round((area * ratio) ** 0.5))
    top, left = int(rng.integers(height - rows + 1)), int(rng.integers(width - columns + 1))
    return photo[top : top + rows, left : left + columns]


@dataclass(frozen=True)
class _Plan:
    """Makes the training crop of one (epoch, index)."""

    dataset: Dataset
    framing: Framing
    seed: int
    mirror: bool
    zoom: float

    def fill(self, samples: Sequence[Sample], pixels: Pixels, begin: Callable[[int], None]) -> Skipped:
        """Make the crops of a batch in ``pixels`` (B, side, side, 3); return what was unreadable on the way.

        That is (index of the sample, index in its part, reason). ``begin`` is told of each image before it is read.
        """
        skipped: Skipped = []
        for crop, (epoch, image) in zip(pixels, samples, strict=True):
            begin(image)
            skipped += self._make(epoch, image, crop)
        return skipped

    def _make(self, epoch: int, image: int, crop: Pixels) -> Skipped:
        rng = np.random.default_rng([_CROP, self.seed, epoch, image])
        zoomed, flipped = rng.uniform() < self.zoom, rng.uniform() < 0.5
        framing, side = self.framing, self.framing.side
        top, left = (int(offset) for offset in rng.integers(framing.size - side + 1, size=2))
        photo, skipped = _readable(self.dataset, image)
        resized = resize(random_region(photo, rng, framing.size) if zoomed else photo, framing)
        if framing.resize == "shorter":  # the longer side leaves more room
            top, left = (int(rng.integers(extent - side + 1)) for extent in resized.shape[:2])
        pixels = resized[top : top + side, left : left + side]
        crop[:] = pixels[:, ::-1] if self.mirror and flipped else pixels
        return skipped


@dataclass(frozen=True)
class _Positions:
    """Lists the (epoch, index) of every step's samples, without end."""

    length: int
    batch: int
    seed: int
    start_step: int
    rank: int
    world_size: int

    def batches(self) -> Iterator[list[Sample]]:
        order = lru_cache(maxsize=2)(self._order)  # a batch may straddle two epochs
        first = (self.start_step * self.world_size + self.rank) * self.batch
        while True:
            places = [divmod(place, self.length) for place in range(first, first + self.batch)]
            yield [(epoch, int(order(epoch)[place])) for epoch, place in places]
            first += self.batch * self.world_size

    def _order(self, epoch: int) -> NDArray[np.int64]:
        return np.random.default_rng([_ORDER, self.seed, epoch]).permutation(self.length)


def _load(plan: _Plan, positions: _Positions, workers: int) -> Iterator[Tensor]:
    shape = (positions.batch, plan.framing.side, plan.framing.side, 3)
    for pixels, skipped in make_batches(plan.fill, positions.batches(), shape, workers, plan.dataset.name):
        for index, inner, reason in skipped:
            plan.dataset.locate(index)[0].skip(inner, reason)
        yield torch.from_numpy(pixels)


def _readable(dataset: Dataset, index: int) -> tuple[Pixels, Skipped]:
    """Read an image, or the next readable one of its part; also return what was skipped.

    With nothing readable, what is returned as skipped makes :meth:`Dataset.skip` raise (outside of a worker process).
    """
    part, first = dataset.locate(index)
    skipped: Skipped = []
    for offset in range(len(part)):
        inner = (first + offset) % len(part)
        if inner in part.bad:
            continue
        try:
            return part.photo(inner), skipped
        except DataError as error:
            skipped.append((index, inner, str(error)))
    skipped.append((index, first, part.bad.get(first, "no readable image")))
    return np.zeros((1, 1, 3), np.uint8), skipped


def _central(dataset: Dataset, index: int, framing: Framing) -> list[Pixels]:
    """Return the central crop of an image, or nothing when it is unreadable."""
    part, inner = dataset.locate(index)
    try:
        return [] if inner in part.bad else [central(resize(part.photo(inner), framing), framing)]
    except DataError as error:
        part.skip(inner, str(error))
        return []


def _check_plan(plan: _Plan, batch: int, start_step: int, rank: int, world_size: int) -> None:
    if not 0 <= plan.zoom <= 1:
        raise UsageError(f"zoom: {plan.zoom}, expected 0 to 1. Choose the share of zoomed samples.")
    if batch < 1 or start_step < 0 or plan.seed < 0 or not 0 <= rank < world_size:
        figures = f"batch {batch}, start step {start_step}, seed {plan.seed}, rank {rank} of {world_size}"
        raise UsageError(f"{figures}: out of range, expected batch >= 1, the rest >= 0, rank < world. Correct these.")
    if len(plan.dataset) == 0:
        raise DataError("training images: none, expected at least one.")
