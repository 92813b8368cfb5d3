"""Features in .csv: a line of numbers per photograph, as NumPy, Excel (any language), MATLAB and R write them.

Separators are commas, semicolons, tabs or spaces; decimals a point, or a comma where it does not separate; a first
column may hold names. A header line is refused, as one of numbers could be taken for a photograph.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from pathlib import Path
from typing import BinaryIO

import numpy as np

from deepsim.runtime.errors import DataError
from deepsim.runtime.features.records import FeatureFile, Labels, Rows, no_key

_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16's, which it begins with
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def read(path: Path, key: str | None) -> FeatureFile:
    """Read all lines as float32."""
    no_key(path, key)
    text = decode_text(path)
    if "\n" not in text:
        text = text.replace("\r", "\n")  # as old Macs end lines
    if text.lower().startswith("sep="):  # a line for Excel, which names the separator
        text = text.partition("\n")[2]
    first = next((line for line in text.splitlines() if line.strip()), None)
    if first is None:
        raise DataError(f"{path}: empty, expected a line of numbers per photograph. Write it again.")
    separator = _separator(first)
    names = _names(text, separator) if _has_names(first, separator) else ()
    numbers = _with_points(path, text, separator, bool(names))
    values = np.loadtxt(
        io.StringIO(numbers),
        np.float32,
        delimiter=separator.strip(" ") or None,
        ndmin=2,
        comments=None,
        quotechar='"',
        usecols=range(1, len(_cells(first, separator))) if names else None,
    )
    if len(values) > 1 and values.shape[1] > 1 and (values[0] == np.arange(values.shape[1])).all():
        raise DataError(f"{path}: line 1 counts 0, 1, 2 ..., like a header of column numbers. Remove it.")
    return FeatureFile.of(path, values, Labels(names))


def write(file: BinaryIO, rows: Rows, labels: Labels) -> None:
    """Write a line per row, block by block."""
    for block in rows.blocks():
        np.savetxt(file, block.reshape(len(block), -1), fmt="%.9g", delimiter=",")  # 9 digits: exact for float32


def check(path: Path, shape: tuple[int, ...] | None) -> None:
    """Any size can be written."""


def decode_text(path: Path) -> str:
    """Return a text file's content, UTF-8 or what its byte-order mark says. Raises DataError when it is neither."""
    data = path.read_bytes()
    encoding = next((name for mark, name in _MARKS.items() if data.startswith(mark)), "utf-8")
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: not UTF-8 (byte {error.start}), expected UTF-8 text. Save it as CSV UTF-8."
        ) from error


def _separator(first: str) -> str:
    """Return what stands between the cells of a line; with spaces between, a comma in each number is its point."""
    by_spaces = first.split()
    if len(by_spaces) > 1 and all(re.fullmatch(r"[-+]?\d*,\d+(e[-+]?\d+)?", cell, re.I) for cell in by_spaces):
        return " "
    return next((mark for mark in ";\t, " if mark in first.strip()), ",")


def _has_names(first: str, separator: str) -> bool:
    """Tell whether the first cell is text and all others are numbers. Raises ValueError for a header line."""
    numeric = [_is_number(cell, separator) for cell in _cells(first, separator)]
    if not numeric[0] and len(numeric) > 1 and all(numeric[1:]):
        if not _cells(first, separator)[0].strip():
            raise ValueError("line 1 begins with an empty cell, like a header; remove it and the column of row numbers")
        return True
    if not all(numeric):
        wrong = _cells(first, separator)[numeric.index(False)]
        raise ValueError(
            f"line 1 has {wrong[:40]!r}, a header or no number; expected numbers, names in the first column"
        )
    return False


def _names(text: str, separator: str) -> tuple[str, ...]:
    """Return the first column. Raises ValueError where lines have different numbers of cells."""
    lines = [line for line in csv.reader(io.StringIO(text), delimiter=separator) if line]
    if len({len(line) for line in lines}) > 1:
        raise ValueError("lines of different lengths")
    return tuple(line[0] for line in lines)


def _with_points(path: Path, text: str, separator: str, named: bool) -> str:
    """Return the text with decimal points, where commas are no separators. Raises DataError where it has both."""
    if separator == "," or "," not in text:
        return text
    if "." in text and not named:  # names have points
        raise DataError(f"{path}: numbers with both ',' and '.', expected one decimal mark.")
    return text.replace(",", ".")


def _cells(line: str, separator: str) -> list[str]:
    return line.split() if separator == " " else next(csv.reader([line], delimiter=separator))


def _is_number(cell: str, separator: str) -> bool:
    try:
        float(cell if separator == "," else cell.replace(",", "."))
    except ValueError:
        return False
    return True
