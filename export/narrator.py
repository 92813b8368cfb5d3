"""How an export tells what it is doing; imports nothing, so that the command line can build on it at once."""

from __future__ import annotations


class Narrator:
    """Receives the stages, a builder's steps and warnings of an export; this one is silent."""

    def stage(self, name: str) -> None:
        """Note that a stage begins."""

    def step(self, phase: str, done: int, steps: int) -> None:
        """Note a builder's progress within the stage."""

    def warn(self, message: str) -> None:
        """Note something that the user should know."""
