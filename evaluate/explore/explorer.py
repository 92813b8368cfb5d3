"""What the page can ask for: codes of photographs and files, and the images that they make."""

from __future__ import annotations

import io
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deepsim.evaluate.explore.codes import Code, Codes
from deepsim.evaluate.explore.recipe import Recipe
from deepsim.evaluate.pictures import data_uri
from deepsim.runtime.errors import DataError, DeviceError, UsageError
from deepsim.runtime.features import SUFFIXES, Preferred, read_features
from deepsim.runtime.features.layer_names import layer_names
from deepsim.runtime.features.rows import open_rows
from deepsim.runtime.images import image_from_bytes, prepare
from deepsim.runtime.inputs import feature_rows
from deepsim.runtime.inverter import Inverter
from deepsim.runtime.pixels import Pixels
from deepsim.runtime.png import encode_png
from deepsim.runtime.prior import draw_codes

MOST_ROWS = 64  # of a feature file that the page lists
STRIP, STRIP_SIDE = 8, 96  # images of a line between two codes, and their side in pixels
MOST_SEED = (1 << 32) - 1  # and the largest number of a draw
MOST_TEMPERATURE = 4.0


@dataclass(frozen=True)
class Picture:
    """An image as a PNG file, and what the page says of it: plain JSON values."""

    png: bytes
    facts: dict[str, float]


class Explorer:
    """Answers the page's questions with one bundle. Every method raises the errors of what it calls.

    ``no_encoder`` says in one line why photographs cannot be encoded here, None where they can. ``prior`` is what codes
    may be drawn from, None for the bundles of generators that have none.

    Raises UsageError for a bundle without a generator. The first image is computed here, so that no person waits for
    what is only allocated then.
    """

    def __init__(self, inverter: Inverter) -> None:
        self.inverter, self.codes = inverter, Codes(inverter.feature_shape)
        self.no_encoder: str | None = None
        self.prior = inverter.bundle.manifest.prior
        image = inverter.decode(np.zeros((1, *inverter.feature_shape), np.float32))
        try:
            inverter.encode(image)
        except (UsageError, DeviceError) as error:  # no encoder in the bundle, or nothing here that runs it
            self.no_encoder = str(error).replace(str(inverter.bundle.path), inverter.bundle.manifest.name)

    def photograph(self, content: bytes | Pixels, name: str) -> dict[str, Any]:
        """Encode a photograph, a file's content or pixels (H, W, 3); return its code and the square that was encoded.

        Of an image file everything is accepted that the commands read, and refused as they refuse it.
        """
        rgb = image_from_bytes(content, name) if isinstance(content, bytes) else content
        square = prepare(rgb, self.inverter.geometry.framing)
        return self._added(self.inverter.encode(square)[0], name, square, encoded=True)

    def rows(self, content: bytes, name: str) -> dict[str, Any]:
        """Read codes from a feature file's content: ``codes``, the first :data:`MOST_ROWS`, and their ``count``.

        The name serves as a text: its ending says which format it is.
        """
        suffix = Path(name).suffix.lower()
        if suffix not in SUFFIXES:
            raise UsageError(f"{name}: features in {suffix or 'no format'}, expected one of {' '.join(SUFFIXES)}.")
        with TemporaryDirectory(prefix="deepsim-explore-") as folder:
            path = Path(folder) / f"features{suffix}"  # readers of HDF5 and MATLAB files want a path; this one is ours
            path.write_bytes(content)
            try:
                values, names, count = self._read(path)
            except DataError as error:
                raise type(error)(str(error).replace(str(path), name)) from error
        labels = [_label(name, label, row, count) for row, label in enumerate(names)]
        images = self.inverter.decode(values)
        return {
            "codes": [self._added(*each) for each in zip(values, labels, images, strict=True)],
            "count": count,
        }

    def draw(self, seed: int, number: int, temperature: float) -> dict[str, Any]:
        """Draw a code from the prior: z ~ temperature * N(0, I), as seed and number of the draw say.

        Raises UsageError for a bundle without a prior.
        """
        if self.prior is None:
            raise UsageError(f"{self.inverter.bundle.path}: has no prior, so no codes can be drawn.")
        (drawn,) = draw_codes(self.inverter.feature_shape, [number], seed, temperature)
        return self._added(drawn, f"draw {seed}.{number}")

    def keep(self, recipe: Recipe, name: str) -> dict[str, Any]:
        """Keep the code of a recipe under an id of its own, with its image."""
        return self._added(self.make(recipe), name)

    def reencode(self, recipe: Recipe, name: str) -> dict[str, Any]:
        """Return the code of the image of a recipe: one iteration (paper, Figure 5)."""
        square = self.inverter.decode(self.make(recipe)[None])[0]
        return self._added(self.inverter.encode(square)[0], name)

    def image(self, recipe: Recipe) -> Picture:
        """Generate a recipe's image, with the time that took and how far image and code are from what they came from.

        ``rmse`` is in grey levels, to the photograph of ``start`` where it has one; ``moved`` is the distance of the
        code from ``start``'s, over the length of that.
        """
        begun = time.perf_counter()
        code, start = self.make(recipe), self.codes.get(recipe.start)
        rgb = self.inverter.decode(code[None])[0]
        facts = {"milliseconds": 1e3 * (time.perf_counter() - begun), **_facts(code, rgb, start)}
        return Picture(encode_png(rgb), facts)

    def strip(self, recipe: Recipe) -> bytes:
        """Generate :data:`STRIP` small images on the line between a recipe's two codes, side by side, as a PNG file."""
        codes = np.stack([self.make(recipe.at(mix)) for mix in np.linspace(0, 1, STRIP)])
        small = [
            np.asarray(Image.fromarray(rgb).resize((STRIP_SIDE, STRIP_SIDE))) for rgb in self.inverter.decode(codes)
        ]
        return encode_png(np.concatenate(small, axis=1))

    def file(self, recipe: Recipe) -> bytes:
        """Return the code of a recipe as the content of a .npy file, (1, *shape), which ``deepsim decode`` reads."""
        buffer = io.BytesIO()
        np.save(buffer, self.make(recipe)[None], allow_pickle=False)
        return buffer.getvalue()

    def units(self, recipe: Recipe) -> dict[str, Any]:
        """Return the mean absolute value of each channel, and of each place of a map, before groups are scaled."""
        sizes = np.abs(self.make(Recipe(recipe.start, recipe.end, recipe.mix, recipe.directions)))
        channels = sizes.reshape(len(sizes), -1).mean(axis=1)
        return {
            "channels": channels.astype(float).round(5).tolist(),
            "places": sizes.mean(axis=0).astype(float).round(5).tolist() if sizes.ndim == 3 else None,
        }

    def make(self, recipe: Recipe) -> NDArray[np.float32]:
        """Compute a recipe's code. Raises Forgotten, and DataError where a sum is not finite."""
        return recipe.make(lambda name: self.codes.get(name).values)

    def _added(
        self, values: NDArray[Any], name: str, picture: Pixels | None = None, encoded: bool = False
    ) -> dict[str, Any]:
        """Keep a code; tell its id, its name and its picture: what the generator makes of it, unless one is given.

        ``encoded`` says that the code was encoded from the picture.
        """
        found = self.codes.add(values, picture if encoded else None)
        shown = self.inverter.decode(self.codes.get(found).values[None])[0] if picture is None else picture
        return {"id": found, "name": name, "picture": data_uri(shown), "photograph": encoded}

    def _read(self, path: Path) -> tuple[NDArray[np.float32], list[str], int]:
        """Return the first codes of a feature file, their names and how many there are; a lone code is one row."""
        shape, layer = self.inverter.feature_shape, self.inverter.layer
        found = read_features(path, Preferred(("features", *layer_names(layer))))
        axes = {1: "C", 3: "CHW"}.get(len(shape)) if tuple(found.shape) == shape else None
        rows = open_rows(path, shape, layer, axes=axes)
        listed = range(min(len(rows), MOST_ROWS))
        return feature_rows(rows.stack(listed), str(path)), [rows.names[row] for row in listed], len(rows)


def _label(file: str, name: str, row: int, count: int) -> str:
    """Return what a row of a file is called: by its own name, else by its number where there are several."""
    return f"{file}, {name}" if name else (f"{file}, row {row}" if count > 1 else file)


def _facts(code: NDArray[np.float32], rgb: Pixels, start: Code) -> dict[str, float]:
    facts: dict[str, float] = {}
    length = float(np.linalg.norm(start.values))
    if length > 0:
        facts["moved"] = float(np.linalg.norm(code - start.values)) / length
    if start.photograph is not None:
        apart = rgb.astype(np.float32) - start.photograph
        facts["rmse"] = float(np.sqrt(np.mean(apart**2)))
    return facts
