"""Sparse matrices of features: every index checked, rows made dense when they are asked for."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepsim.runtime.errors import missing_extra
from deepsim.runtime.features.records import FeatureFile, Labels


def from_matrix(path: Path, values: Any, labels: Labels | None = None) -> FeatureFile:
    """Return a file whose array is a sparse matrix of SciPy's."""

    @cache
    def compressed(axis: int) -> Any:
        return values.tocsc() if axis else values.tocsr()

    def cut(axis: int, start: int, stop: int) -> NDArray[Any]:
        dense: NDArray[Any] = compressed(axis)[(slice(None),) * axis + (slice(start, stop),)].toarray()
        return dense

    return FeatureFile(path, values.shape, values.dtype, cut).labelled(labels)


def sparse_matrix(values: NDArray[Any], rows: NDArray[Any], ends: NDArray[Any], shape: tuple[int, int]) -> Any:
    """Return a matrix compressed by columns, every index checked. Raises ValueError."""
    try:
        from scipy import sparse
    except ImportError as error:
        raise missing_extra("scipy", "features") from error
    ends = ends.astype(np.int64)
    if len(ends) != shape[1] + 1 or ends[0] != 0 or (np.diff(ends) < 0).any():  # SciPy looks where ends[-1] > 0 only
        raise ValueError(f"a sparse matrix of shape {shape} whose columns do not follow each other")
    if ends[-1] > min(len(rows), len(values)):
        raise ValueError(f"a sparse matrix of shape {shape} with {len(ends)} ends of columns")
    entries = values[: ends[-1]], rows[: ends[-1]].astype(np.int64), ends
    matrix = sparse.csc_matrix(entries, shape=shape)
    matrix.check_format(full_check=True)  # else an index outside of the matrix writes outside of memory
    return matrix
