"""Benchmarks: contenders verified against each other, then timed in alternation, beside the roofs of the machine."""

from deepsim.runtime.bench.interleaved import interleave
from deepsim.runtime.bench.machine import cpu_name, environment, versions
from deepsim.runtime.bench.timing import ITERATIONS, ROUNDS, WHATS, Contender, Tolerance, compare, measure

__all__ = [
    "ITERATIONS",
    "ROUNDS",
    "WHATS",
    "Contender",
    "Tolerance",
    "compare",
    "cpu_name",
    "environment",
    "interleave",
    "measure",
    "versions",
]
