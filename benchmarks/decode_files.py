"""How fast ``deepsim decode`` turns feature files into PNG files, beside decoding alone and writing alone.

``python -m deepsim.benchmarks.decode_files BUNDLE`` writes codes as .npy, as .mat of version 7.3 and as bdpy's tree of
one file each. It verifies every image of each kind, then times rounds of decoding alone, of writing PNG files alone and
of the whole command's work, in turn. Where the same CPUs decode at d and write at p images a second, no program is
faster than 1 / (1/d + 1/p); with a GPU beside them the limit is the smaller of d and p. Both ratios are printed, and
that of the CPU time, on which other work on the machine has less effect. At last a run is killed and resumed, in a
process whose peak memory is compared with that of a tenth of the codes.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from deepsim.runtime.checkout import process_environment
from deepsim.runtime.cli.bulk import Bulk, Pictures
from deepsim.runtime.cli.decode import write_pictures
from deepsim.runtime.cli.treatment import TreatmentOptions
from deepsim.runtime.errors import NumericError
from deepsim.runtime.features.mat73 import write_mat73
from deepsim.runtime.features.rows import open_rows
from deepsim.runtime.features.trees import Selection
from deepsim.runtime.images import read_image
from deepsim.runtime.inverter import Inverter
from deepsim.runtime.pixels import Pixels

KINDS = {
    "npy": ("codes.npy", Selection()),
    "mat73": ("codes.mat", Selection()),
    "tree": ("tree", Selection(subject="S1")),
}
_PROGRAM = (
    "import sys; from deepsim.runtime.cli import main\n"
    "try: main(sys.argv[1:], standalone_mode=False)\n"
    "finally: print([line for line in open('/proc/self/status') if line.startswith('VmHWM')][0].split()[1])"
)


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--count", type=click.IntRange(40), default=10_000, show_default=True, help="Codes in the files.")
@click.option("--timed", type=click.IntRange(20), default=400, show_default=True, help="Codes of a timed round.")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True, help="Rounds, whose median counts.")
@click.option("--max-batch", type=click.IntRange(1), default=16, show_default=True, help="Images computed at once.")
@click.option("--backend", default="auto", show_default=True, help="What runs the bundle.")
@click.option("--kind", "kinds", multiple=True, type=click.Choice(list(KINDS)), help="Only these files; repeatable.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(
    bundle: Path,
    count: int,
    timed: int,
    rounds: int,
    max_batch: int,
    backend: str,
    kinds: tuple[str, ...],
    as_json: bool,
) -> None:
    """Verify, then time deepsim decode on files of codes; then kill it, resume it, and look at its memory."""
    with tempfile.TemporaryDirectory() as name, Inverter(bundle, backend, max_batch=max_batch) as inverter:
        folder, chosen = Path(name), kinds or tuple(KINDS)
        figures: dict[str, Any] = {"backend": inverter.backend, "cpus": len(os.sched_getaffinity(0)), "kinds": {}}
        for size in (timed, count // 10, count):
            write_codes(folder / str(size), size, inverter.feature_shape, inverter.layer, chosen)
        for kind in chosen:
            verify(inverter, folder / str(timed), kind, folder / "verified")
        figures |= time_all(inverter, folder, timed, rounds, chosen)
        for kind in chosen:
            figures["kinds"][kind] |= kill_and_resume(bundle, backend, max_batch, folder, count, kind)
    click.echo(json.dumps(figures, indent=2) if as_json else "\n".join(_lines(figures)))


def write_codes(folder: Path, count: int, shape: tuple[int, ...], layer: str, kinds: tuple[str, ...]) -> None:
    """Write half-normal features in every kind of file, always the same."""
    folder.mkdir(exist_ok=True)
    draw = np.random.default_rng(0)
    values = np.lib.format.open_memmap(folder / "codes.npy", "w+", np.float32, (count, *shape))
    for row in range(count):
        values[row] = np.abs(draw.standard_normal(shape, np.float32)) * 3
        if "tree" in kinds:
            path = folder / "tree" / layer / "S1/VC" / f"Img{row:06d}.mat"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_mat73(path, "feat", values[row : row + 1])
    if "mat73" in kinds:
        write_mat73(folder / "codes.mat", "features", np.asarray(values))
    values.flush()


def run_decode(inverter: Inverter, folder: Path, kind: str, output: Path) -> None:
    """Do the work of ``deepsim decode`` within this process: read, compute, write."""
    file, selection = KINDS[kind]
    rows = open_rows(folder / file, inverter.feature_shape, inverter.layer, selection=selection)
    treatment = TreatmentOptions((), (), False, None).open(inverter)
    write_pictures(inverter, rows, treatment, output, False, Bulk(True, False, "stop"))


def verify(inverter: Inverter, folder: Path, kind: str, output: Path) -> None:
    """Compare every image with what the Inverter gives for its code. Raises NumericError where one differs."""
    run_decode(inverter, folder, kind, output)
    wanted = inverter.decode(np.load(folder / "codes.npy"))
    paths = sorted(output.iterdir())
    different = sum(
        bool(np.abs(read_image(path).astype(int) - image).max() > (inverter.backend != "cpu"))
        for path, image in zip(paths, wanted, strict=True)
    )
    if different:
        raise NumericError(f"{kind}: {different} of {len(paths)} images differ from Inverter.decode's, expected none.")
    shutil.rmtree(output)


def time_all(inverter: Inverter, folder: Path, count: int, rounds: int, kinds: tuple[str, ...]) -> dict[str, Any]:
    """Time decoding alone, writing alone and each kind of file, in turn; return medians of images a second."""
    codes = np.load(folder / str(count) / "codes.npy")
    images = inverter.decode(codes)
    calls: dict[str, Callable[[Path], None]] = {
        "decode": lambda output: deque(_decoded(inverter, codes), maxlen=0).clear(),
        "png": lambda output: _write(images, output, inverter),
        **{kind: partial(run_decode, inverter, folder / str(count), kind) for kind in kinds},
    }
    rates: dict[str, list[float]] = {name: [] for name in calls}
    work: dict[str, list[float]] = {name: [] for name in calls}  # seconds of CPUs for an image, by all threads
    for _ in range(rounds):
        for name, call in calls.items():
            begin, used = time.perf_counter(), time.process_time()
            call(folder / "timed")
            rates[name].append(count / (time.perf_counter() - begin))
            work[name].append((time.process_time() - used) / count)
            shutil.rmtree(folder / "timed", ignore_errors=True)
    shared = [1 / (1 / d + 1 / p) for d, p in zip(rates["decode"], rates["png"], strict=True)]
    apart = [min(pair) for pair in zip(rates["decode"], rates["png"], strict=True)]
    both = [sum(pair) for pair in zip(work["decode"], work["png"], strict=True)]
    of_kinds = {
        kind: {
            "images_per_s": median(rates[kind]),
            "of_shared_cpus": _median_ratio(rates[kind], shared),
            "of_the_slower": _median_ratio(rates[kind], apart),
            "of_cpu_time": _median_ratio(both, work[kind]),
        }
        for kind in kinds
    }
    return {
        "decode_per_s": median(rates["decode"]),
        "png_per_s": median(rates["png"]),
        "decode_cpu_ms": 1000 * median(work["decode"]),
        "png_cpu_ms": 1000 * median(work["png"]),
        "count": count,
        "rounds": rounds,
        "kinds": of_kinds,
    }


def _median_ratio(values: list[float], of: list[float]) -> float:
    return median(value / whole for value, whole in zip(values, of, strict=True))


def kill_and_resume(bundle: Path, backend: str, max_batch: int, folder: Path, count: int, kind: str) -> dict[str, Any]:
    """Kill a run of all codes halfway, resume it, and compare the peak memory with that of a tenth of the codes."""
    (file, selection), output = KINDS[kind], folder / "killed"
    where = ["--backend", backend, "--max-batch", str(max_batch), *(["--subject", "S1"] if selection.given else [])]

    def start(size: int, *more: str) -> subprocess.Popen[str]:
        words = ["decode", str(bundle), str(folder / str(size) / file), "-o", str(output), *where, *more]
        command = [sys.executable, "-P", "-c", _PROGRAM, *words]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
        return subprocess.Popen(command, env=process_environment(), **pipes)

    def peak(size: int, *more: str) -> float:
        return int(start(size, *more).communicate()[0].split()[-1]) / 1024

    def made() -> int:
        return len(list(output.glob("*.png")))

    tenth = peak(count // 10)
    shutil.rmtree(output)
    process = start(count)
    while process.poll() is None and made() < count // 2:
        time.sleep(0.05)
    process.kill()
    process.communicate()
    before = made()
    whole, after = peak(count, "--resume"), made()
    shutil.rmtree(output)
    if after != count or not 0 < before < count:
        raise NumericError(f"{kind}: {after} images, {before} of them before the kill, expected {count} in all.")
    return {"killed_at": before, "peak_mib_of_a_tenth": tenth, "peak_mib": whole}


def _decoded(inverter: Inverter, codes: NDArray[np.float32]) -> Iterator[Pixels]:
    for start in range(0, len(codes), inverter.max_batch):
        yield inverter.decode(codes[start : start + inverter.max_batch])


def _write(images: Pixels, output: Path, inverter: Inverter) -> None:
    pictures = Pictures(output, [""] * len(images), Bulk(True, False, "stop"), (), inverter.bundle.path)
    pictures.to_make(map(str, range(len(images))), ())
    deque(pictures.save_all(enumerate(images)), maxlen=0)


def _lines(figures: dict[str, Any]) -> Iterator[str]:
    yield f"{figures['backend']}, {figures['cpus']} CPUs, rounds of {figures['count']}, median of {figures['rounds']}"
    for name, label in (("decode", "decoding alone"), ("png", "PNG alone")):
        yield f"{label:14} {figures[f'{name}_per_s']:8.1f} images/s, {figures[f'{name}_cpu_ms']:.2f} ms of a CPU each"
    for kind, found in figures["kinds"].items():
        yield (
            f"{kind:14} {found['images_per_s']:8.1f} images/s, {found['of_shared_cpus']:.0%} of shared CPUs' limit, "
            f"{found['of_the_slower']:.0%} of the slower alone, {found['of_cpu_time']:.0%} of its CPU time; "
            f"killed at {found['killed_at']} and resumed; "
            f"peak {found['peak_mib']:.0f} MiB, of a tenth {found['peak_mib_of_a_tenth']:.0f} MiB"
        )


if __name__ == "__main__":
    main()
