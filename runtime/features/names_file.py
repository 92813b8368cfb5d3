"""The file of names beside features whose format has no place for them: ``features.npy.names.csv``.

Its lines are ``index,name``, in the order of the rows, after a line that says so.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

from deepsim.runtime.errors import DataError
from deepsim.runtime.features.csv_file import decode_text
from deepsim.runtime.features.records import INDEX, Labels, read_errors, text_of
from deepsim.runtime.files import write_atomic

_HEADER = [INDEX, "name"]


def beside(features: Path) -> Path:
    """Return the path of the names that belong to a feature file."""
    return features.with_name(f"{features.name}.names.csv")


def write(features: Path, labels: Labels) -> None:
    """Write the names and indices of a feature file's rows, atomically."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)  # names may hold line breaks
    writer.writerow(_HEADER)
    index = labels.index or range(len(labels.names))
    writer.writerows(zip(index, map(text_of, labels.names), strict=True))
    write_atomic(beside(features), text.getvalue())


def read(features: Path) -> Labels | None:
    """Return the names and indices of a feature file's rows; None without a file of them. Raises DataError."""
    path = beside(features)
    if not path.is_file():
        return None
    with read_errors(path):
        lines = [line for line in csv.reader(io.StringIO(decode_text(path))) if line]
    if not lines or lines[0] != _HEADER or any(len(line) != 2 or not _is_index(line[0]) for line in lines[1:]):
        raise DataError(f"{path}: expected lines 'index,name' after such a line. Remove it, or encode again.")
    return Labels(tuple(name for _, name in lines[1:]), tuple(int(index) for index, _ in lines[1:]))


def _is_index(cell: str) -> bool:
    return cell.isdecimal() and len(cell) < 19  # digits of 64 bits
