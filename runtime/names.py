"""Names of very many files or rows in little memory: one block of bytes instead of an object for each."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import overload


class Names(Sequence[str]):
    r"""A sequence of texts that takes their UTF-8 bytes and eight bytes more for each.

    A string of Python's takes 50 bytes more than its text, a path a kilobyte. Any text is kept, also the bytes of a
    path that are no UTF-8.

    >>> names = Names(["a.jpg", "caf\udce9.png"])
    >>> len(names), names[1] == "caf\udce9.png", list(names)[0]
    (2, True, 'a.jpg')
    """

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._bytes = bytearray()
        self._ends = array("Q")
        self.extend(texts)

    def append(self, text: str) -> None:
        """Add one text."""
        self._bytes += text.encode("utf-8", "surrogatepass")
        self._ends.append(len(self._bytes))

    def extend(self, texts: Iterable[str]) -> None:
        """Add texts in order."""
        for text in texts:
            self.append(text)

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        number = range(len(self._ends))[index]
        begin = self._ends[number - 1] if number else 0
        return self._bytes[begin : self._ends[number]].decode("utf-8", "surrogatepass")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, (Names, tuple, list)):
            return NotImplemented
        return len(self) == len(other) and all(mine == theirs for mine, theirs in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]  # it can grow

    def __repr__(self) -> str:
        return repr(tuple(self))

    def __iter__(self) -> Iterator[str]:
        begin = 0
        for end in self._ends:
            yield self._bytes[begin:end].decode("utf-8", "surrogatepass")
            begin = end
