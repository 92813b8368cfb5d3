"""The command ``deepsim report``: measure a bundle on photographs and write one self-contained HTML page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deepsim.runtime.errors import DataError, UsageError

if TYPE_CHECKING:
    from deepsim.runtime.inverter import Inverter
    from deepsim.runtime.report.content import Content, Throughput
    from deepsim.runtime.report.run_folder import TrainingRun

BATCHES = (1, 8)  # batch sizes timed for the page


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--photos", required=True, type=click.Path(path_type=Path), help="Folder of held-out photographs.")
@click.option("--run", "run_folder", type=click.Path(path_type=Path), help="Training run, for curves and mean image.")
@click.option("--bench", "bench_file", type=click.Path(path_type=Path), help="Figures of deepsim bench --json.")
@click.option("-o", "--output", default="report.html", show_default=True, type=click.Path(path_type=Path))
@click.option("--overwrite", is_flag=True, help="Replace the page if it exists.")
@click.option("--backend", default="auto", show_default=True, help="Backend to run; see deepsim doctor.")
@click.option("--device", default="auto", show_default=True, help='"cpu", or the number of a GPU.')
@click.option("--limit", default=64, show_default=True, type=click.IntRange(1), help="Most photographs to measure.")
@click.option("--show", default=12, show_default=True, type=click.IntRange(1), help="Most photographs to picture.")
@click.option("--seconds", default=2.0, show_default=True, type=click.FloatRange(0), help="Time per rate; 0: none.")
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
    limit: int,
    show: int,
    seconds: float,
    as_json: bool,
) -> None:
    """Measure BUNDLE on held-out photographs and write one self-contained HTML page.

    The page holds reconstructions, errors against guesses that need no features, re-encoding, interpolation, training
    curves, throughput and provenance. It needs no network, no other file and no script.

    \b
    Example:
      deepsim report norm2.deepsim --photos held-out/ --run runs/norm2 -o report.html
    """
    from deepsim.runtime.files import write_atomic
    from deepsim.runtime.report.page import render
    from deepsim.runtime.report.run_folder import TrainingRun

    _check_output(output, overwrite)
    run = TrainingRun.open(run_folder) if run_folder else None
    bench = _read_bench(bench_file) if bench_file else None
    content = _measure(_open(bundle, backend, device), photos, limit, show, run, bench, seconds)
    page = render(content)
    write_atomic(output, page)
    click.echo(json.dumps(content.to_json(), indent=2, allow_nan=False) if as_json else _table(content))
    click.echo(f"wrote {output} ({len(page.encode()) / 1e6:.1f} MB): open it in any browser", err=True)


def _check_output(output: Path, overwrite: bool) -> None:
    if output.is_dir():
        raise UsageError(f"{output}: a folder, expected a file name. Choose another with -o.")
    if output.exists() and not overwrite:
        raise UsageError(f"{output}: exists already. Choose another name with -o, or pass --overwrite to replace it.")


def _open(bundle: Path, backend: str, device: str) -> Inverter:
    from deepsim.runtime.inverter import Inverter

    return Inverter(bundle, backend=backend, device=int(device) if device.isdigit() else device)


def _measure(
    inverter: Inverter,
    folder: Path,
    limit: int,
    show: int,
    run: TrainingRun | None,
    bench: Throughput | None,
    seconds: float,
) -> Content:
    """Read the photographs, run the inverter on them, time it, and gather what the page is drawn from."""
    from deepsim.runtime.images import find_images
    from deepsim.runtime.report.content import Content
    from deepsim.runtime.report.figures import choose, collect, read_photos

    found = find_images([folder])
    paths = choose(found, limit)
    names = [path.relative_to(folder).as_posix() if path != folder else path.name for path in paths]
    figures, pictures = collect(inverter, read_photos(paths), names, len(found), run.mean_image if run else None)
    if bench is None and seconds > 0:
        bench = _time(inverter, seconds)
    return Content(inverter.bundle.manifest, inverter.backend, figures, pictures, min(show, len(paths)), run, bench)


def _time(inverter: Inverter, seconds: float) -> Throughput:
    from deepsim.runtime.bench import measure
    from deepsim.runtime.report.content import Throughput
    from deepsim.runtime.report.machine import describe_machine

    rows = measure(inverter, batches=BATCHES, seconds=seconds)
    return Throughput(tuple(rows), describe_machine(inverter.backend, str(inverter.device)))


def _read_bench(path: Path) -> Throughput:
    """Read rows of figures, bare or under "rows", with the machine where the file tells."""
    from deepsim.runtime.report.content import Throughput

    try:
        record = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}: cannot be read ({error}), expected JSON. Write it with deepsim bench --json."
        ) from error
    rows = record.get("rows") if isinstance(record, dict) else record
    if not isinstance(rows, list) or not all(_is_row(row) for row in rows):
        raise DataError(f"{path}: no rows of throughput, expected a list. Write it with deepsim bench --json.")
    machine = record.get("machine") if isinstance(record, dict) else None
    told = {str(name): str(value) for name, value in machine.items()} if isinstance(machine, dict) else {}
    return Throughput(tuple(rows), told or {"Measured on": f"not recorded in {path.name}"})


def _is_row(row: Any) -> bool:
    needed = {"what", "batch", "images_per_second"}
    return isinstance(row, dict) and needed <= set(row) and isinstance(row["images_per_second"], (int, float))


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
