"""The command ``sample``: images of codes that are drawn from a bundle's prior."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from deepsim.runtime.cli.bulk import MADE, Bulk, Pictures, check_inputs_stay, identity
from deepsim.runtime.cli.options import (
    backend_options,
    bundle_argument,
    check_absent,
    check_folder,
    command,
    examples,
    footer,
    open_inverter,
    output_option,
    overwrite_option,
)
from deepsim.runtime.errors import DataError
from deepsim.runtime.features import Labels, Rows, output_files, read_features, write_features
from deepsim.runtime.features.records import cuts
from deepsim.runtime.images import png_text, read_image, save_png
from deepsim.runtime.inverter import Inverter
from deepsim.runtime.names import Names
from deepsim.runtime.pixels import Pixels
from deepsim.runtime.prefetch import overlapped
from deepsim.runtime.prior import draw_codes, require_prior

CODES, GRID = "codes.npy", "grid.png"  # beside the images
_ACROSS, _SHOWN = 8, 64  # images in a row of the sheet, and in all of it
_SHEET = "sheet of samples"  # what the text in its file says


@dataclass(frozen=True)
class Draws:
    """What is drawn: ``count`` codes of ``shape`` by a seed and a temperature (see ``runtime/prior.py``)."""

    shape: tuple[int, ...]
    count: int
    seed: int
    temperature: float

    def codes(self, numbers: Sequence[int]) -> NDArray[np.float32]:
        """Draw the codes of some numbers, float32 (n, *shape)."""
        return draw_codes(self.shape, numbers, self.seed, self.temperature)

    def rows(self) -> Rows:
        """Return all codes, drawn block by block."""

        def blocks() -> Iterator[NDArray[np.float32]]:
            for start, stop in cuts(self.count, 4 * int(np.prod(self.shape))):
                yield self.codes(range(start, stop))

        return Rows((self.count, *self.shape), blocks)


@click.command(
    epilog=examples(
        "deepsim sample vae.deepsim -o samples",
        "deepsim sample vae.deepsim -o samples --count 10000 --seed 7 --resume",
        "deepsim sample vae.deepsim -o cooler --temperature 0.7 --grid",
        "deepsim interpolate vae.deepsim samples/codes.npy@0 samples/codes.npy@5 -o between.png",
    )
)
@bundle_argument
@output_option("Folder for the PNG images, sample-000000.png and so on, and their codes, codes.npy.")
@click.option("--count", type=click.IntRange(1, 1 << 30), default=16, show_default=True, help="How many to draw.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the draws.")
@click.option(
    "--temperature",
    type=click.FloatRange(0, 1000),
    default=1.0,
    show_default=True,
    help="Factor on the codes: 1 is the prior, less is nearer to the mean.",
)
@click.option("--grid", is_flag=True, help=f"Write {GRID} too, one sheet of the first {_SHOWN} images.")
@click.option("--resume", is_flag=True, help="Continue where an earlier run stopped; keep its outputs.")
@overwrite_option
@backend_options
def sample(
    bundle: Path,
    output: Path,
    count: int,
    seed: int,
    temperature: float,
    grid: bool,
    resume: bool,
    overwrite: bool,
    **where: Any,
) -> None:
    """Draw codes from the prior of a variational autoencoder and generate their images (paper, Figure 8).

    A sample depends on the bundle, --seed, --temperature and its number alone.
    """
    check_folder(output)
    names, bulk = Names(f"sample-{number:06d}" for number in range(count)), Bulk(overwrite, resume, "stop")
    pictures = Pictures(output, names, bulk, (), bundle)
    beside = [*output_files(output / CODES), *([output / GRID] if grid else [])]
    check_inputs_stay(beside, (), bundle)
    if not resume:
        check_absent(beside, overwrite, other="pass --resume to go on")
    with open_inverter(bundle, **where) as inverter:
        require_prior(inverter.bundle.manifest.prior, bundle, inverter.layer)
        draws = Draws(inverter.feature_shape, count, seed, temperature)
        kept = resume and not overwrite and _are_kept(output / CODES, draws)
        if grid and resume:
            _check_sheet(output / GRID, overwrite)
        words = _write(inverter, draws, pictures, bulk)
        if not kept:
            write_features(output / CODES, draws.rows(), Labels(names, range(count)))
        if grid:
            save_png(_sheet(pictures.targets[:_SHOWN]), output / GRID, {MADE: _SHEET})
    between = [f"{output / CODES}@0", f"{output / CODES}@{count - 1}", "-o", "between.png"]
    footer(f"{output}: {words} of {CODES}", command("deepsim", "interpolate", bundle, *between))


def _write(inverter: Inverter, draws: Draws, pictures: Pictures, bulk: Bulk) -> str:
    """Write the image of every sample that has none from an earlier run; return the words for what was done."""
    recipe = ("sample", draws.shape, draws.seed, draws.temperature, *identity(inverter))
    numbers = pictures.to_make(map(str, range(draws.count)), recipe)
    done, before = 0, draws.count - len(numbers)
    batches = overlapped(
        _batches(draws, numbers, inverter.max_batch),
        lambda batch: inverter.decode(batch[1]),
        inverter.batches_at_once,
    )
    try:
        with tqdm(total=len(numbers), unit="image", disable=None) as bar:
            for _ in pictures.save_all(_one_by_one(batches)):
                done += 1
                bar.update()
    finally:
        batches.close()
    return bulk.outcome(done, "images", before)


_Batch = tuple[Sequence[int], NDArray[np.float32]]


def _batches(draws: Draws, numbers: Sequence[int], size: int) -> Generator[_Batch, None, None]:
    for start in range(0, len(numbers), size):
        some = numbers[start : start + size]
        yield some, draws.codes(some)


def _one_by_one(batches: Iterator[tuple[_Batch, Pixels]]) -> Iterator[tuple[int, Pixels]]:
    for (numbers, _), images in batches:
        yield from zip(numbers, images, strict=True)


def _are_kept(path: Path, draws: Draws) -> bool:
    """Tell whether codes are there already that begin with these draws.

    Raises UsageError when others are there: they may not be replaced.
    """
    if not path.exists():
        return False
    found = read_features(path)
    fits = found.shape[1:] == draws.shape
    for start, stop in cuts(min(found.shape[0], draws.count) if fits else 0, 4 * int(np.prod(draws.shape))):
        fits = fits and np.array_equal(found.part(0, start, stop), draws.codes(range(start, stop)))
    if not fits:
        check_absent([path], overwrite=False, why="drawn by something else")
    return found.shape[0] >= draws.count


def _check_sheet(path: Path, overwrite: bool) -> None:
    """Raise UsageError when a picture is there already that is no sheet of samples, nor may be replaced."""
    try:
        ours = path.exists() and png_text(path, MADE) == _SHEET
    except DataError:
        ours = False
    if not ours:
        check_absent([path], overwrite, "no sheet of samples")


def _sheet(paths: Sequence[Path]) -> Pixels:
    """Put images side by side, 8 in a row; what is left of the last row is black."""
    images = list(map(read_image, paths))
    height, width = images[0].shape[:2]
    across = min(_ACROSS, len(images))
    sheet = np.zeros((-(-len(images) // across) * height, across * width, 3), np.uint8)
    for number, image in enumerate(images):
        top, left = number // across * height, number % across * width
        sheet[top : top + height, left : left + width] = image
    return sheet
