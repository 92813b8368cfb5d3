"""The command ``decode``: features of any program's files to images."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from deepsim.runtime.cli.bulk import Bulk, Pictures, bulk_options, identity
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
from deepsim.runtime.cli.treatment import Treatment, TreatmentOptions, treatment_options
from deepsim.runtime.dataset import Photograph
from deepsim.runtime.errors import DataError, UsageError
from deepsim.runtime.features.rows import FeatureRows, open_rows
from deepsim.runtime.features.trees import Selection
from deepsim.runtime.inputs import feature_rows
from deepsim.runtime.inverter import Inverter
from deepsim.runtime.pixels import Pixels
from deepsim.runtime.prefetch import overlapped


@dataclass(frozen=True)
class Ready:
    """Rows to decode together: their numbers, and float32 (n, *feature_shape)."""

    numbers: list[int]
    values: NDArray[np.float32]


@click.command(
    epilog=examples(
        "deepsim decode fc6.deepsim features.npy -o images",
        "deepsim decode fc6.deepsim decoded.mat --key features --axes CN -o images --full",
        "deepsim decode norm2.deepsim matconvnet.mat --axes HWCN -o images",
        "deepsim decode fc6.deepsim decoded/ --subject S1 --roi VC -o images",
    )
)
@bundle_argument
@click.argument("features", type=GivenPath(path_type=Path))
@output_option("Folder for the PNG images, named after the photographs where the file has names.")
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
    check_folder(output)
    selection = Selection(layer, subject, roi, fold)
    if not features.exists():
        raise DataError(f"{features}: no such file or folder, expected features.")
    with open_inverter(bundle, **where) as inverter:
        treatment = asked.open(inverter)
        rows = open_rows(features, inverter.feature_shape, inverter.layer, key, axes, selection)
        for note in filter(None, (*rows.notes, treatment.warning(rows, inverter))):
            click.echo(note, err=True)
        pictures = Pictures(output, rows.names, bulk, rows.inputs(), bundle)
        recipe = ("decode", *rows.recipe, full, *treatment.recipe, *identity(inverter))
        numbers = pictures.to_make(map(rows.version, range(len(rows))), recipe)
        done = _decode(inverter, rows, treatment, pictures, numbers, full, bulk)
    before = len(rows) - len(numbers)
    following = command("deepsim", "info", bundle)
    if inverter.encoder_backend is not None:
        following = command("deepsim", "encode", bundle, output, "-o", "again.npy")
    footer(f"{output}: {bulk.outcome(done, 'images', before)}", following)


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
        _ready(rows, treatment, numbers, inverter.max_batch, bulk),
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


def _ready(
    rows: FeatureRows, treatment: Treatment, numbers: Sequence[int], size: int, bulk: Bulk
) -> Generator[Ready, None, None]:
    """Read rows in batches of ``size``.

    With "stop" a row that cannot be used ends it, after the batch of those before it; with "skip" it is left out.
    """
    met: list[int] = []
    values: list[NDArray[np.float32]] = []
    try:
        for number, found in rows.read(numbers):
            try:
                values.append(_usable(found, treatment, rows, number))
                met.append(number)
            except DataError as error:
                if bulk.on_error == "stop":
                    raise
                bulk.report(Photograph(number, rows.path), error)
            if len(met) == size:
                yield Ready(met, np.stack(values))
                met, values = [], []
    except DataError:
        if met:
            yield Ready(met, np.stack(values))
        raise
    if met:
        yield Ready(met, np.stack(values))


def _usable(
    found: NDArray[Any] | DataError, treatment: Treatment, rows: FeatureRows, number: int
) -> NDArray[np.float32]:
    """Return a row, treated, as float32. Raises its error, and DataError when it is not finite."""
    if isinstance(found, DataError):
        raise found
    row = found.astype(np.float32) if found.dtype.kind in "iu" else found
    subject = f"{rows.path}, row {number}"
    return feature_rows(treatment.apply(row, subject), subject)
