"""Time a contender between another's calls in the same process, beside its time alone.

Threads of many libraries go on spinning on their CPUs for a while after a call. Whoever is called next shares these
CPUs with them, and is slower than alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

from deepsim.benchmarks.timing import (
    ROUNDS,
    Contender,
    Inputs,
    Progress,
    Refuse,
    Tolerance,
    bind_calls,
    refuse_by_raising,
    time_calls,
    verify,
)


def interleave(
    own: Mapping[str, Contender],
    others: Mapping[str, Contender],
    inputs: Inputs,
    batches: Sequence[int] = (1,),
    seconds: float = 2.0,
    progress: Progress | None = None,
    tolerances: Mapping[str, Tolerance] | None = None,
    full: bool = False,
    refuse: Refuse | None = None,
) -> list[dict[str, Any]]:
    """Time each of ``own`` alone, and between calls of each of ``others``, in alternating rounds.

    ``inputs`` are those of the bundle. Returns rows {"what", "batch", "backend", "between", "alone_ms", "between_ms",
    "ratio", "repeats"}: medians of the call's time, alone and right after a call of "between". "ratio" is the median,
    over the rounds, of alone / between: 1 where the other's calls cost nothing. Every result is verified first, as by
    :func:`~deepsim.benchmarks.timing.compare`.
    """
    if not own:  # nothing to compare with
        return []
    rows = []
    for what in inputs.whats:
        for batch in batches:
            calls = bind_calls({**own, **others}, what, batch, full, inputs)
            agreeing = verify(calls, tolerances or {}, refuse or refuse_by_raising)
            for name in own:
                for other in (each for each in others if each in agreeing):
                    (progress or (lambda label: None))(f"{what} x {batch} {name} between {other}")
                    figures = _figures(*_rounds(calls[name], calls[other], seconds))
                    rows.append({"what": what, "batch": batch, "backend": name, "between": other, **figures})
    return rows


def _rounds(own: Callable[[], object], other: Callable[[], object], seconds: float) -> tuple[list[list[float]], ...]:
    """Return the latencies of every round in seconds, alone and between the calls of the other."""
    alone: list[list[float]] = []
    between: list[list[float]] = []
    for _ in range(ROUNDS):
        own()
        alone.append(time_calls(own, seconds / ROUNDS / 2))
        other()
        own()
        between.append(time_calls(own, seconds / ROUNDS / 2, before=other))
    return alone, between


def _figures(alone: list[list[float]], between: list[list[float]]) -> dict[str, Any]:
    ratios = [median(first) / median(second) for first, second in zip(alone, between, strict=True)]
    return {
        "alone_ms": 1000 * median(map(median, alone)),
        "between_ms": 1000 * median(map(median, between)),
        "ratio": median(ratios),
        "repeats": sum(map(len, between)),
    }
