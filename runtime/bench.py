"""Measure throughput and latency of loaded bundles: verify first, warm up, then time in alternating rounds."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from deepsim.runtime.backends.devices import find_gpus, num_threads
from deepsim.runtime.errors import NumericError
from deepsim.runtime.inputs import whole_number
from deepsim.runtime.inverter import Inverter
from deepsim.runtime.pixels import CROP, Pixels

WHATS = ("encode", "decode", "reencode")
ITERATIONS = 4  # of one call to reencode
ROUNDS = 5
MAX_GREY_LEVELS, MAX_DIFFERENT = 1, 0.01  # two fp32 backends: rounding may differ by one level, and rarely does
MAX_FEATURE_ERROR = 1e-3  # relative to the largest feature
PACKAGES = ("deepsim", "numpy", "pillow", "click", "tqdm", "onnxruntime", "onnxruntime-gpu", "torch", "safetensors")
Progress = Callable[[str], None]


def measure(
    inverter: Inverter,
    batches: Sequence[int] = (1, 8),
    seconds: float = 2.0,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Time encode, decode and reencode at each batch size for about ``seconds`` each.

    Returns rows {"what", "batch", "images_per_second", "p50_ms", "p95_ms", "p99_ms", "repeats"}: the median
    throughput of five rounds (a re-encoded image counts once per iteration, of which one call has four) and
    percentiles over all calls, from host memory to host memory. ``progress`` is told what is timed next.
    """
    rows = compare({"": inverter}, batches, seconds, progress)
    return [{key: value for key, value in row.items() if key != "backend"} for row in rows]


def compare(
    inverters: Mapping[str, Inverter],
    batches: Sequence[int] = (1, 8),
    seconds: float = 2.0,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Time several Inverters on the same bundle, alternating between them; rows as in :func:`measure`, plus "backend".

    ``seconds`` is for each row. Verify them with :func:`verify` before.
    """
    for batch in batches:
        whole_number("batch", batch, 1)
    rows = []
    for what in WHATS:
        for batch in batches:
            calls = {name: _call(inverter, what, batch) for name, inverter in inverters.items()}
            rounds = _time(calls, seconds, progress or (lambda name: None), f"{what} x {batch}")
            images = batch * (ITERATIONS if what == "reencode" else 1)
            rows += [{"backend": name, "what": what, "batch": batch, **_row(rounds[name], images)} for name in calls]
    return rows


def verify(inverters: Mapping[str, Inverter]) -> dict[str, dict[str, float]]:
    """Compare every Inverter's features and images with those of the first; return the largest differences.

    Per name: "feature_error" relative to the largest feature, "grey_levels" and the share "different" of values.
    Raises NumericError when they differ by more than the rounding of fp32 explains.
    """
    photos = _photographs(2)
    names = list(inverters)
    features = inverters[names[0]].encode(photos)
    images = inverters[names[0]].decode(features, full=True)
    found = {}
    for name in names:
        own = inverters[name].encode(photos)
        error = float(np.abs(own - features).max() / max(np.abs(features).max(), 1e-30))
        levels = np.abs(inverters[name].decode(features, full=True).astype(np.int16) - images)
        found[name] = {
            "feature_error": error,
            "grey_levels": int(levels.max()),
            "different": float(np.mean(levels > 0)),
        }
        if error > MAX_FEATURE_ERROR or levels.max() > MAX_GREY_LEVELS or found[name]["different"] > MAX_DIFFERENT:
            raise NumericError(
                f"{name}: differs from {names[0]} by {error:.1e} in features and {levels.max()} grey levels, expected "
                f"at most {MAX_FEATURE_ERROR:.0e} and {MAX_GREY_LEVELS}. Export the bundle again; nothing was timed."
            )
    return found


def environment() -> dict[str, Any]:
    """Describe this machine and the installed versions, as they belong beside every measured figure."""
    gpus = find_gpus()
    return {
        "versions": versions(PACKAGES),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": cpu_name(),
        "cpus": len(os.sched_getaffinity(0)),
        "threads": num_threads() or "default",
        "gpus": list(gpus.names),
        "cuda_driver": gpus.cuda,
    }


def versions(packages: Iterable[str]) -> dict[str, str | None]:
    """Map distribution names to their installed versions, None where one is not installed; imports none of them."""
    found: dict[str, str | None] = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found


def cpu_name() -> str:
    """Return the CPU's model name, or its architecture where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _photographs(count: int) -> Pixels:
    """Return smooth random images (count, 227, 227, 3): unlike white noise they excite an encoder as photographs do."""
    coarse = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    return np.ascontiguousarray(coarse.repeat(29, axis=1).repeat(29, axis=2)[:, :CROP, :CROP])


def _call(inverter: Inverter, what: str, batch: int) -> Callable[[], object]:
    photos = _photographs(batch)
    if what == "encode":
        return lambda: inverter.encode(photos)
    if what == "decode":
        features = inverter.encode(photos)
        return lambda: inverter.decode(features)
    return lambda: inverter.reencode(photos, ITERATIONS, (ITERATIONS,))


def _time(
    calls: Mapping[str, Callable[[], object]], seconds: float, progress: Progress, label: str
) -> dict[str, list[list[float]]]:
    """Return, per name and round, the latency of every call in seconds."""
    rounds: dict[str, list[list[float]]] = {name: [] for name in calls}
    for call in calls.values():  # warm up: buffers, thread pools, algorithm choice
        call()
        call()
    for _ in range(ROUNDS):
        for name, call in calls.items():
            progress(f"{label} {name}".rstrip())
            rounds[name].append(_one_round(call, seconds / ROUNDS))
    return rounds


def _one_round(call: Callable[[], object], seconds: float) -> list[float]:
    latencies: list[float] = []
    end = time.perf_counter() + seconds
    while not latencies or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        latencies.append(time.perf_counter() - start)
    return latencies


def _row(rounds: list[list[float]], images: int) -> dict[str, Any]:
    latencies = np.concatenate(rounds) * 1000
    p50, p95, p99 = (float(value) for value in np.percentile(latencies, (50, 95, 99)))
    throughput = median(images * len(part) / sum(part) for part in rounds)
    return {"images_per_second": throughput, "p50_ms": p50, "p95_ms": p95, "p99_ms": p99, "repeats": len(latencies)}
