"""Methods, the rows of the table: bundles that reconstruct, and pictures that another program has written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from deepsim.evaluate.measure.originals import Originals
from deepsim.evaluate.measure.spaces import EncodingBundle, Space
from deepsim.runtime.cli.bulk import identity
from deepsim.runtime.dataset import Photographs, file_version
from deepsim.runtime.errors import DataError, UsageError
from deepsim.runtime.file_names import png_paths
from deepsim.runtime.files import sha256
from deepsim.runtime.geometry import Framing
from deepsim.runtime.images import image_names, prepare
from deepsim.runtime.pixels import Pixels


class Method(Protocol):
    """One row: its name, the space that it inverts (None: unknown), and pictures of photographs by their rows."""

    @property
    def name(self) -> str:
        """Return what tables call it."""
        ...

    @property
    def inverted(self) -> Space | None:
        """Return the space whose features its pictures are made of, where that is known."""
        ...

    @property
    def identity(self) -> dict[str, Any]:
        """Return what its pictures depend on besides the photographs, as plain JSON."""
        ...

    def described(self) -> dict[str, Any]:
        """Return what a reader wants to know of it, as plain JSON."""
        ...

    def pictures(self, originals: Originals, rows: slice) -> Pixels:
        """Make or read the pictures of some rows: uint8 RGB (n, side, side, 3). Raises DataError."""
        ...


@dataclass(frozen=True)
class BundleMethod:
    """A bundle: it decodes the features that the originals have in the space that it inverts."""

    name: str
    encoding: EncodingBundle

    @property
    def inverted(self) -> Space:
        """Return the space of the bundle's own encoder and layer."""
        return self.encoding.spaces[0]

    @property
    def identity(self) -> dict[str, Any]:
        """Return the bundle's content and what runs it."""
        return dict(zip(("bundle", "backend"), identity(self.encoding.inverter), strict=True))

    def described(self) -> dict[str, Any]:
        """Return the bundle's path, name and provenance, and what runs it."""
        inverter = self.encoding.inverter
        manifest = inverter.bundle.manifest
        return {
            "bundle": str(inverter.bundle.path),
            "manifest_name": manifest.name,
            "provenance": manifest.provenance,
            "backend": inverter.backend,
            "device": inverter.device,
        }

    def pictures(self, originals: Originals, rows: slice) -> Pixels:
        """Decode the originals' features."""
        made: Pixels = self.encoding.inverter.decode(originals.features(self.inverted)[rows])
        return made


class ImagesMethod:
    """Pictures in a folder, one for each photograph, found by its name without the suffix."""

    def __init__(self, name: str, folder: Path, inverted: Space | None, photographs: Photographs) -> None:
        """Find the pictures of the photographs by their names. Raises DataError where there are no pictures."""
        self.name, self.inverted, self._folder = name, inverted, folder
        found = {Path(path).stem: path for path in image_names([folder])}
        stems = png_paths(
            folder, [photograph.name for photograph in photographs]
        )  # as the commands name what they make
        self._stems = {number: path.stem for number, path in zip(photographs.numbers, stems, strict=True)}
        self._paths = {number: found[stem] for number, stem in self._stems.items() if stem in found}

    @property
    def identity(self) -> dict[str, Any]:
        """Return the paths and versions of the pictures."""
        return {
            "images": sha256("".join(f"{path}\0{file_version(Path(path))}\n" for path in self._paths.values()).encode())
        }

    def described(self) -> dict[str, Any]:
        """Return the folder."""
        return {"images": str(self._folder)}

    def pictures(self, originals: Originals, rows: slice) -> Pixels:
        """Read pictures; those of another size are resized to the photographs'.

        Raises DataError for a photograph without a picture.
        """
        side = originals.framing.side
        return np.stack([prepare(self._path(number), Framing("warp", side, side)) for number in originals.index[rows]])

    def _path(self, number: int) -> str:
        if number not in self._paths:
            raise DataError(
                f"{self._folder}: no picture named {self._stems[number]}, expected one for each photograph."
            )
        return self._paths[number]


def split_images(text: str) -> tuple[str, str | None, Path]:
    """Split "NAME=FOLDER" or "NAME@LAYER=FOLDER" into name, layer and folder. Raises UsageError for anything else.

    >>> split_images("Mahendran & Vedaldi@fc6=mv/fc6")
    ('Mahendran & Vedaldi', 'fc6', PosixPath('mv/fc6'))
    """
    whole, equals, folder = text.partition("=")
    name, at, layer = whole.rpartition("@") if "@" in whole else (whole, "", "")
    if not equals or not name or not folder or (at and not layer):
        raise UsageError(f"--images {text}: expected NAME=FOLDER or NAME@LAYER=FOLDER.")
    return name, layer or None, Path(folder)


def layer_space(layer: str | None, spaces: Sequence[Space]) -> Space | None:
    """Return the first space of a layer's name; None for no layer. Raises UsageError where there is none."""
    if layer is None:
        return None
    found = next((space for space in spaces if space.layer == layer), None)
    if found is None:
        raise UsageError(f"layer {layer}: not here, expected one of {', '.join(space.layer for space in spaces)}.")
    return found
