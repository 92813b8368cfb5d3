"""The command ``decode``: features of any program's files to images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
from tqdm import tqdm

from deepsim.runtime.cli.bulk import Bulk, Pictures, bulk_options, identity
from deepsim.runtime.cli.feature_batches import Ready, ready_batches
from deepsim.runtime.cli.options import (
    GivenPath,
    backend_options,
    bundle_argument,
    check_folder,
    command,
    examples,
    footer,
    open_inverter,
    output_option,
)
from deepsim.runtime.cli.raw_images import write_raw
from deepsim.runtime.cli.treatment import Treatment, TreatmentOptions, treatment_options
from deepsim.runtime.errors import DataError, UsageError
from deepsim.runtime.features import check_writable
from deepsim.runtime.features.rows import FeatureRows, open_rows
from deepsim.runtime.features.trees import Selection
from deepsim.runtime.inverter import Inverter
from deepsim.runtime.pixels import Pixels
from deepsim.runtime.prefetch import overlapped


@click.command(
    epilog=examples(
        "deepsim decode fc6.deepsim features.npy -o images",
        "deepsim decode fc6.deepsim decoded.mat --key features --axes CN -o images --full",
        "deepsim decode norm2.deepsim matconvnet.mat --axes HWCN -o images",
        "deepsim decode fc6.deepsim decoded/ --subject S1 --roi VC -o images",
        "deepsim decode fc6.deepsim features.npy --raw -o images.npy",
    )
)
@bundle_argument
@click.argument("features", type=GivenPath(path_type=Path))
@output_option("Folder for the PNG images, named after the photographs where the file has names; with --raw a file.")
@click.option("--key", help="Which array of a .npz, .h5 or .mat file; without it, the only one, or the layer's.")
@click.option(
    "--axes",
    help="Order of the array's axes: NCHW (PyTorch), NHWC (TensorFlow), HWCN (MatConvNet), WHCN (NCHW as MATLAB sees "
    "it), CN (codes in columns), N(CWH) (rows that MATLAB flattened). Needed where the shape has several readings.",
)
@click.option("--layer", help="Which layer's folder of a tree; without it the bundle's, such as relu6 or fc6.")
@click.option("--subject", help="Which subject's folder of a tree of decoded features.")
@click.option("--roi", help="Which region's folder of a tree of decoded features.")
@click.option("--fold", help="Which fold's folder of a tree of decoded features.")
@click.option("--transpose", is_flag=True, hidden=True)
@click.option("--full", is_flag=True, help="Write the generator's whole image, not the part that training scored.")
@click.option(
    "--raw",
    is_flag=True,
    help="Write one file (.npy .npz .h5 .mat) of float32 RGB grey levels, before they are clipped and rounded.",
)
@treatment_options
@bulk_options
@backend_options
def decode(
    bundle: Path,
    features: Path,
    output: Path,
    key: str | None,
    axes: str | None,
    layer: str | None,
    subject: str | None,
    roi: str | None,
    fold: str | None,
    transpose: bool,
    full: bool,
    raw: bool,
    asked: TreatmentOptions,
    bulk: Bulk,
    **where: Any,
) -> None:
    """Generate an image from every row of a feature file (.npy .npz .h5 .mat .csv), or of a folder of such files.

    Rows are features of the bundle's layer, as (C, H, W) or flattened in that order, unless --axes names another.
    Folders are bdpy's trees (--subject, --roi, --layer, --fold) or hold one code in each file.
    """
    if transpose:
        raise UsageError("--transpose: several orders have the photographs last. Name one: --axes WHCN, HWCN or CN.")
    check_writable(output) if raw else check_folder(output)
    selection = Selection(layer, subject, roi, fold)
    if not features.exists():
        raise DataError(f"{features}: no such file or folder, expected features.")
    with open_inverter(bundle, **where) as inverter:
        treatment = asked.open(inverter)
        rows = open_rows(features, inverter.feature_shape, inverter.layer, key, axes, selection)
        for note in filter(None, (*rows.notes, treatment.warning(rows, inverter))):
            click.echo(note, err=True)
        if raw:
            words = write_raw(inverter, rows, treatment, output, full, bulk)
        else:
            words = write_pictures(inverter, rows, treatment, output, full, bulk)
        encodes = not raw and inverter.encoder_backend is not None
    following = ("encode", bundle, output, "-o", "again.npy") if encodes else ("info", bundle)
    footer(f"{output}: {words}", command("deepsim", *following))


def write_pictures(
    inverter: Inverter, rows: FeatureRows, treatment: Treatment, output: Path, full: bool, bulk: Bulk
) -> str:
    """Write the image of every row that has none from an earlier run; return the words for what was done."""
    pictures = Pictures(output, rows.names, bulk, rows.inputs(), inverter.bundle.path)
    recipe = ("decode", *rows.recipe, full, *treatment.recipe, *identity(inverter))
    numbers = pictures.to_make(map(rows.version, range(len(rows))), recipe)
    done = _decode(inverter, rows, treatment, pictures, numbers, full, bulk)
    return bulk.outcome(done, "images", len(rows) - len(numbers))


def _decode(
    inverter: Inverter,
    rows: FeatureRows,
    treatment: Treatment,
    pictures: Pictures,
    numbers: Sequence[int],
    full: bool,
    bulk: Bulk,
) -> int:
    """Write the images of these rows; return of how many. Reading, computing and writing overlap."""
    done, before = 0, len(rows) - len(numbers)
    batches = overlapped(
        ready_batches(rows, treatment, numbers, inverter.max_batch, bulk),
        lambda batch: inverter.decode(batch.values, full=full),
        inverter.batches_at_once,
    )
    try:
        with (
            tqdm(total=len(numbers), unit="image", disable=None) as bar,
            bulk.going_on(lambda: before + done, len(rows)),
        ):
            for _ in pictures.save_all(_one_by_one(batches)):
                done += 1
                bar.update()
    finally:
        batches.close()
    return done


def _one_by_one(batches: Iterator[tuple[Ready, Pixels]]) -> Iterator[tuple[int, Pixels]]:
    for batch, images in batches:
        yield from zip(batch.numbers, images, strict=True)
