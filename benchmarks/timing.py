"""Verify contenders against the first, then time them in alternating rounds, from host memory to host memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from deepsim.runtime.errors import NumericError
from deepsim.runtime.inputs import whole_number
from deepsim.runtime.inverter import Inverter
from deepsim.runtime.manifest import Manifest
from deepsim.runtime.pixels import Pixels

WHATS = ("encode", "decode", "reencode")
ITERATIONS = 1  # of one call to reencode
ROUNDS = 5
Progress = Callable[[str], None]
Refuse = Callable[[str, NumericError], None]


class Contender(Protocol):
    """What is timed: an :class:`~deepsim.runtime.inverter.Inverter`, or anything with these three of its methods."""

    def encode(self, images: Any, /) -> NDArray[np.float32]:
        """Compute the features of uint8 RGB (N, side, side, 3)."""

    def decode(self, features: Any, /, *, full: bool) -> Pixels:
        """Generate images from features, whole ones if ``full``, else the part that training scored."""

    def reencode(self, images: Any, iterations: int, keep: tuple[int, ...], /) -> Pixels:
        """Reconstruct images again and again."""


class Tolerance(NamedTuple):
    """How far a contender may be from the first."""

    features: float = 1e-3  # relative to the largest feature
    grey_levels: int = 1  # two fp32 programs: rounding may differ by one level,
    different: float = 0.01  # and rarely does: the share of values


@dataclass(frozen=True)
class Inputs:
    """What a bundle's networks are timed on: photographs of ``side`` pixels, or drawn features of ``feature_shape``.

    ``feature_shape`` is given where the bundle has no encoder; features are drawn from a half-normal distribution then.
    Where it has no generator, it does not decode.
    """

    side: int
    feature_shape: tuple[int, ...] | None = None
    decodes: bool = True

    @classmethod
    def of(cls, manifest: Manifest) -> Inputs:
        """Return what fits a bundle."""
        shape = manifest.feature_shape if manifest.encoder is None else None
        return cls(manifest.geometry.side, shape, manifest.generator is not None)

    @property
    def whats(self) -> tuple[str, ...]:
        """List what can be timed: all of :data:`WHATS`, or what the bundle's only network does."""
        if not self.decodes:
            return ("encode",)
        return WHATS if self.feature_shape is None else ("decode",)

    def draw_features(self, count: int) -> NDArray[np.float32] | None:
        """Draw features, float32 (count, *feature_shape); None where an encoder computes them."""
        return None if self.feature_shape is None else half_normal((count, *self.feature_shape))


def half_normal(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Draw |x|, x standard normal, float32 of ``shape``: features after a ReLU, as far as their work goes."""
    return np.abs(np.random.default_rng(0).standard_normal(shape, np.float32))


def measure(
    inverter: Inverter,
    batches: Sequence[int] = (1, 8),
    seconds: float = 2.0,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Time encode, decode and reencode at each batch size for about ``seconds`` each.

    Returns rows {"what", "batch", "images_per_second", "p50_ms", "p95_ms", "p99_ms", "repeats"}: the median
    throughput of five rounds (a re-encoded image counts once per iteration) and percentiles over all calls, from host
    memory to host memory. ``progress`` is told what is timed next.
    """
    rows = compare({"": inverter}, Inputs.of(inverter.bundle.manifest), batches, seconds, progress)
    return [{key: value for key, value in row.items() if key not in ("backend", "agreement")} for row in rows]


def compare(
    contenders: Mapping[str, Contender],
    inputs: Inputs,
    batches: Sequence[int] = (1, 8),
    seconds: float = 2.0,
    progress: Progress | None = None,
    tolerances: Mapping[str, Tolerance] | None = None,
    full: bool = False,
    refuse: Refuse | None = None,
) -> list[dict[str, Any]]:
    """Time several contenders on the same bundle, alternating between them; rows as in :func:`measure`, and two keys.

    ``inputs`` are those of the bundle; without an encoder only decode is timed.
    "backend" is the contender's name, "agreement" how far its result is from the first's. ``seconds`` is for each row.
    A contender whose result is further off than ``tolerances`` allow is not timed on that row: ``refuse`` is told its
    name and a NumericError, which it may raise; without ``refuse`` the error is raised.
    """
    for batch in batches:
        whole_number("batch", batch, 1)
    rows = []
    for what in inputs.whats:
        for batch in batches:
            calls = bind_calls(contenders, what, batch, full, inputs)
            agreement = verify(calls, tolerances or {}, refuse or refuse_by_raising)
            agreeing = {name: calls[name] for name in agreement}
            rounds = _time(agreeing, seconds, progress or (lambda name: None), f"{what} x {batch}")
            images = batch * (ITERATIONS if what == "reencode" else 1)
            for name in agreeing:
                row = {"backend": name, "what": what, "batch": batch, **_row(rounds[name], images)}
                rows.append({**row, "agreement": agreement[name]})
    return rows


def photographs(count: int, side: int) -> Pixels:
    """Return smooth random images (count, side, side, 3).

    Unlike white noise they excite an encoder as photographs do.
    """
    coarse = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    block = -(-side // 8)  # rounded up
    return np.ascontiguousarray(coarse.repeat(block, axis=1).repeat(block, axis=2)[:, :side, :side])


def bind_calls(
    contenders: Mapping[str, Contender], what: str, batch: int, full: bool, inputs: Inputs
) -> dict[str, Callable[[], NDArray[Any]]]:
    """Bind what is timed to its input, the same for all: photographs, or the first contender's features of them."""
    photos = photographs(batch, inputs.side)
    features = None
    if what == "decode":
        drawn = inputs.draw_features(batch)
        features = next(iter(contenders.values())).encode(photos) if drawn is None else drawn

    def call(contender: Contender) -> NDArray[Any]:
        if what == "encode":
            return contender.encode(photos)
        if what == "decode":
            return contender.decode(features, full=full)
        return contender.reencode(photos, ITERATIONS, (ITERATIONS,))

    return {name: partial(call, contender) for name, contender in contenders.items()}


def refuse_by_raising(name: str, error: NumericError) -> None:
    """Raise what is wrong with the contender ``name``."""
    raise error


def verify(
    calls: Mapping[str, Callable[[], NDArray[Any]]], tolerances: Mapping[str, Tolerance], refuse: Refuse
) -> dict[str, dict[str, float]]:
    """Return how far each contender is from the first, of those near enough; tell ``refuse`` of the others."""
    results = {name: call() for name, call in calls.items()}
    first = next(iter(results))
    agreement = {}
    for name, result in results.items():
        found = _difference(result, results[first])
        allowed = tolerances.get(name, Tolerance())._asdict()
        wrong = [what for what, value in found.items() if not value <= allowed[what]]
        if wrong:
            what = wrong[0]
            off = f"{found[what]:.3g} ({what.replace('_', ' ')}), expected at most {allowed[what]:g}"
            refuse(name, NumericError(f"{name}: differs from {first} by {off}. It was not timed; leave it out."))
        else:
            agreement[name] = found
    return agreement


def _difference(result: NDArray[Any], wanted: NDArray[Any]) -> dict[str, float]:
    if result.shape != wanted.shape or result.dtype != wanted.dtype:
        return {"features" if wanted.dtype.kind == "f" else "grey_levels": float("inf")}
    if wanted.dtype.kind == "f":
        return {"features": float(np.abs(result - wanted).max() / max(np.abs(wanted).max(), 1e-30))}
    levels = np.abs(result.astype(np.int16) - wanted)
    return {"grey_levels": int(levels.max()), "different": float(np.mean(levels > 0))}


def _time(
    calls: Mapping[str, Callable[[], object]], seconds: float, progress: Progress, label: str
) -> dict[str, list[list[float]]]:
    """Return, per name and round, the latency of every call in seconds; each round starts with a call not timed."""
    rounds: dict[str, list[list[float]]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            progress(f"{label} {name}".rstrip())
            call()
            rounds[name].append(time_calls(call, seconds / ROUNDS))
    return rounds


def time_calls(call: Callable[[], object], seconds: float, before: Callable[[], object] | None = None) -> list[float]:
    """Return the latency in seconds of the calls within ``seconds``, one at least; ``before`` is called before each."""
    latencies: list[float] = []
    end = time.perf_counter() + seconds
    while not latencies or time.perf_counter() < end:
        if before is not None:
            before()
        start = time.perf_counter()
        call()
        latencies.append(time.perf_counter() - start)
    return latencies


def _row(rounds: list[list[float]], images: int) -> dict[str, Any]:
    latencies = np.concatenate(rounds) * 1000
    p50, p95, p99 = (float(value) for value in np.percentile(latencies, (50, 95, 99)))
    throughput = median(images * len(part) / sum(part) for part in rounds)
    return {"images_per_second": throughput, "p50_ms": p50, "p95_ms": p95, "p99_ms": p99, "repeats": len(latencies)}
