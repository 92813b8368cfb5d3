"""What is asked of the backend cuda, figure by figure, beside what a run measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deepsim.benchmarks.gpu.checks import TIMES_TORCH
from deepsim.benchmarks.gpu.timing import COMPILED, LOOP, OWN

LAYER, BATCH = "fc6", 256  # the generator and the batch that throughput is asked of
ROOF_SHARE, DECODE_RATIO, LOOP_RATIO, LATENCY_US = 0.60, 2.0, 2.5, 80.0
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Figure:
    """One figure: ``measured`` is None where this run has none."""

    name: str
    measured: float | None
    asked: float
    least: bool  # asked at least; else at most
    form: str  # how both are written
    bound: bool = False  # who is to be beaten did not take part whole: only a miss is certain

    @property
    def met(self) -> bool | None:
        """Tell whether what is asked was reached; None without a measurement."""
        if self.measured is None:
            return None
        reached = self.measured >= self.asked if self.least else self.measured <= self.asked
        return None if reached and self.bound else reached

    def words(self) -> tuple[str, str, str, str]:
        """Return name, measured, asked and verdict."""
        measured = "not measured" if self.measured is None else self.form.format(self.measured)
        asked = f"at {'least' if self.least else 'most'} {self.form.format(self.asked)}"
        return self.name, measured, asked, {True: "met", False: "missed", None: "-"}[self.met]


def figures(generators: Mapping[str, Mapping[str, Any]]) -> list[Figure]:
    """Return every figure that is asked, from the records of the generators that were measured."""
    rows = generators.get(LAYER, {}).get("rows", [])
    decode = _row(rows, "decode", BATCH, OWN)
    first = _row(rows, "decode", 1, OWN)
    whole = f"{LAYER} generator, batch {BATCH}"
    return [
        Figure(
            f"{whole}: share of its roof", None if decode is None else decode["roof_share"], ROOF_SHARE, True, "{:.0%}"
        ),
        _over_torch(whole, rows, "decode", DECODE_RATIO),
        _over_torch(f"{LAYER} re-encoded {LOOP} times, batch {BATCH}", rows, "reencode", LOOP_RATIO),
        Figure(
            f"{LAYER} generator, batch 1: latency",
            None if first is None else first["latency_us"],
            LATENCY_US,
            False,
            "{:.0f} us",
        ),
        Figure(
            "worst layer: error over that of PyTorch's fp16", _worst(generators, _steps), TIMES_TORCH, False, "{:.2f}x"
        ),
        Figure(
            "worst network: error over that of PyTorch's fp16",
            _worst(generators, _networks),
            TIMES_TORCH,
            False,
            "{:.2f}x",
        ),
    ]


def over_torch(rows: Sequence[Row], what: str, batch: int) -> float | None:
    """Return our images per second over those of PyTorch's fastest form; None where either is missing."""
    own = _row(rows, what, batch, OWN)
    torch = [
        row["images_per_second"]
        for row in rows
        if (row["what"], row["batch"]) == (what, batch) and row["backend"].startswith("torch")
    ]
    return own["images_per_second"] / max(torch) if own and torch else None


def _over_torch(whole: str, rows: Sequence[Row], what: str, asked: float) -> Figure:
    """Return the ratio to PyTorch's best form, and say so where torch.compile did not take part."""
    ratio, compiled = over_torch(rows, what, BATCH), _row(rows, what, BATCH, COMPILED) is not None
    name = f"{whole}: over the best form of PyTorch" + ("" if compiled or ratio is None else ", torch.compile left out")
    return Figure(name, ratio, asked, True, "{:.2f}x", bound=not compiled)


def _row(rows: Sequence[Row], what: str, batch: int, backend: str) -> Row | None:
    wanted = (what, batch, backend)
    return next((row for row in rows if (row["what"], row["batch"], row["backend"]) == wanted), None)


def _worst(
    generators: Mapping[str, Mapping[str, Any]], pairs: Callable[[Mapping[str, Any]], list[tuple[float, float]]]
) -> float | None:
    """Return the largest ratio of an error to PyTorch's; what both compute exactly counts not at all."""
    found = [pair for record in generators.values() for pair in pairs(record.get("checks", {}))]
    ratios = [ours / torch if torch else float("inf") for ours, torch in found if ours or torch]
    return max(ratios, default=None)


def _steps(checks: Mapping[str, Any]) -> list[tuple[float, float]]:
    return [(row["error"], row["torch_error"]) for row in checks.get("steps", ())]


def _networks(checks: Mapping[str, Any]) -> list[tuple[float, float]]:
    network = checks.get("network")
    return [(network["fp16"][name], network["torch_fp16"][name]) for name in network["fp16"]] if network else []
