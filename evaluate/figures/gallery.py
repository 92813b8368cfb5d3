"""The photographs that are shown and measured, and pictures that another method made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from deepsim.evaluate.report.figures import choose
from deepsim.runtime.errors import DataError
from deepsim.runtime.file_names import png_paths
from deepsim.runtime.geometry import Framing
from deepsim.runtime.images import find_images, prepare, read_image
from deepsim.runtime.pixels import Pixels


@dataclass(frozen=True)
class Gallery:
    """Photographs, of which the first ``shown`` are pictured and all are measured; ``where`` says which they are.

    ``apart`` are photographs that were found and left out, to keep the number small.
    """

    photographs: tuple[Path | Pixels, ...]
    names: tuple[str, ...]
    shown: int
    where: str
    apart: int = 0
    _read: dict[Framing, Pixels] = field(default_factory=dict)

    @property
    def framings(self) -> list[Framing]:
        """Return the ways in which photographs were brought to encoders so far."""
        return list(self._read)

    def pixels(self, framing: Framing) -> Pixels:
        """Return all photographs as an encoder takes them: uint8 RGB (N, side, side, 3). Raises DataError."""
        if framing not in self._read:
            self._read[framing] = np.stack([prepare(photograph, framing) for photograph in self.photographs])
        return self._read[framing]

    def pictures(self, folder: Path, framing: Framing) -> Pixels:
        """Return the picture of each photograph in a folder, found by its name, at the photographs' size.

        Raises DataError naming the first photograph without one.
        """
        found = {path.stem: path for path in find_images([folder])}
        stems = [path.stem for path in png_paths(folder, self.names)]  # as the commands name what they make
        missing = [stem for stem in stems if stem not in found]
        if missing:
            more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
            raise DataError(f"{folder}: no picture named {missing[0]}{more}, expected one for each photograph.")
        square = Framing("warp", framing.side, framing.side)
        return np.stack([prepare(found[stem], square) for stem in stems])


def own_gallery(shown: int) -> Gallery:
    """Return the photographs that ship inside scikit-image and that no training of ours has seen.

    Raises DeviceError where the package is missing.
    """
    from deepsim.train.photographs import HELD_OUT, central_square, files

    paths = files(HELD_OUT)
    photographs = tuple(central_square(read_image(path)) for path in paths)
    where = "photographs of scikit-image, which training has not seen"
    return Gallery(photographs, tuple(path.stem for path in paths), min(shown, len(paths)), where)


def folder_gallery(folder: Path, paths: Sequence[Path], shown: int, limit: int) -> Gallery:
    """Return at most ``limit`` photographs of a folder, spread evenly; the first ``shown`` of them are pictured."""
    chosen = choose(paths, limit)
    names = tuple(path.relative_to(folder).as_posix() if path != folder else path.name for path in chosen)
    where = f"photographs of the folder {folder.name or folder}"
    return Gallery(tuple(chosen), names, min(shown, len(chosen)), where, len(paths) - len(chosen))
