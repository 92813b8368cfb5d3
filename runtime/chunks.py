"""Batches of any size, in chunks that a backend takes at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepsim.runtime.geometry import Framing
from deepsim.runtime.images import prepare_batch
from deepsim.runtime.inputs import Photos, allocate, check_photos
from deepsim.runtime.pixels import Pixels
from deepsim.runtime.prefetch import map_ahead


@dataclass(frozen=True)
class Chunks:
    """At most ``most`` rows to a chunk, in order; ``at_once`` of the chunks are under way together."""

    most: int
    at_once: int

    def compute(
        self, count: int, row: tuple[int, ...], dtype: type[np.generic], function: Callable[[slice], NDArray[Any]]
    ) -> NDArray[Any]:
        """Compute ``count`` rows of shape ``row``; ``function`` gives those of one chunk.

        >>> Chunks(most=2, at_once=1).compute(5, (), np.int64, lambda chunk: np.arange(9)[chunk] ** 2)
        array([ 0,  1,  4,  9, 16])
        """
        results = allocate((count, *row), dtype)
        chunks = [slice(start, min(start + self.most, count)) for start in range(0, count, self.most)]

        def fill(chunk: slice) -> None:
            results[chunk] = function(chunk)

        if len(chunks) == 1 or self.at_once == 1:
            for chunk in chunks:
                fill(chunk)
        else:
            deque(map_ahead(fill, chunks, self.at_once), maxlen=0)
        return results

    def over_photos(
        self,
        photos: Photos,
        framing: Framing,
        row: tuple[int, ...],
        dtype: type[np.generic],
        function: Callable[[Pixels], NDArray[Any]],
    ) -> NDArray[Any]:
        """Apply ``function`` to photographs, framed; its rows have shape ``row``. Raises as ``prepare_batch``."""
        checked = check_photos(photos)
        return self.compute(len(checked), row, dtype, lambda chunk: function(prepare_batch(checked[chunk], framing)))
