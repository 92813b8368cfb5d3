"""Protobuf's wire format, as far as needed to cut large fields out of a message before the protobuf library reads it.

The library copies what it reads. A file of weights is nearly all arrays, so these are cut out first, and the library
reads the rest: the memory stays at the file and its weights. Source: "Encoding" of the protobuf documentation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

VARINT, FIXED64, BYTES, GROUP, END, FIXED32 = range(6)
_WIDTHS = {FIXED64: 8, FIXED32: 4}
_MOST = 1 << 17  # fields that are cut out of one message, so that small ones cannot fill the memory
_DEEPEST, _LONGEST_VARINT = 100, 10  # as the protobuf library


@dataclass(frozen=True)
class Field:
    """One field of a message: its number, wire type and content; numbers of fixed width may be a run of equal fields.

    ``count`` is the length of such a run, whose ``content`` then has the tags as well. ``start`` and ``end`` bound the
    whole field in its message.
    """

    number: int
    wire: int
    content: memoryview
    start: int
    end: int
    count: int = 1

    def length(self, width: int) -> int:
        """Count the numbers of ``width`` bytes. Raises ValueError for a length that is no multiple of it."""
        if self.wire != BYTES:
            return self.count
        if len(self.content) % width:
            raise ValueError(f"field {self.number}: {len(self.content)} bytes, expected a multiple of {width}")
        return len(self.content) // width

    def numbers(self, dtype: str) -> NDArray[np.floating]:
        """Return the numbers of a packed field or a run. Raises ValueError for a length that is no multiple of one."""
        width = np.dtype(dtype).itemsize
        if self.wire == BYTES:
            return np.frombuffer(self.content, dtype, self.length(width))
        if _WIDTHS.get(self.wire) != width:
            raise ValueError(f"field {self.number}: wire type {self.wire}, expected numbers of {width} bytes")
        tagged = len(self.content) // self.count
        rows = np.frombuffer(self.content, np.uint8).reshape(self.count, tagged)[:, tagged - width :]
        return np.ascontiguousarray(rows).view(dtype)[:, 0]


def split(message: memoryview, wanted: frozenset[int]) -> tuple[bytes, list[Field]]:
    """Return a message without the fields of the ``wanted`` numbers, and these fields in order.

    Raises ValueError where the message is cut or is no protobuf.
    """
    found: list[Field] = []
    kept: list[memoryview] = []
    begin = 0
    for field in fields(message, wanted):
        if field.number in wanted:
            if len(found) == _MOST:
                raise ValueError(f"more than {_MOST:,} fields {field.number}")
            found.append(field)
            kept.append(message[begin : field.start])
            begin = field.end
    return b"".join([*kept, message[begin:]]), found


def fields(message: memoryview, runs: frozenset[int] = frozenset()) -> Iterator[Field]:
    """Yield the fields of a message; those of the numbers ``runs`` that have a fixed width are joined.

    Raises ValueError where the message is cut or is no protobuf.
    """
    position = 0
    while position < len(message):
        tag, content = _varint(message, position)
        number, wire = tag >> 3, tag & 7
        if number == 0 or tag >> 32:
            raise ValueError(f"field number {number} at byte {position}")
        if wire == END:
            raise ValueError(f"a group ends at byte {position} that does not begin")
        begin, end = _extent(message, content, number, wire, 0)
        if wire in _WIDTHS and number in runs and content - position == 1:
            step = 1 + _WIDTHS[wire]
            count = _run(message[position:], step)
            end = position + count * step
            yield Field(number, wire, message[position:end], position, end, count)
        else:
            yield Field(number, wire, message[begin:end], position, end)
        position = end


def _run(message: memoryview, step: int) -> int:
    """Count the records of ``step`` bytes that begin with the same tag, looked for in growing blocks."""
    tags = np.frombuffer(message, np.uint8)[: len(message) // step * step : step]
    count, block = 0, 16
    while count < len(tags):
        differing = np.flatnonzero(tags[count : count + block] != tags[0])
        if len(differing):
            return count + int(differing[0])
        count, block = min(count + block, len(tags)), block * 2
    return count


def _extent(message: memoryview, position: int, number: int, wire: int, depth: int) -> tuple[int, int]:
    """Return where a field's content begins and where the field ends."""
    if wire == VARINT:
        return position, _varint(message, position)[1]
    if wire in _WIDTHS:
        begin, end = position, position + _WIDTHS[wire]
    elif wire == BYTES:
        length, begin = _varint(message, position)
        end = begin + length
    elif wire == GROUP:
        return position, _end_of_group(message, position, number, depth + 1)
    else:
        raise ValueError(f"wire type {wire} of field {number} at byte {position}")
    if end > len(message):
        raise ValueError(f"field {number} needs {end - len(message)} more bytes than there are")
    return begin, end


def _end_of_group(message: memoryview, position: int, number: int, depth: int) -> int:
    if depth > _DEEPEST:
        raise ValueError(f"groups nested more than {_DEEPEST} deep")
    while position < len(message):
        tag, position = _varint(message, position)
        if tag & 7 == END:
            if tag >> 3 != number:
                raise ValueError(f"group {number} ends as {tag >> 3}")
            return position
        if tag >> 3 == 0 or tag >> 32:
            raise ValueError(f"field number {tag >> 3} in group {number}")
        position = _extent(message, position, tag >> 3, tag & 7, depth)[1]
    raise ValueError(f"group {number} does not end")


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for index, byte in enumerate(message[position : position + _LONGEST_VARINT]):
        value |= (byte & 127) << 7 * index
        if byte < 128:
            return value, position + index + 1
    raise ValueError(f"a number that does not end at byte {position}")
