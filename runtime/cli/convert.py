"""The commands between photographs and features: encode, decode, reconstruct, reencode, interpolate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from deepsim.runtime.cli.bulk import (
    Bulk,
    Pictures,
    bulk_options,
    check_inputs_stay,
    identity,
    make_pictures,
    over_photographs,
)
from deepsim.runtime.cli.options import (
    backend_options,
    bundle_argument,
    check_absent,
    check_apart,
    check_folder,
    command,
    footer,
    open_inverter,
    output_option,
    overwrite_option,
    photos_argument,
)
from deepsim.runtime.dataset import Photograph, file_version, numbered, path_of
from deepsim.runtime.errors import DataError, UsageError
from deepsim.runtime.features import FeatureFile, Layout, check_writable, layout_of, output_files, read_features
from deepsim.runtime.images import find_images, save_png
from deepsim.runtime.inputs import check_keep, feature_rows
from deepsim.runtime.inverter import Inverter
from deepsim.runtime.partial import PartialFeatures
from deepsim.runtime.pixels import Pixels


def _examples(*lines: str) -> str:
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


@click.command(
    epilog=_examples(
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
    photographs = list(numbered(map(str, find_images(photos))))  # a Path takes four times as much memory
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


def _encode(inverter: Inverter, photographs: Sequence[Photograph], output: Path, bulk: Bulk) -> int:
    """Write the features of photographs; return of how many."""
    job = dict(zip(("bundle", "backend"), identity(inverter), strict=True))
    with PartialFeatures.open(output, inverter.feature_shape, job, bulk.resume, bulk.overwrite) as partial:
        todo = [photograph for photograph in photographs if not partial.has(photograph)]
        over_photographs(
            *(inverter, todo, bulk, inverter.encode),
            lambda batch, features: partial.add(batch.photographs, features),
            before=len(photographs) - len(todo),
        )
        if bulk.left_out == len(photographs):
            bulk.outcome(0, "features")  # raises
        return partial.publish(photographs)


@click.command(
    epilog=_examples(
        "deepsim decode fc6.deepsim features.npy -o images",
        "deepsim decode fc6.deepsim decoded.mat --key features --axes CN -o images --full",
        "deepsim decode norm2.deepsim matconvnet.mat --axes HWCN -o images",
    )
)
@bundle_argument
@click.argument("features", type=click.Path(path_type=Path))
@output_option("Folder for the PNG images, named after the photographs where the file has names.")
@click.option("--key", help="Which array of a .npz, .h5 or .mat file; needed when it holds several.")
@click.option(
    "--axes",
    help="Order of the array's axes: NCHW (PyTorch), NHWC (TensorFlow), HWCN (MatConvNet), WHCN (NCHW as MATLAB sees "
    "it), CN (codes in columns), N(CWH) (rows that MATLAB flattened). Needed where the shape has several readings.",
)
@click.option("--transpose", is_flag=True, hidden=True)
@click.option("--full", is_flag=True, help="Write the generator's whole image, not the part that training scored.")
@bulk_options
@backend_options
def decode(
    bundle: Path,
    features: Path,
    output: Path,
    key: str | None,
    axes: str | None,
    transpose: bool,
    full: bool,
    bulk: Bulk,
    **where: Any,
) -> None:
    """Generate an image from every row of a feature file (.npy .npz .h5 .mat .csv).

    Rows are features of the bundle's layer, as (C, H, W) or flattened in that order, unless --axes names another.
    """
    if transpose:
        raise UsageError("--transpose: several orders have the photographs last. Name one: --axes WHCN, HWCN or CN.")
    check_folder(output)
    found = read_features(features, key)
    with open_inverter(bundle, **where) as inverter:
        layout = layout_of(found.shape, inverter.feature_shape, str(features), axes or _our_axes(found, inverter))
        pictures = Pictures(output, _names(found, layout.count), bulk, output_files(features), bundle)
        recipe = ("decode", file_version(features), key, layout.groups, full, *identity(inverter))
        numbers = pictures.to_make(map(str, range(layout.count)), recipe)
        done = _decode(inverter, found, layout, pictures, numbers, full, bulk)
    before = layout.count - len(numbers)
    following = command("deepsim", "info", bundle)
    if inverter.encoder_backend is not None:
        following = command("deepsim", "encode", bundle, output, "-o", "again.npy")
    footer(f"{output}: {bulk.outcome(done, 'images', before)}", following)


def _our_axes(found: FeatureFile, inverter: Inverter) -> str | None:
    """Return the order of axes of a file that numbers its photographs, as deepsim's do; None for others."""
    if not found.index or len(found.index) != found.shape[0]:
        return None
    flat = "NC" if len(inverter.feature_shape) == 1 else "N(CHW)"
    return {2: flat, 4: "NCHW"}.get(len(found.shape))


def _names(found: FeatureFile, count: int) -> list[str]:
    """Return the names of the photographs, empty ones where the file has none."""
    if found.names and len(found.names) != count:
        raise DataError(f"{found.path}: {len(found.names)} names for {count} rows, expected one for each.")
    return list(found.names or [""] * count)


def _decode(
    inverter: Inverter,
    found: FeatureFile,
    layout: Layout,
    pictures: Pictures,
    numbers: Sequence[int],
    full: bool,
    bulk: Bulk,
) -> int:
    """Write the images of these rows; return of how many."""
    done, before = 0, layout.count - len(numbers)
    with (
        tqdm(total=len(numbers), unit="image", disable=None) as bar,
        bulk.going_on(lambda: before + done, layout.count),
    ):
        for due in _batches(numbers, inverter.max_batch):
            rows, error = _usable_rows(found, layout, due, bulk)
            if rows:
                images = inverter.decode(np.stack(list(rows.values())), full=full)
                for number, image in zip(rows, images, strict=True):
                    pictures.save(number, image)
            done += len(rows)
            bar.update(len(due))
            if error is not None:
                raise error
    return done


def _batches(numbers: Sequence[int], size: int) -> list[Sequence[int]]:
    """Cut increasing numbers where one is missing and after ``size`` of them, so that a batch is one piece."""
    cut: list[list[int]] = []
    for number in numbers:
        if cut and number == cut[-1][-1] + 1 and len(cut[-1]) < size:
            cut[-1].append(number)
        else:
            cut.append([number])
    return list(cut)


def _usable_rows(
    found: FeatureFile, layout: Layout, due: Sequence[int], bulk: Bulk
) -> tuple[dict[int, NDArray[np.float32]], DataError | None]:
    """Read these rows; return the finite ones, with "stop" those before the first that is not, and its error."""
    one = layout.axis is None or layout.axis >= len(found.shape)  # an axis of one photograph, which was dropped
    values = found.values if one else found.part(layout.axis or 0, due[0], due[-1] + 1)
    rows = layout.rows(values)
    rows = rows.astype(np.float32) if rows.dtype.kind in "iu" else rows
    usable: dict[int, NDArray[np.float32]] = {}
    for number, row in zip(due, rows, strict=True):
        try:
            usable[number] = feature_rows(row, f"{found.path}, row {number}")
        except DataError as error:
            if bulk.on_error == "stop":
                return usable, error
            bulk.report(Photograph(number, found.path), error)
    return usable, None


@click.command(
    epilog=_examples(
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
    epilog=_examples(
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
    """Reconstruct photographs, then the reconstructions, over and over (paper, Figure 6).

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


@click.command(epilog=_examples("deepsim interpolate fc6.deepsim cat.jpg dog.jpg -o strip.png --steps 8"))
@bundle_argument
@click.argument("photo_a", type=click.Path(path_type=Path))
@click.argument("photo_b", type=click.Path(path_type=Path))
@output_option("PNG strip to write.")
@click.option("--steps", type=click.IntRange(2, 256), default=8, show_default=True, help="Images, both ends included.")
@overwrite_option
@backend_options
def interpolate(
    bundle: Path, photo_a: Path, photo_b: Path, output: Path, steps: int, overwrite: bool, **where: Any
) -> None:
    """Decode features on the straight line between those of two photographs (paper, Figure 7)."""
    if output.suffix.lower() != ".png":
        raise UsageError(f"{output}: expected a name ending in .png.")
    check_inputs_stay([output], [photo_a, photo_b], bundle)
    check_absent([output], overwrite)
    with open_inverter(bundle, **where) as inverter:
        save_png(_strip(list(inverter.interpolate(photo_a, photo_b, steps))), output)
    footer(f"{output}: {steps} images in a row", command("deepsim", "reencode", bundle, photo_a, "-o", "strips"))


def _plan(photos: Sequence[Path], output: Path, bundle: Path, bulk: Bulk) -> tuple[list[Photograph], Pictures]:
    """List the photographs and where their images go, all checked before any work."""
    check_folder(output)
    if output.is_dir():
        check_apart([output], filter(Path.is_dir, photos))
    photographs = list(numbered(map(str, find_images(photos, apart_from=output))))
    names = [photograph.name for photograph in photographs]
    return photographs, Pictures(output, names, bulk, _paths(photographs), bundle)


def _paths(photographs: Sequence[Photograph]) -> Iterator[Path]:
    return map(path_of, photographs)


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise UsageError(f"--keep {text}: expected numbers with commas between, such as 1,2,4,8.") from error


def _strip(images: Sequence[Pixels]) -> Pixels:
    return np.concatenate(images, axis=1)
