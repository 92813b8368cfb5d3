"""Features in .csv: a line of numbers per photograph, as NumPy, Excel (any language), MATLAB and R write them.

Separators are commas, semicolons, tabs or spaces; decimals a point, or a comma where it does not separate; a first
column may hold names. A header line is refused, as one of numbers could be taken for a photograph.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from deepsim.runtime.errors import DataError
from deepsim.runtime.features.records import BLOCK_BYTES, FeatureFile, Key, Labels, Rows, no_key
from deepsim.runtime.names import Names

_BLOCK = 1 << 20  # characters
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16's, which it begins with
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


@dataclass(frozen=True)
class _Table:
    """How the lines of a file are read: what stands between cells, and whether the first of them are names."""

    path: Path
    separator: str
    named: bool
    columns: int

    def parse(self, text: str) -> NDArray[np.float32]:
        """Return whole lines as rows. Raises ValueError."""
        numbers = self._with_points(text) if self._has_commas(text) else text
        return np.loadtxt(
            io.StringIO(numbers) if '"' in numbers else numbers.splitlines(),  # a line break may be in a name
            np.float32,
            delimiter=self.separator.strip(" ") or None,
            ndmin=2,
            comments=None,
            quotechar='"',
            usecols=range(1, self.columns) if self.named else None,
        )

    def names(self, text: str) -> Iterator[str]:
        """Yield the first column. Raises ValueError where lines have different numbers of cells."""
        for line in csv.reader(io.StringIO(text), delimiter=self.separator):
            if line and len(line) != self.columns:
                raise ValueError("lines of different lengths")
            if line:
                yield line[0]

    def _has_commas(self, text: str) -> bool:
        return self.separator != "," and "," in text

    def _with_points(self, text: str) -> str:
        """Return the text with decimal points for commas. Raises DataError where it has both."""
        if "." in text and not self.named:  # names have points
            raise DataError(f"{self.path}: numbers with both ',' and '.', expected one decimal mark.")
        return text.replace(",", ".")


class _Blocks:
    """The lines of a file, found and checked once, block by block, and parsed again when they are asked for."""

    def __init__(self, table: _Table, begin: int) -> None:
        self.table = table
        self.starts: list[int] = []  # where each block begins, as a text file tells it
        self.ends = [0]  # the count of rows before each
        self.names = Names()
        self.width = 0
        self._kept: dict[int, NDArray[np.float32]] = {}  # the first blocks, some megabytes of them
        with open_text(table.path) as text:
            text.seek(begin)
            while True:
                start, lines = text.tell(), _read_block(text)
                if not lines:
                    break
                if lines.strip():
                    self._add(start, lines)

    def cut(self, axis: int, start: int, stop: int) -> NDArray[np.float32]:
        """Return entries along an axis. Raises ValueError where the file has changed."""
        if axis:
            return self.cut(0, 0, self.ends[-1])[:, start:stop]
        found = np.empty((stop - start, self.width), np.float32)
        first = max(0, bisect_right(self.ends, start) - 1)
        for number in range(first, len(self.starts)):
            low, high = max(start, self.ends[number]), min(stop, self.ends[number + 1])
            if low >= high:
                break
            found[low - start : high - start] = self._block(number)[low - self.ends[number] : high - self.ends[number]]
        return found

    def _add(self, start: int, lines: str) -> None:
        if self.table.named:
            self.names.extend(self.table.names(lines))
        values, path = self.table.parse(lines), self.table.path
        if not self.starts and len(values) > 1 and values.shape[1] > 1 and _counts(values[0]):
            raise DataError(f"{path}: line 1 counts 0, 1, 2 ..., like a header of column numbers. Remove it.")
        if self.starts and values.shape[1] != self.width:
            raise ValueError(f"lines of {self.width} and of {values.shape[1]} numbers")
        self.width = values.shape[1]
        if self.ends[-1] * self.width * values.itemsize < BLOCK_BYTES:
            self._kept[len(self.starts)] = values
        self.starts.append(start)
        self.ends.append(self.ends[-1] + len(values))

    def _block(self, number: int) -> NDArray[np.float32]:
        if number not in self._kept:
            with open_text(self.table.path) as text:
                text.seek(self.starts[number])
                lines = _read_block(text)
            values = self.table.parse(lines) if lines.strip() else np.empty((0, 0), np.float32)
            if values.shape != (self.ends[number + 1] - self.ends[number], self.width):
                raise ValueError("changed since it was opened")
            return values
        return self._kept[number]


def read(path: Path, key: Key) -> FeatureFile:
    """Check all lines; they are parsed again when they are asked for. Raises DataError and ValueError."""
    no_key(path, key)
    with open_text(path) as text:
        begin = text.tell()
        first = text.readline()
        if first.lower().startswith("sep="):  # a line for Excel, which names the separator
            begin, first = text.tell(), text.readline()
        while first and not first.strip():
            begin, first = text.tell(), text.readline()
        first = _whole_line(text, first).rstrip("\n")
    if not first:
        raise DataError(f"{path}: empty, expected a line of numbers per photograph. Write it again.")
    separator = _separator(first)
    table = _Table(path, separator, _has_names(first, separator), len(_cells(first, separator)))
    blocks = _Blocks(table, begin)
    shape = (blocks.ends[-1], blocks.width)
    return FeatureFile(path, shape, np.dtype(np.float32), blocks.cut).labelled(Labels(blocks.names))


def write(file: BinaryIO, rows: Rows, labels: Labels) -> None:
    """Write a line per row, block by block."""
    for block in rows.blocks():
        np.savetxt(file, block.reshape(len(block), -1), fmt="%.9g", delimiter=",")  # 9 digits: exact for float32


def check(path: Path, shape: tuple[int, ...] | None) -> None:
    """Any size can be written."""


@contextmanager
def open_text(path: Path, newline: str | None = None) -> Iterator[io.TextIOWrapper]:
    """Open a text file, UTF-8 or what its byte-order mark says. Raises DataError when it is neither."""
    with path.open("rb") as file:
        start = file.read(4)
    encoding = next((name for mark, name in _MARKS.items() if start.startswith(mark)), "utf-8")
    try:
        with path.open(encoding=encoding, newline=newline) as text:
            yield text
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: not UTF-8 (byte {error.start}), expected UTF-8 text. Save it as CSV UTF-8."
        ) from error


def _read_block(text: io.TextIOWrapper) -> str:
    """Read about a megabyte of whole lines; a line break within quotation marks ends none."""
    return _whole_line(text, text.read(_BLOCK) + text.readline())


def _whole_line(text: io.TextIOWrapper, begin: str) -> str:
    """Return a text and what follows it up to the end of its last line."""
    lines, is_open = [begin], begin.count('"') % 2
    while is_open and (more := text.readline()):
        lines.append(more)
        is_open ^= more.count('"') % 2
    return "".join(lines)


def _counts(row: NDArray[np.float32]) -> bool:
    return bool((row == np.arange(len(row))).all())


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


def _cells(line: str, separator: str) -> list[str]:
    return line.split() if separator == " " else next(csv.reader(io.StringIO(line), delimiter=separator))


def _is_number(cell: str, separator: str) -> bool:
    try:
        float(cell if separator == "," else cell.replace(",", "."))
    except ValueError:
        return False
    return True
