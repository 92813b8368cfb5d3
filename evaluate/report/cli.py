"""The command ``deepsim report``: measure a bundle on photographs and write one self-contained HTML page."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from deepsim.benchmarks import ROUNDS, WHATS, measure
from deepsim.benchmarks.throughput import Throughput
from deepsim.evaluate.report.content import Content
from deepsim.evaluate.report.figures import choose, collect, read_photos
from deepsim.evaluate.report.training_run import TrainingRun
from deepsim.runtime.cli.bulk import check_inputs_stay
from deepsim.runtime.cli.options import (
    backend_options,
    bundle_argument,
    check_absent,
    command,
    footer,
    open_inverter,
    overwrite_option,
)
from deepsim.runtime.errors import DataError, UsageError, missing_extra
from deepsim.runtime.files import reserved, write_atomic
from deepsim.runtime.geometry import Framing
from deepsim.runtime.images import find_images
from deepsim.runtime.inverter import Inverter
from deepsim.runtime.machine import environment

BATCHES = (1, 8)  # batch sizes timed for the page
PATH = click.Path(path_type=Path)


@click.command(
    epilog="\b\nExample:\n  deepsim report norm2.deepsim --photos held-out/ --run runs/norm2 -o report.html",
)
@bundle_argument
@click.option("--photos", required=True, type=PATH, help="Folder of photographs that training has not seen.")
@click.option("--run", "run_folder", type=PATH, help="Training run, for its curves and the mean training image.")
@click.option("--bench", "bench_file", type=PATH, help="Throughput from deepsim bench -o, instead of measuring it.")
@click.option("-o", "--output", default="report.html", show_default=True, type=PATH, help="Page to write.")
@overwrite_option
@backend_options
@click.option("--limit", default=64, show_default=True, type=click.IntRange(1), help="Most photographs to measure.")
@click.option("--show", default=12, show_default=True, type=click.IntRange(1), help="Most photographs to picture.")
@click.option(
    "--seconds", default=1.0, show_default=True, type=click.FloatRange(0, 600), help="Time for each rate; 0 for none."
)
@click.option("--json", "as_json", is_flag=True, help="Print every figure as JSON instead of a table.")
def report(
    bundle: Path,
    photos: Path,
    run_folder: Path | None,
    bench_file: Path | None,
    output: Path,
    overwrite: bool,
    backend: str,
    device: str,
    max_batch: int,
    limit: int,
    show: int,
    seconds: float,
    as_json: bool,
) -> None:
    """Measure BUNDLE on held-out photographs and write one self-contained HTML page.

    The page shows reconstructions, errors beside those of guesses that need no features, re-encoding, interpolation,
    training curves, throughput and provenance. It needs no network, no other file and no script.
    """
    for module in ("matplotlib", "jinja2"):
        if find_spec(module) is None:
            raise missing_extra(module, "evaluate")
    from deepsim.evaluate.report.page import render

    run = TrainingRun.open(run_folder) if run_folder else None
    files, found = run_folder.rglob("*") if run_folder else (), find_images([photos])
    check_inputs_stay([output], [*files, *filter(None, [bench_file]), *found], bundle)
    check_absent([output], overwrite)
    bench = _read_bench(bench_file) if bench_file else None
    with reserved(output), open_inverter(bundle, backend, device, max_batch) as inverter:
        _check_layer(inverter.layer, run, bench)
        mean = _mean_image(run, inverter.image_size)
        read = _photographs(photos, found, limit, inverter.geometry.framing)
        figures, pictures = collect(inverter, *read, mean)
        bench = _time(inverter, seconds) if bench is None and seconds > 0 else bench
        shown = min(show, len(figures.photos))
        content = Content(inverter.bundle.manifest, inverter.backend, figures, pictures, shown, run, bench)
        page = render(content)
        write_atomic(output, page)
    click.echo(json.dumps(content.to_json(), indent=2, allow_nan=False) if as_json else _table(content))
    footer(f"{output}: {len(page.encode()) / 1e6:.1f} MB", f"open {command(output)} in a browser")


def _photographs(folder: Path, found: list[Path], limit: int, framing: Framing) -> tuple[Any, list[str], int]:
    """Return pixels and names of the photographs to measure, of those found, and how many these are."""
    paths = choose(found, limit)
    names = [path.relative_to(folder).as_posix() if path != folder else path.name for path in paths]
    return read_photos(paths, framing), names, len(found)


def _check_layer(layer: str, run: TrainingRun | None, bench: Throughput | None) -> None:
    """Refuse to draw a run or figures of another layer beside a bundle."""
    told = {"--run": run.config.get("layer") if run else None, "--bench": bench.layer if bench else None}
    for option, other in told.items():
        if other not in (None, layer):
            raise UsageError(f"{option}: of layer {other}, expected the bundle's, {layer}.")


def _mean_image(run: TrainingRun | None, side: int) -> NDArray[np.uint8] | None:
    """Return the run's mean training image. Raises UsageError when it has not the bundle's side."""
    mean = run.mean_image if run else None
    if run is not None and mean is not None and mean.shape != (side, side, 3):
        found = f"photographs of {mean.shape[1]}x{mean.shape[0]} pixels"
        raise UsageError(f"--run {run.path}: {found}, expected the bundle's {side}x{side}.")
    return mean


def _time(inverter: Inverter, seconds: float) -> Throughput:
    with tqdm(total=ROUNDS * len(WHATS) * len(BATCHES), desc="timing", disable=None, leave=False) as bar:

        def progress(label: str) -> None:
            bar.set_postfix_str(label)
            bar.update()

        rows = measure(inverter, BATCHES, seconds, progress)
    return Throughput(tuple(rows), {inverter.backend: inverter.device}, environment())


def _read_bench(path: Path) -> Throughput:
    """Read what ``deepsim bench`` wrote: rows, and the machine they were measured on where the file tells."""
    try:
        record = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: unreadable ({error}), expected JSON. Write it with deepsim bench -o.") from error
    try:
        return Throughput.from_record(record if isinstance(record, dict) else {"rows": record})
    except ValueError as error:
        raise DataError(f"{path}: {error}. Write it with deepsim bench -o.") from error


def _table(content: Content) -> str:
    """Write the errors as a table for a terminal."""
    figures = content.figures
    lines = [f"{'image error':34}{'RMSE':>8}{'normalised':>12}{'margin':>9}"]
    for error in (figures.reconstruction, *figures.baselines):
        normalized = "-" if error.normalized is None else f"{100 * error.normalized:.1f} %"
        margin = "" if error.margin is None else f"{100 * error.margin:.1f} %"
        lines.append(f"{error.name:34}{error.rmse:8.1f}{normalized:>12}{margin:>9}".rstrip())
    if figures.feature_error is not None:
        lines.append(f"feature error, normalised: {100 * figures.feature_error:.1f} %")
    lines.append(f"re-encoding {figures.reencoding.verdict} ({len(figures.photos)} photographs)")
    return "\n".join(lines)
