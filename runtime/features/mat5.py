"""MATLAB's format of versions 5 to 7: numbers, sparse matrices and texts, every size checked against the file's.

After MathWorks, "MAT-File Level 5 File Format". A reader of our own, as SciPy's crashes on some damaged files.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from deepsim.runtime.features.sparse import sparse_matrix
from deepsim.runtime.features.stored import StoredArray

_HEAD, _TAG = 128, 8  # bytes of a file's header, and of the tag (type, size) before an element's data
_BEGIN = 4096  # bytes that hold a variable's description; larger numeric variables are read late
_MAX_TEXTS = 64 << 20  # bytes of a compressed variable that holds no numbers
_MATRIX, _COMPRESSED, _UTF8, _UTF16, _UTF32 = 14, 15, 16, 17, 18
_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_TEXT = {1: "latin-1", 2: "latin-1", 4: "utf-16", _UTF8: "utf-8", _UTF16: "utf-16", _UTF32: "utf-32"}
NUMBERS = {
    "double": "f8",
    "single": "f4",
    **{f"{sign}int{8 * size}": f"{sign or 'i'}{size}" for size in (1, 2, 4, 8) for sign in ("", "u")},
}
_CLASSES = {
    **{1: "cell", 2: "struct", 3: "object", 4: "char", 5: "sparse"},
    **dict(enumerate(NUMBERS, start=6)),
    **{16: "function", 17: "opaque"},
}
_COMPLEX, _LOGICAL = 0x0800, 0x0200  # flags
_MAX_DIMENSIONS = 32


@dataclass(frozen=True)
class Variable:
    """A variable of a file: its name, its class in MATLAB ("double", "sparse", "cell" ...), and where it lies."""

    name: str
    kind: str
    offset: int
    size: int
    compressed: bool
    order: str  # "<" or ">"


def list_variables(path: Path) -> list[Variable]:
    """List a file's variables without reading their data.

    Raises NotImplementedError for version 7.3 and for version 4, ValueError for damage.
    """
    with path.open("rb") as file:
        order = _order(file.read(_HEAD))
        end = file.seek(0, 2)
        place, found = _HEAD, []
        while place + _TAG <= end:
            file.seek(place)
            kind, size = struct.unpack(f"{order}II", file.read(_TAG))
            if place + _TAG + size > end:
                raise ValueError(f"cut off: a variable of {size:,} bytes at {place:,}")
            if kind not in (_MATRIX, _COMPRESSED):
                raise ValueError(f"an element of type {kind} at {place:,}, no variable")
            found.append(_describe(file, place + _TAG, size, kind == _COMPRESSED, order))
            place += _TAG + size
        return found


def read_numbers(path: Path, variable: Variable) -> Any:
    """Return a numeric variable with MATLAB's axes, a sparse one as SciPy's csc_matrix. Raises ValueError."""
    flags, extents, _, parts = _matrix(_body(path, variable), variable.order)
    if flags & _COMPLEX:
        raise ValueError(f"{variable.name} is complex")
    if variable.kind == "sparse":
        return _sparse(extents, parts, variable, bool(flags & _LOGICAL))
    values = _values(_part(parts), variable.order).astype(NUMBERS[variable.kind], copy=False)
    if values.size != math.prod(extents):
        raise ValueError(f"{variable.name} has {values.size:,} values, its shape {extents} says otherwise")
    return values.reshape(extents, order="F")


def stored_numbers(path: Path, variable: Variable) -> StoredArray | None:
    """Return where a large numeric variable lies, as :func:`read_numbers` would read it.

    None where it is small, compressed, complex, sparse, or stored in another type than it has. Raises ValueError.
    """
    if variable.compressed or variable.kind not in NUMBERS or variable.size < _BEGIN:
        return None
    with path.open("rb") as file:
        file.seek(variable.offset)
        begin = memoryview(file.read(_BEGIN))
    flags, extents, _, _ = _matrix(begin, variable.order)
    place = 0
    for _ in range(3):  # flags, extents, name
        _, _, _, place = _tag(begin, variable.order, place)
    kind, size = struct.unpack_from(f"{variable.order}II", begin, place)
    if flags & _COMPLEX or _STORED.get(kind) != NUMBERS[variable.kind]:  # small whole numbers are stored as such
        return None
    dtype, begins = np.dtype(variable.order + _STORED[kind]), variable.offset + place + _TAG
    stored = StoredArray(path, begins, extents, dtype, fortran=True)
    stored.check(min(begins + size, variable.offset + variable.size))
    return stored


def read_texts(path: Path, variable: Variable) -> tuple[str, ...]:
    """Return the texts of a cell array, or the rows of a character matrix. Raises ValueError."""
    _, extents, _, parts = _matrix(_body(path, variable), variable.order)
    if variable.kind == "char":
        return _rows_of_text(extents, _part(parts), variable.order)
    texts: list[str] = []
    for kind, data in parts:
        if kind != _MATRIX:
            raise ValueError(f"{variable.name}: an entry of type {kind}, no text")
        inner = _matrix(data, variable.order) if len(data) else None
        texts += ["".join(_rows_of_text(inner[1], _part(inner[3]), variable.order))] if inner else [""]
    return tuple(texts)


def _order(head: bytes) -> str:
    """Return the byte order of a file from its header."""
    mark = head[126:128]
    if len(head) < _HEAD or mark not in (b"IM", b"MI"):
        raise NotImplementedError("no MATLAB file of version 5 or later")
    order = "<" if mark == b"IM" else ">"
    version = struct.unpack(f"{order}H", head[124:126])[0]
    if version != 0x0100:
        raise NotImplementedError(f"version {version >> 8} of MATLAB's format")
    return order


def _describe(file: BinaryIO, offset: int, size: int, compressed: bool, order: str) -> Variable:
    """Read a variable's flags and name; its data follow these."""
    begin = file.read(min(size, _BEGIN))
    if compressed:
        begin = zlib.decompressobj().decompress(begin, _BEGIN)[_TAG:]
    flags, _, name, _ = _matrix(memoryview(begin), order)
    kind = _CLASSES.get(flags & 0xFF)
    if kind is None:
        raise ValueError(f"variable {name!r} of class {flags & 0xFF}, which MATLAB does not have")
    return Variable(name, kind, offset, size, compressed, order)


def _body(path: Path, variable: Variable) -> memoryview:
    with path.open("rb") as file:
        file.seek(variable.offset)
        data = file.read(variable.size)
    return memoryview(_decompress(data, variable))[_TAG:] if variable.compressed else memoryview(data)


def _decompress(data: bytes, variable: Variable) -> bytes:
    """Return what was compressed, never much more than the variable's shape says. Raises ValueError."""
    stream, limit = zlib.decompressobj(), _MAX_TEXTS
    begin = stream.decompress(data, _BEGIN)
    if variable.kind in (*NUMBERS, "sparse"):
        _, extents, _, _ = _matrix(memoryview(begin)[_TAG:], variable.order)
        limit = _BEGIN + 16 * (math.prod(extents) + sum(extents))  # two parts of 8 bytes, or a value and its index
    found = begin + stream.decompress(stream.unconsumed_tail, max(1, limit))
    if not stream.eof:
        raise ValueError(f"{variable.name}: cut off, or more data than its shape says")
    return found


def _elements(body: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """Yield the type and data of each element of a variable; small ones have both in one tag."""
    place = 0
    while place + _TAG <= len(body):
        kind, begin, size, place = _tag(body, order, place)
        if begin + size > len(body):
            raise ValueError(f"cut off: an element of {size:,} bytes")
        yield kind, body[begin : begin + size]


def _part(parts: Iterator[tuple[int, memoryview]]) -> tuple[int, memoryview]:
    """Return the next element of a variable. Raises ValueError when there is none."""
    for part in parts:
        return part
    raise ValueError("cut off within a variable: an element is missing")


def _tag(body: memoryview, order: str, place: int) -> tuple[int, int, int, int]:
    """Return the type of the element at a place, where its data begin, their size, and where the next one is."""
    kind, size = struct.unpack_from(f"{order}II", body, place)
    if not kind >> 16:
        return kind, place + _TAG, size, place + _TAG + (size + 7) // 8 * 8
    if kind >> 16 > 4:  # small: the size in the upper half, the data in the tag itself
        raise ValueError(f"a small element of {kind >> 16} bytes")
    return kind & 0xFFFF, place + 4, kind >> 16, place + _TAG


def _matrix(body: memoryview, order: str) -> tuple[int, tuple[int, ...], str, Iterator[tuple[int, memoryview]]]:
    """Return a variable's flags with its class, its extents, its name, and what follows."""
    parts = _elements(body, order)
    flags = int(_values(_part(parts), order)[0])
    if _CLASSES.get(flags & 0xFF) == "opaque":  # such as a string: no extents
        return flags, (0, 0), bytes(_part(parts)[1]).decode("latin-1"), parts
    extents = tuple(int(extent) for extent in _values(_part(parts), order))
    name = bytes(_part(parts)[1]).decode("latin-1")
    if not 2 <= len(extents) <= _MAX_DIMENSIONS or min(extents) < 0:
        raise ValueError(f"variable {name!r} of shape {extents[:_MAX_DIMENSIONS]}")
    return flags, extents, name, parts


def _values(element: tuple[int, memoryview], order: str) -> NDArray[Any]:
    kind, data = element
    if kind not in _STORED:
        raise ValueError(f"numbers of type {kind}, expected one of {', '.join(map(str, _STORED))}")
    return np.frombuffer(data, order + _STORED[kind])


def _sparse(
    extents: tuple[int, ...], parts: Iterator[tuple[int, memoryview]], variable: Variable, logical: bool
) -> Any:
    indices, ends_of_columns, (kind, entries) = _part(parts), _part(parts), _part(parts)
    rows, ends = _values(indices, variable.order), _values(ends_of_columns, variable.order)
    if logical and len(entries) == ends[-1]:  # MATLAB calls these bytes doubles
        kind = 2
    values = _values((kind, entries), variable.order)
    return sparse_matrix(values, rows, ends, (extents[0], extents[1]))


def _rows_of_text(extents: tuple[int, ...], element: tuple[int, memoryview], order: str) -> tuple[str, ...]:
    """Return the rows of a character matrix, which is stored by columns."""
    kind, data = element
    if kind not in _TEXT:
        raise ValueError(f"text of type {kind}")
    encoding = _TEXT[kind] + (("-le" if order == "<" else "-be") if _TEXT[kind] in ("utf-16", "utf-32") else "")
    text = bytes(data).decode(encoding, "replace")
    if extents[0] <= 1:
        return (text,)
    if extents[0] > len(text):
        raise ValueError(f"{len(text)} characters in {extents[0]:,} rows")
    return tuple(text[row :: extents[0]].rstrip() for row in range(extents[0]))
