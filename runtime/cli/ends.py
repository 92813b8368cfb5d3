"""The ends of an interpolation: photographs, or rows of feature files, written ``codes.npy@5``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepsim.runtime.errors import DataError, UsageError
from deepsim.runtime.features import SUFFIXES
from deepsim.runtime.features.rows import open_rows
from deepsim.runtime.inverter import Inverter


@dataclass(frozen=True)
class End:
    """One end: a photograph's file, or with ``is_row`` a feature file and the ``row`` in it (None: its only one)."""

    file: Path
    is_row: bool = False
    row: int | None = None

    @classmethod
    def of(cls, path: Path) -> End:
        """Read what a path means: a feature file, alone or before an ``@``, is no photograph.

        Raises UsageError where what follows the ``@`` is no whole number.
        """
        if path.suffix.lower() in SUFFIXES:
            return cls(path, is_row=True)
        name, at, number = path.name.rpartition("@")
        file = path.with_name(name) if name else path
        if not at or file.suffix.lower() not in SUFFIXES:
            return cls(path)
        if not (number.isascii() and number.isdigit()):
            raise UsageError(f"{path}: row {number!r}, expected a whole number from 0 after the @.")
        return cls(file, is_row=True, row=int(number))

    def read(self, inverter: Inverter) -> Path | NDArray[Any]:
        """Return the photograph's path, or the feature, float32 (*feature_shape).

        Raises UsageError for several rows without a number, DataError for one that is not there or not usable.
        """
        if not self.is_row:
            return self.file
        rows = open_rows(self.file, inverter.feature_shape, inverter.layer)
        if self.row is None and len(rows) != 1:
            raise UsageError(f"{self.file}: {len(rows)} rows, expected the number of one, such as {self.file}@0.")
        number = self.row or 0
        if number >= len(rows):
            raise DataError(f"{self.file}: {len(rows)} rows, expected one of 0 to {len(rows) - 1}.")
        feature: NDArray[np.float32] = rows.stack([number])[0]
        return feature
