"""Rows of features, treated and checked, in batches that are decoded together."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepsim.runtime.cli.bulk import Bulk
from deepsim.runtime.cli.treatment import Treatment
from deepsim.runtime.dataset import Photograph
from deepsim.runtime.errors import DataError
from deepsim.runtime.features.rows import FeatureRows
from deepsim.runtime.inputs import feature_rows


@dataclass(frozen=True)
class Ready:
    """Rows to decode together: their numbers, and float32 (n, *feature_shape)."""

    numbers: list[int]
    values: NDArray[np.float32]


def ready_batches(
    rows: FeatureRows, treatment: Treatment, numbers: Sequence[int], size: int, bulk: Bulk
) -> Generator[Ready, None, None]:
    """Read rows in batches of ``size``.

    With "stop" a row that cannot be used ends it, after the batch of those before it; with "skip" it is left out.
    """
    met: list[int] = []
    values: list[NDArray[np.float32]] = []
    try:
        for number, found in rows.read(numbers):
            try:
                values.append(_usable(found, treatment, rows, number))
                met.append(number)
            except DataError as error:
                if bulk.on_error == "stop":
                    raise
                bulk.report(Photograph(number, rows.path), error)
            if len(met) == size:
                yield Ready(met, np.stack(values))
                met, values = [], []
    except DataError:
        if met:
            yield Ready(met, np.stack(values))
        raise
    if met:
        yield Ready(met, np.stack(values))


def _usable(
    found: NDArray[Any] | DataError, treatment: Treatment, rows: FeatureRows, number: int
) -> NDArray[np.float32]:
    """Return a row, treated, as float32. Raises its error, and DataError when it is not finite."""
    if isinstance(found, DataError):
        raise found
    row = found.astype(np.float32) if found.dtype.kind in "iu" else found
    subject = rows.where(number)
    return feature_rows(treatment.apply(row, subject), subject)
