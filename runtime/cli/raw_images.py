"""What ``decode --raw`` writes: images before they are clipped and rounded, in one file, row by row."""

from __future__ import annotations

from array import array
from contextlib import closing
from pathlib import Path

from tqdm import tqdm

from deepsim.runtime.cli.bulk import Bulk, check_inputs_stay, identity
from deepsim.runtime.cli.feature_batches import ready_batches
from deepsim.runtime.cli.options import check_absent
from deepsim.runtime.cli.treatment import Treatment
from deepsim.runtime.dataset import Photograph, Photographs
from deepsim.runtime.features import check_writable, output_files
from deepsim.runtime.features.rows import FeatureRows
from deepsim.runtime.inverter import Inverter
from deepsim.runtime.names import Names
from deepsim.runtime.partial import PartialFeatures
from deepsim.runtime.prefetch import overlapped

KEY = "images"  # the array of a .npz, .h5 or .mat file


def write_raw(inverter: Inverter, rows: FeatureRows, treatment: Treatment, output: Path, full: bool, bulk: Bulk) -> str:
    """Write float32 RGB (N, S, S, 3) of all rows, with their names; return the words for what was done.

    Finished rows are kept on disk, as those of ``encode``, until all are there.
    """
    side = inverter.full_image_size if full else inverter.image_size
    check_writable(output, (len(rows), side, side, 3))
    check_inputs_stay(output_files(output), rows.inputs(), inverter.bundle.path)
    check_absent(output_files(output), bulk.overwrite)
    recipe = repr((*rows.recipe, full, *treatment.recipe))
    job = {**dict(zip(("bundle", "backend"), identity(inverter), strict=True)), "images": recipe}
    every = Photographs(Names(rows.names))

    def version(row: Photograph) -> str:
        return rows.version(row.index)

    with PartialFeatures.open(output, (side, side, 3), job, bulk.resume, bulk.overwrite, version, KEY) as partial:
        todo = every.only(array("Q", (row.index for row in every if not partial.has(row))))
        done = _decode(inverter, rows, treatment, todo, partial, full, bulk)
        if bulk.left_out == len(rows):
            bulk.outcome(0, "images")  # raises
        count = partial.publish(every)
    return f"{bulk.outcome(done, 'raw images', len(rows) - len(todo))}, float32 {(count, side, side, 3)}"


def _decode(
    inverter: Inverter,
    rows: FeatureRows,
    treatment: Treatment,
    todo: Photographs,
    partial: PartialFeatures,
    full: bool,
    bulk: Bulk,
) -> int:
    """Add the images of these rows; return of how many."""
    done, before = 0, len(rows) - len(todo)
    batches = overlapped(
        ready_batches(rows, treatment, todo.numbers, inverter.max_batch, bulk),
        lambda batch: inverter.decode(batch.values, full=full, raw=True),
        inverter.batches_at_once,
    )
    with (
        closing(batches),
        tqdm(total=len(todo), unit="image", disable=None) as bar,
        bulk.going_on(lambda: before + done, len(rows)),
    ):
        for batch, images in batches:
            partial.add([Photograph(number, rows.names[number]) for number in batch.numbers], images)
            done += len(images)
            bar.update(len(images))
    return done
