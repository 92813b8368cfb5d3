"""The photographs themselves, read once: their pixels, what is measured of them alone, and their features in spaces."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from deepsim.evaluate.measure.pictures import OWN, own_measures
from deepsim.evaluate.measure.spaces import Network, Space
from deepsim.evaluate.measure.store import RowStore, StoredRows
from deepsim.evaluate.metrics.sharpness import luma
from deepsim.runtime.cli.bulk import Bulk
from deepsim.runtime.dataset import Photographs, compute_ahead, read_batches, version_of
from deepsim.runtime.files import sha256
from deepsim.runtime.geometry import Framing
from deepsim.runtime.pixels import Pixels

_PIXELS, _MEASURES = "pixels.u8", "measures.f64"


def identity_of(photographs: Photographs) -> str:
    """Tell these photographs, by path, size and time of change, from others and from the same ones after a change."""
    lines = (f"{photograph.name}\0{version_of(photograph)}\n" for photograph in photographs)
    return sha256("".join(lines).encode("utf-8", "surrogatepass"))


def originals_identity(photographs: str, framing: Framing) -> str:
    """Tell photographs (their :func:`identity_of`), as one framing cuts them, from all other pictures."""
    return sha256(f"{photographs} {framing}".encode())


class Originals:
    """Photographs as one framing cuts them, and their features, on the disk.

    Every space has a store of its own, so that one more space costs its own features alone.
    """

    def __init__(self, folder: Path, photographs: Photographs, framing: Framing, networks: Sequence[Network]) -> None:
        self.photographs, self.framing, self.networks = photographs, framing, networks
        job = {"photographs": identity_of(photographs), "framing": str(framing)}
        image = (framing.side, framing.side, 3)
        self.identity = originals_identity(job["photographs"], framing)
        self._pixels = RowStore(folder, {_PIXELS: ("u1", image), _MEASURES: ("<f8", (len(OWN),))}, job)
        self._spaces = {
            space: RowStore(folder / space.key, {space.key: ("<f4", space.shape)}, {**job, "space": space.name})
            for network in networks
            for space in network.spaces
        }
        for store in self._spaces.values():
            store.agree_with(self._pixels.index)

    @property
    def spaces(self) -> list[Space]:
        """List the spaces of all networks, in order."""
        return list(self._spaces)

    def close(self) -> None:
        """Bring all rows to the disk."""
        for store in (self._pixels, *self._spaces.values()):
            store.close()

    def __len__(self) -> int:
        return len(self._pixels)

    @property
    def index(self) -> list[int]:
        """Return the photographs' places in the list that was given, row by row; those left out are missing."""
        if len(self._pixels.index) < len(self._pixels):
            self._pixels.commit()
        return self._pixels.index

    @property
    def pixels(self) -> StoredRows:
        """Return the pixels, uint8 (N, side, side, 3)."""
        return self._pixels.rows(_PIXELS)

    @property
    def measures(self) -> NDArray[np.float64]:
        """Return what is measured of each photograph alone, float64 (N, OWN)."""
        rows: NDArray[np.float64] = self._pixels.rows(_MEASURES)[:]
        return rows

    def features(self, space: Space) -> StoredRows:
        """Return the features in a space, float32 (N, ...)."""
        return self._spaces[space].rows(space.key)

    def gather(self, size: int, width: int, bulk: Bulk, what: str) -> None:
        """Read and encode what is missing, ``size`` photographs at a time. Raises as the networks and DataError do."""
        self._catch_up(size)
        last = self.index[-1] if len(self) else -1
        first = next(
            (row for row, number in enumerate(self.photographs.numbers) if number > last), len(self.photographs)
        )
        todo, before = self.photographs[first:], len(self)
        batches = read_batches(todo, size, self.framing, bulk.on_error, bulk.report)
        results = compute_ahead(batches, self._encode, width)
        with tqdm(total=len(self.photographs), initial=first, desc=what, unit="image", disable=None) as bar:
            try:
                with bulk.going_on(lambda: len(self), before + len(todo)):
                    for batch, found in results:
                        numbers = [photograph.index for photograph in batch.photographs]
                        own = own_measures(luma(batch.pixels))
                        for space, features in found.items():
                            self._spaces[space].add(numbers, {space.key: features})
                        self._pixels.add(numbers, {_PIXELS: batch.pixels, _MEASURES: own})
                        bar.update(len(numbers))
            finally:
                results.close()
        bulk.outcome(len(self), "photographs")

    def _encode(self, pixels: Pixels) -> dict[Space, NDArray[np.float32]]:
        return {
            space: features
            for network in self.networks
            for space, features in zip(network.spaces, network.features(pixels), strict=True)
        }

    def _catch_up(self, size: int) -> None:
        """Encode photographs whose pixels are there and whose features in some space are not."""
        pixels, index = self.pixels, self.index
        for network in self.networks:
            while (done := min(len(self._spaces[space]) for space in network.spaces)) < len(index):
                found = network.features(pixels[done : done + size])
                for space, features in zip(network.spaces, found, strict=True):
                    missing = len(self._spaces[space]) - done
                    if missing < len(features):
                        numbers = index[done + missing : done + len(features)]
                        self._spaces[space].add(numbers, {space.key: features[missing:]})
