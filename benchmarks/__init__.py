"""Benchmarks: contenders verified against each other, then timed in alternation, beside the roofs of the machine."""

from deepsim.benchmarks.interleaved import interleave
from deepsim.benchmarks.timing import ITERATIONS, ROUNDS, WHATS, Contender, Tolerance, compare, measure

__all__ = [
    "ITERATIONS",
    "ROUNDS",
    "WHATS",
    "Contender",
    "Tolerance",
    "compare",
    "interleave",
    "measure",
]
