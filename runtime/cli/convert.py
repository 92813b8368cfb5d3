"""The commands on photographs: encode, reconstruct, reencode, interpolate."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from deepsim.runtime.cli.bulk import (
    Bulk,
    Pictures,
    bulk_options,
    check_inputs_stay,
    identity,
    make_pictures,
    over_photographs,
)
from deepsim.runtime.cli.ends import End
from deepsim.runtime.cli.options import (
    backend_options,
    bundle_argument,
    check_absent,
    check_apart,
    check_folder,
    command,
    examples,
    footer,
    open_inverter,
    output_option,
    overwrite_option,
    photos_argument,
)
from deepsim.runtime.dataset import Photographs, path_of
from deepsim.runtime.errors import UsageError
from deepsim.runtime.features import check_writable, output_files
from deepsim.runtime.images import image_names, save_png
from deepsim.runtime.inputs import check_keep
from deepsim.runtime.inverter import Inverter
from deepsim.runtime.names import Names
from deepsim.runtime.partial import PartialFeatures
from deepsim.runtime.pixels import Pixels


@click.command(
    epilog=examples(
        "deepsim encode norm2.deepsim photos/ -o features.npy",
        "deepsim encode fc6.deepsim a.jpg b.png -o features.h5 --backend onnxruntime",
        "deepsim encode fc6.deepsim photos/ -o features.h5 --on-error skip --resume",
    )
)
@bundle_argument
@photos_argument
@output_option("Features to write: .npy .npz .h5 .mat .csv, with the photographs' names (beside .npy and .csv).")
@bulk_options
@backend_options
def encode(bundle: Path, photos: Sequence[Path], output: Path, bulk: Bulk, **where: Any) -> None:
    """Compute the features of photographs (files or folders), one row each.

    Finished rows are kept on disk: --resume continues a run that stopped.
    """
    check_writable(output)
    photographs = Photographs(image_names(photos))
    check_inputs_stay(output_files(output), _paths(photographs), bundle)
    check_absent(output_files(output), bulk.overwrite)
    with open_inverter(bundle, **where) as inverter:
        check_writable(output, (len(photographs), *inverter.feature_shape))
        done = _encode(inverter, photographs, output, bulk)
        shape = (done, *inverter.feature_shape)
    following = command("deepsim", "decode", bundle, output, "-o", "images")
    if inverter.bundle.manifest.generator is None:
        following = command("deepsim", "info", bundle)
    footer(f"{output}: features of {bulk.outcome(done, 'photographs')}, float32 {shape}", following)


def _encode(inverter: Inverter, photographs: Photographs, output: Path, bulk: Bulk) -> int:
    """Write the features of photographs; return of how many."""
    job = dict(zip(("bundle", "backend"), identity(inverter), strict=True))
    with PartialFeatures.open(output, inverter.feature_shape, job, bulk.resume, bulk.overwrite) as partial:
        todo = photographs.only(
            array("Q", (photograph.index for photograph in photographs if not partial.has(photograph)))
        )
        over_photographs(
            *(inverter, todo, bulk, inverter.encode),
            lambda batch, features: partial.add(batch.photographs, features),
            before=len(photographs) - len(todo),
        )
        if bulk.left_out == len(photographs):
            bulk.outcome(0, "features")  # raises
        return partial.publish(photographs)


@click.command(
    epilog=examples(
        "deepsim reconstruct norm2.deepsim photos/ -o images",
        "deepsim reconstruct norm2.deepsim a.jpg b.jpg -o images --side-by-side",
        "deepsim reconstruct norm2.deepsim photos/ -o images --on-error skip --resume",
    )
)
@bundle_argument
@photos_argument
@output_option("Folder for the PNG images, one per photograph.")
@click.option("--side-by-side", is_flag=True, help="Put the photograph, as the encoder saw it, left of its image.")
@bulk_options
@backend_options
def reconstruct(
    bundle: Path, photos: Sequence[Path], output: Path, side_by_side: bool, bulk: Bulk, **where: Any
) -> None:
    """Reconstruct photographs (files or folders) from their features."""
    photographs, pictures = _plan(photos, output, bundle, bulk)
    with open_inverter(bundle, **where) as inverter:

        def function(pixels: Pixels) -> Pixels:
            images = inverter.reconstruct(pixels)
            return np.concatenate([pixels, images], axis=2) if side_by_side else images

        words = make_pictures(inverter, photographs, pictures, ("reconstruct", side_by_side), bulk, function)
    footer(f"{output}: {words}", command("deepsim", "reencode", bundle, photos[0], "-o", "strips"))


@click.command(
    epilog=examples(
        "deepsim reencode norm2.deepsim photos/ -o strips",
        "deepsim reencode norm2.deepsim a.jpg -o strips --iterations 4 --keep 1,2,3,4",
    )
)
@bundle_argument
@photos_argument
@output_option("Folder for the PNG strips, one per photograph.")
@click.option("--iterations", type=click.IntRange(1), default=8, show_default=True, help="How often to reconstruct.")
@click.option(
    "--keep", default="1,2,4,8", show_default=True, help="Iterations to show, increasing, with commas between."
)
@bulk_options
@backend_options
def reencode(
    bundle: Path, photos: Sequence[Path], output: Path, iterations: int, keep: str, bulk: Bulk, **where: Any
) -> None:
    """Reconstruct photographs, then the reconstructions, over and over (paper, Figure 5).

    Writes a strip per photograph: the photograph as the encoder saw it, then the kept iterations.
    """
    kept = check_keep(iterations, _numbers(keep))
    photographs, pictures = _plan(photos, output, bundle, bulk)
    with open_inverter(bundle, **where) as inverter:

        def function(pixels: Pixels) -> list[Pixels]:
            images = inverter.reencode(pixels, iterations, kept)  # (n, len(keep), side, side, 3)
            return [_strip([original, *row]) for original, row in zip(pixels, images, strict=True)]

        words = make_pictures(inverter, photographs, pictures, ("reencode", iterations, kept), bulk, function)
    footer(f"{output}: {words.replace('images', 'strips')}", command("deepsim", "bench", bundle))


@click.command(
    epilog=examples(
        "deepsim interpolate fc6.deepsim cat.jpg dog.jpg -o strip.png --steps 8",
        "deepsim interpolate vae.deepsim samples/codes.npy@0 samples/codes.npy@5 -o strip.png",
    )
)
@bundle_argument
@click.argument("photo_a", metavar="A", type=click.Path(path_type=Path))
@click.argument("photo_b", metavar="B", type=click.Path(path_type=Path))
@output_option("PNG strip to write.")
@click.option("--steps", type=click.IntRange(2, 256), default=8, show_default=True, help="Images, both ends included.")
@overwrite_option
@backend_options
def interpolate(
    bundle: Path, photo_a: Path, photo_b: Path, output: Path, steps: int, overwrite: bool, **where: Any
) -> None:
    """Decode features on the straight line between those of two photographs (paper, Figure 7).

    A and B are photographs, or rows of feature files from 0: codes.npy@5.
    """
    if output.suffix.lower() != ".png":
        raise UsageError(f"{output}: expected a name ending in .png.")
    ends = [End.of(path) for path in (photo_a, photo_b)]
    check_inputs_stay([output], [end.file for end in ends], bundle)
    check_absent([output], overwrite)
    with open_inverter(bundle, **where) as inverter:
        first, last = (end.read(inverter) for end in ends)
        save_png(_strip(list(inverter.interpolate(first, last, steps))), output)
    following = ("info", bundle) if ends[0].is_row else ("reencode", bundle, photo_a, "-o", "strips")
    footer(f"{output}: {steps} images in a row", command("deepsim", *following))


def _plan(photos: Sequence[Path], output: Path, bundle: Path, bulk: Bulk) -> tuple[Photographs, Pictures]:
    """List the photographs and where their images go, all checked before any work."""
    check_folder(output)
    if output.is_dir():
        check_apart([output], filter(Path.is_dir, photos))
    photographs = Photographs(image_names(photos, apart_from=output))
    names = Names(photograph.name for photograph in photographs)
    return photographs, Pictures(output, names, bulk, _paths(photographs), bundle)


def _paths(photographs: Photographs) -> Iterator[Path]:
    return map(path_of, photographs)


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise UsageError(f"--keep {text}: expected numbers with commas between, such as 1,2,4,8.") from error


def _strip(images: Sequence[Pixels]) -> Pixels:
    return np.concatenate(images, axis=1)
