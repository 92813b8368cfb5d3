"""Read what ``deepsim evaluate`` wrote: figures with intervals, of bundles and of pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepsim.evaluate.figures.numbers import Numbers
from deepsim.runtime.errors import DataError

EVALUATION, KIND, SCHEMA = "evaluation.json", "deepsim evaluation", 1


@dataclass(frozen=True)
class Evaluation:
    """One evaluation: its photographs were measured by every method in it."""

    path: Path
    record: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path) -> Evaluation:
        """Read a file. Raises DataError where it is none of ``deepsim evaluate``, or of another schema."""
        try:
            record = json.loads(path.read_bytes())
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: not readable ({error}), expected what deepsim evaluate writes.") from error
        if not isinstance(record, dict) or record.get("kind") != KIND or not isinstance(record.get("methods"), list):
            raise DataError(f"{path}: not an evaluation, expected what deepsim evaluate writes.")
        if record.get("schema") != SCHEMA:
            raise DataError(f"{path}: schema {record.get('schema')!r}, expected {SCHEMA}.")
        return cls(path, record)

    @property
    def methods(self) -> list[Mapping[str, Any]]:
        """Return the record of each method."""
        return list(self.record["methods"])

    def numbers(self, method: Mapping[str, Any]) -> Numbers:
        """Return a method's figures: errors in the image and in the space that it inverts, and sharpness."""
        try:
            figures = method["figures"]
            inverted = figures["spaces"].get(method["space"], {})
            return Numbers(
                image=_value(figures["image"].get("normalized_error")),
                feature=_value(inverted.get("normalized_error")),
                sharpness=_value(figures["sharpness"].get("gradient_energy")),
                photographs=int(figures["photographs"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"{self.path}: a method without its figures ({error!r}). Evaluate again.") from error


def _value(figure: Mapping[str, Any] | None) -> float | None:
    value = None if figure is None else figure["value"]
    return None if value is None else float(value)
