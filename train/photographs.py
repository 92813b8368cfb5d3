"""Sample photographs: the real ones that ship inside the scikit-image and scikit-learn packages, nothing downloaded."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import click
import numpy as np

from deepsim.runtime.cli.exits import run
from deepsim.runtime.errors import DataError, missing_extra
from deepsim.runtime.files import publish_folder, reserved
from deepsim.runtime.images import read_image, save_png
from deepsim.runtime.pixels import Pixels

# The packages' drawings, text pages, charts and synthetic pictures are left out.
TRAIN: dict[str, tuple[str, ...]] = {
    "skimage": (
        *("astronaut.png", "brick.png", "coins.png", "grass.png", "gravel.png", "hubble_deep_field.jpg", "ihc.png"),
        *("moon.png", "motorcycle_left.png", "motorcycle_right.png", "retina.jpg"),  # the motorcycles are a stereo pair
    ),
    "sklearn": ("china.jpg", "flower.jpg"),
}
HELD_OUT: dict[str, tuple[str, ...]] = {"skimage": ("camera.png", "chelsea.png", "coffee.png", "rocket.jpg")}

_PACKAGES = {"skimage": ("scikit-image", "data"), "sklearn": ("scikit-learn", "datasets/images")}


def write_photographs(folder: str | os.PathLike[str], overwrite: bool = False) -> None:
    """Write 13 photographs whole to ``folder/train/*.png`` and 4 others, cut square, to ``folder/held-out/*.png``.

    The folder appears complete or not at all. Raises DeviceError when scikit-image or scikit-learn is not installed or
    the disk is full, DataError when the package lacks a photograph, UsageError when the folder exists already.
    """
    train = {path.stem: read_image(path) for path in files(TRAIN)}
    held_out = {path.stem: central_square(read_image(path)) for path in files(HELD_OUT)}
    with reserved(Path(folder)), publish_folder(Path(folder), overwrite) as staging:
        for name, photographs in (("train", train), ("held-out", held_out)):
            for stem, rgb in photographs.items():
                save_png(rgb, staging / name / f"{stem}.png")


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
def main(folder: Path) -> None:
    """Write the sample photographs to FOLDER/train and FOLDER/held-out; what is there already stays."""
    if not folder.exists():
        write_photographs(folder)
    click.echo(f"Sample photographs: {folder}/train, {folder}/held-out", err=True)


def central_square(rgb: Pixels) -> Pixels:
    """Cut the largest central square from (H, W, 3)."""
    height, width = rgb.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return np.ascontiguousarray(rgb[top : top + side, left : left + side])


def files(chosen: dict[str, tuple[str, ...]]) -> list[Path]:
    """Locate photographs inside their packages, without importing these. Raises DeviceError or DataError if missing."""
    found = [_package_folder(module) / name for module, names in chosen.items() for name in names]
    for path in found:
        if not path.is_file():
            raise DataError(f"{path}: no such photograph, this version lacks it. Install scikit-image 0.24 or newer.")
    return found


def _package_folder(module: str) -> Path:
    package, folder = _PACKAGES[module]
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise missing_extra(package, "demo")
    return Path(spec.origin).parent / folder


if __name__ == "__main__":
    run(main, "python -m deepsim.train.photographs")
