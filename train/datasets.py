"""Datasets of images: numbered collections that training and validation read from, by index."""

from __future__ import annotations

import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Sequence

import numpy as np
from tqdm import tqdm

from deepsim.runtime.errors import DataError
from deepsim.runtime.images import find_images, image_size, read_image
from deepsim.runtime.pixels import Pixels
from deepsim.train.dead_leaves import dead_leaves

logger = logging.getLogger("deepsim")

SCAN_LIMIT = 100_000  # datasets above this size are not scanned up front; their bad files are counted as they are met
BAD_FRACTION = 0.01
CACHE_BYTES = 256 << 20  # decoded images that a dataset keeps in memory, per process


class Dataset(ABC):
    """A numbered collection of images; ``bad`` holds what turned out unreadable: index -> reason."""

    def __init__(self) -> None:
        self.bad: dict[int, str] = {}
        self._cache: dict[int, Pixels] = {}
        self._room = CACHE_BYTES

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of images."""

    @abstractmethod
    def name(self, index: int) -> str:
        """Return what messages call the image: its path, where it has one."""

    @abstractmethod
    def load(self, index: int) -> Pixels:
        """Decode or draw the whole image, uint8 RGB (H, W, 3). Raises DataError when its file is unusable."""

    @property
    @abstractmethod
    def description(self) -> str:
        """Say in a few words what the images are, for people."""

    def check_header(self, index: int) -> None:
        """Raise DataError when the image's file cannot even be opened, at no more cost than opening it."""
        self.name(index)  # what is drawn has no file

    def locate(self, index: int) -> tuple[Dataset, int]:
        """Return the dataset that holds the image itself, and its index there."""
        return self, index

    def photo(self, index: int) -> Pixels:
        """Return the whole image, uint8 RGB (H, W, 3), from memory while ``CACHE_BYTES`` last. Raises DataError."""
        if index in self._cache:
            return self._cache[index]
        image = self.load(index)
        image.setflags(write=False)
        if image.nbytes <= self._room:
            self._room -= image.nbytes
            self._cache[index] = image
        return image

    def skip(self, index: int, reason: str) -> None:
        """Note an image as unreadable, with one warning line the first time.

        Raises DataError naming the first few once more than 1 % of the dataset and more than one image, or all, are.
        """
        if index not in self.bad:
            self.bad[index] = reason
            logger.warning("skipped %s", reason)
        if len(self.bad) > max(1, BAD_FRACTION * len(self)) or len(self.bad) == len(self):
            names = ", ".join(self.name(bad) for bad in sorted(self.bad)[:3])
            raise DataError(
                f"{names}{', ...' if len(self.bad) > 3 else ''}: {len(self.bad)} of {len(self)} images unreadable, "
                f"expected at most 1 % or one. Replace or remove these files."
            )


class FolderDataset(Dataset):
    """All image files of folder trees (see :func:`deepsim.runtime.images.find_images`)."""

    def __init__(self, paths: Iterable[str | os.PathLike[str]]) -> None:
        super().__init__()
        self.paths = [str(path) for path in find_images(paths)]

    @classmethod
    def of(cls, paths: Iterable[str]) -> FolderDataset:
        """Build the dataset of these very files, without looking for them."""
        dataset = cls.__new__(cls)
        Dataset.__init__(dataset)
        dataset.paths = list(paths)
        return dataset

    def without(self, indices: Collection[int]) -> FolderDataset:
        """Return a dataset of the files at all other indices."""
        return FolderDataset.of(path for index, path in enumerate(self.paths) if index not in indices)

    def readable(self, index: int) -> bool:
        """Tell whether a file decodes."""
        try:
            self.load(index)
        except DataError:
            return False
        return True

    def __len__(self) -> int:
        """Return the number of files."""
        return len(self.paths)

    @property
    def description(self) -> str:
        """Count the photographs."""
        return f"{len(self):,} photographs"

    def name(self, index: int) -> str:
        """Return the file's path."""
        return self.paths[index]

    def load(self, index: int) -> Pixels:
        """Decode the file. Raises DataError."""
        return read_image(self.paths[index])

    def check_header(self, index: int) -> None:
        """Open the file and read its header. Raises DataError."""
        image_size(self.paths[index])


class DeadLeavesDataset(Dataset):
    """``count`` procedural images (see :mod:`deepsim.train.dead_leaves`), the same ones for the same ``seed``."""

    def __init__(self, count: int, seed: int) -> None:
        super().__init__()
        self.count, self.seed = count, seed

    def __len__(self) -> int:
        """Return the number of images."""
        return self.count

    @property
    def description(self) -> str:
        """Count the images."""
        return f"{len(self):,} procedural images (dead leaves)"

    def name(self, index: int) -> str:
        """Return the image's number and seed."""
        return f"dead leaves {index} (seed {self.seed})"

    def load(self, index: int) -> Pixels:
        """Draw the image, (256, 256, 3)."""
        return dead_leaves(self.seed, index)


class MixedDataset(Dataset):
    """Several datasets in one, each repeated: ``MixedDataset([(photographs, 50), (leaves, 1)])``.

    An epoch shows every image of a part as often as the part is repeated. The 1 % rule counts each part by itself.
    """

    def __init__(self, parts: Sequence[tuple[Dataset, int]]) -> None:
        super().__init__()
        self.parts = [dataset for dataset, _ in parts]
        self.ends = np.cumsum([len(dataset) * repeats for dataset, repeats in parts]).tolist()

    def __len__(self) -> int:
        """Return the number of images, repeats included."""
        return int(self.ends[-1])

    def locate(self, index: int) -> tuple[Dataset, int]:
        """Return the part that holds the image, and its index there."""
        which = int(np.searchsorted(self.ends, index, side="right"))
        start = self.ends[which - 1] if which else 0
        part = self.parts[which]
        return part.locate((index - start) % len(part))

    @property
    def description(self) -> str:
        """Join the descriptions of the parts."""
        return " and ".join(part.description for part in self.parts)

    def name(self, index: int) -> str:
        """Return what the image's own dataset calls it."""
        part, inner = self.locate(index)
        return part.name(inner)

    def load(self, index: int) -> Pixels:
        """Return the image from its own dataset. Raises DataError."""
        part, inner = self.locate(index)
        return part.photo(inner)

    def photo(self, index: int) -> Pixels:
        """Return the image from its own dataset, which keeps it in memory. Raises DataError."""
        return self.load(index)


def scan(dataset: Dataset) -> list[str]:
    """Open every file's header and return the names of the unusable ones, each also a warning line.

    Datasets of more than ``SCAN_LIMIT`` images are not scanned. Raises DataError when more than 1 % (and more than one)
    are unusable; damage behind the header is counted against the same limit when training meets it.
    """
    parts = dataset.parts if isinstance(dataset, MixedDataset) else [dataset]
    for part in parts:
        if isinstance(part, MixedDataset):
            scan(part)
        elif len(part) <= SCAN_LIMIT:
            for index in tqdm(range(len(part)), "checking images", unit="file", disable=None, leave=False, delay=2):
                _check_header(part, index)
    return [part.name(index) for part in parts for index in sorted(part.bad)]


def _check_header(part: Dataset, index: int) -> None:
    try:
        part.check_header(index)
    except DataError as error:
        part.skip(index, str(error))
