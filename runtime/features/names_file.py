"""The file of names beside features whose format has no place for them: ``features.npy.names.csv``.

Its lines are ``index,name``, in the order of the rows, after a line that says so and has a fingerprint of the features,
so that names are never taken for those of other features. A file without a fingerprint is believed.
"""

from __future__ import annotations

import csv
import io
from array import array
from pathlib import Path
from typing import BinaryIO

from deepsim.runtime.errors import DataError
from deepsim.runtime.features.csv_file import open_text
from deepsim.runtime.features.records import INDEX, Labels, read_errors, text_of
from deepsim.runtime.files import sha256
from deepsim.runtime.names import Names

_HEADER = [INDEX, "name"]
_END_BYTES = 1 << 20


def beside(features: Path) -> Path:
    """Return the path of the names that belong to a feature file."""
    return features.with_name(f"{features.name}.names.csv")


def fingerprint(features: BinaryIO) -> str:
    """Return what tells a feature file from others: a hash of its size, its first and its last MiB."""
    size = features.seek(0, io.SEEK_END)
    features.seek(0)
    begin = features.read(_END_BYTES)
    features.seek(max(0, size - _END_BYTES))
    end = features.read(_END_BYTES)
    features.seek(0, io.SEEK_END)
    return f"of {sha256(b'%d' % size + begin + end)[:32]}"


def write(file: BinaryIO, labels: Labels, of: str) -> None:
    """Write the names and indices of rows, and the fingerprint of their features."""
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)  # names may hold line breaks
    writer.writerow([*_HEADER, of])
    writer.writerows(zip(labels.index or range(len(labels.names)), map(text_of, labels.names), strict=True))
    text.detach()  # flushes, and leaves the file open


def read(features: Path) -> Labels | None:
    """Return the names and indices of a feature file's rows; None without a file of them.

    Raises DataError when it is damaged or belongs to other features.
    """
    path = beside(features)
    if not path.is_file():
        return None
    names, index, header = Names(), array("q"), None
    with read_errors(path), open_text(path, newline="") as text:
        for line in filter(None, csv.reader(text)):
            if header is None and line[:2] == _HEADER:
                header = line
            elif header is None or len(line) != 2 or not _is_index(line[0]):
                header = None
                break
            else:
                index.append(int(line[0]))
                names.append(line[1])
    if header is None:
        raise DataError(f"{path}: expected lines 'index,name' after such a line. Remove it, or encode again.")
    with features.open("rb") as file:
        if len(header) > 2 and header[2] != fingerprint(file):
            raise DataError(f"{path}: names of other features than {features.name}. Remove it, or encode again.")
    return Labels(names, tuple(index))


def _is_index(cell: str) -> bool:
    return cell.isdecimal() and len(cell) < 19  # digits of 64 bits
