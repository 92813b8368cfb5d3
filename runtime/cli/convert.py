"""The commands between photographs and features: encode, decode, reconstruct, reencode, interpolate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
import numpy as np
from tqdm import tqdm

from deepsim.runtime.cli.options import (
    backend_options,
    bundle_argument,
    check_absent,
    check_folder,
    footer,
    open_inverter,
    output_option,
    overwrite_option,
    photos_argument,
    png_paths,
)
from deepsim.runtime.errors import UsageError
from deepsim.runtime.features import check_writable, fit_rows, read_features, write_features
from deepsim.runtime.images import find_images, prepare, save_png
from deepsim.runtime.inputs import check_keep
from deepsim.runtime.pixels import Pixels

_T = TypeVar("_T")


def _examples(*lines: str) -> str:
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


@click.command(
    epilog=_examples(
        "deepsim encode norm2.deepsim photos/ -o features.npy",
        "deepsim encode fc6.deepsim a.jpg b.png -o features.h5 --backend onnxruntime",
    )
)
@bundle_argument
@photos_argument
@output_option("Features to write: .npy .npz .h5 .mat .csv (.npz, .h5 and .mat keep the photographs' names).")
@overwrite_option
@backend_options
def encode(bundle: Path, photos: Sequence[Path], output: Path, overwrite: bool, **where: Any) -> None:
    """Compute the features of photographs (files or folders), one row each."""
    check_writable(output)
    check_absent([output], overwrite)
    paths = find_images(photos)
    with open_inverter(bundle, **where) as inverter:
        parts = [inverter.encode(group) for group in _groups(paths, inverter.max_batch, "encode")]
    features = np.concatenate(parts)
    write_features(output, features, [str(path) for path in paths])
    footer(
        f"{output}: features of {len(paths)} photographs, float32 {features.shape}",
        f"deepsim decode {bundle} {output} -o images",
    )


@click.command(
    epilog=_examples(
        "deepsim decode fc6.deepsim features.npy -o images",
        "deepsim decode fc6.deepsim decoded.mat --key features --transpose -o images --full",
    )
)
@bundle_argument
@click.argument("features", type=click.Path(path_type=Path))
@output_option("Folder for the PNG images.")
@click.option("--key", help="Which array of a .npz, .h5 or .mat file; needed when it holds several.")
@click.option(
    "--transpose", is_flag=True, help="Reverse the array's axes first: photographs last, as MATLAB users store it."
)
@click.option("--full", is_flag=True, help="Write the generator's whole image, not the central 227x227.")
@overwrite_option
@backend_options
def decode(
    bundle: Path,
    features: Path,
    output: Path,
    key: str | None,
    transpose: bool,
    full: bool,
    overwrite: bool,
    **where: Any,
) -> None:
    """Generate an image from every row of a feature file (.npy .npz .h5 .mat .csv).

    Rows are features of the bundle's layer, as (C, H, W) or flattened in that order.
    """
    check_folder(output)
    found = read_features(features, key)
    values = found.values.T if transpose else found.values
    names = found.names if found.names and len(found.names) == len(values) else [""] * len(values)
    targets = png_paths(output, names)
    check_absent(targets, overwrite)
    with open_inverter(bundle, **where) as inverter:
        rows = fit_rows(values, inverter.feature_shape, str(features))
        rows = rows.astype(np.float32) if rows.dtype.kind in "iu" else rows
        for chunk in _groups(range(len(rows)), inverter.max_batch, "decode"):
            images = inverter.decode(rows[chunk[0] : chunk[-1] + 1], full=full)
            _save_all(images, [targets[index] for index in chunk])
    footer(f"{output}: {len(targets)} images", f"deepsim encode {bundle} {output} -o again.npy")


@click.command(
    epilog=_examples(
        "deepsim reconstruct norm2.deepsim photos/ -o images",
        "deepsim reconstruct norm2.deepsim a.jpg b.jpg -o images --side-by-side",
    )
)
@bundle_argument
@photos_argument
@output_option("Folder for the PNG images, one per photograph.")
@click.option("--side-by-side", is_flag=True, help="Put the photograph, as the encoder saw it, left of its image.")
@overwrite_option
@backend_options
def reconstruct(
    bundle: Path, photos: Sequence[Path], output: Path, side_by_side: bool, overwrite: bool, **where: Any
) -> None:
    """Reconstruct photographs (files or folders) from their features."""
    paths, targets = _photos_and_targets(photos, output, overwrite)
    with open_inverter(bundle, **where) as inverter, tqdm(total=len(paths), unit="image", disable=None) as bar:
        done = 0
        for images in inverter.stream(paths, inverter.max_batch):
            group = slice(done, done + len(images))
            if side_by_side:
                originals = np.stack([prepare(path) for path in paths[group]])
                images = np.concatenate([originals, images], axis=2)
            _save_all(images, targets[group])
            done += len(images)
            bar.update(len(images))
    footer(f"{output}: {len(paths)} images", f"deepsim reencode {bundle} {photos[0]} -o strips")


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
@overwrite_option
@backend_options
def reencode(
    bundle: Path, photos: Sequence[Path], output: Path, iterations: int, keep: str, overwrite: bool, **where: Any
) -> None:
    """Reconstruct photographs, then the reconstructions, over and over (paper, Figure 6).

    Writes a strip per photograph: the photograph as the encoder saw it, then the kept iterations.
    """
    kept = check_keep(iterations, _numbers(keep))
    paths, targets = _photos_and_targets(photos, output, overwrite)
    with open_inverter(bundle, **where) as inverter:
        pairs = list(zip(paths, targets, strict=True))
        for group in _groups(pairs, inverter.max_batch, "reencode"):
            originals = np.stack([prepare(path) for path, _ in group])
            images = inverter.reencode(originals, iterations, kept)  # (n, len(keep), 227, 227, 3)
            strips = [_strip([original, *row]) for original, row in zip(originals, images, strict=True)]
            _save_all(strips, [target for _, target in group])
    footer(f"{output}: {len(paths)} strips", f"deepsim bench {bundle}")


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
    """Decode features on the straight line between two photographs' (paper, Figure 7)."""
    if output.suffix.lower() != ".png":
        raise UsageError(f"{output}: expected a name ending in .png. Rename the output.")
    check_absent([output], overwrite)
    with open_inverter(bundle, **where) as inverter:
        save_png(_strip(list(inverter.interpolate(photo_a, photo_b, steps))), output)
    footer(f"{output}: {steps} images in a row", f"deepsim reencode {bundle} {photo_a} -o strips")


def _photos_and_targets(photos: Sequence[Path], output: Path, overwrite: bool) -> tuple[list[Path], list[Path]]:
    """List the photographs and where their images go, all checked before any work."""
    check_folder(output)
    paths = find_images(photos)
    targets = png_paths(output, [str(path) for path in paths])
    check_absent(targets, overwrite)
    return paths, targets


def _groups(items: Sequence[_T], size: int, what: str) -> Iterator[Sequence[_T]]:
    """Cut items into groups of ``size`` under a progress bar."""
    with tqdm(total=len(items), unit="image", desc=what, disable=None) as bar:
        for start in range(0, len(items), size):
            yield items[start : start + size]
            bar.update(len(items[start : start + size]))


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise UsageError(
            f"--keep {text}: expected numbers with commas between, such as 1,2,4,8. Correct it."
        ) from error


def _strip(images: Sequence[Pixels]) -> Pixels:
    return np.concatenate(images, axis=1)


def _save_all(images: Sequence[Pixels] | Pixels, targets: Sequence[Path]) -> None:
    for image, target in zip(images, targets, strict=True):
        save_png(image, target)
