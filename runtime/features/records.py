"""What feature files are made of: rows that come block by block, their labels, and a file whose rows are read late."""

from __future__ import annotations

import csv
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from deepsim.runtime.errors import DataError, OutOfMemory, UsageError

KEY, NAMES, INDEX = "features", "names", "index"
BLOCK_BYTES = 16 << 20
_DAMAGE = (
    *(OSError, ValueError, TypeError, LookupError, ArithmeticError, EOFError, RuntimeError, SyntaxError),
    *(struct.error, zlib.error, zipfile.BadZipFile, NotImplementedError, AttributeError),
    *(csv.Error, tokenize.TokenError),
)


@dataclass(frozen=True)
class Preferred:
    """Names of the array to read where a file holds several, the best first; a file's only array needs no name."""

    names: tuple[str, ...]


Key: TypeAlias = str | Preferred | None  # the name of an array, or what chooses one


@dataclass(frozen=True)
class Labels:
    """What rows belong to: the photographs' names, and their places, from 0, in the list that was encoded."""

    names: Sequence[str] = ()
    index: Sequence[int] = ()


@dataclass(frozen=True)
class Rows:
    """Features to write: ``shape`` (N, ...), and ``blocks()``, which yields them as float32 (n, ...) in order.

    ``key`` is the array's name where a format has names.
    """

    shape: tuple[int, ...]
    blocks: Callable[[], Iterator[NDArray[np.float32]]]
    key: str = KEY

    @classmethod
    def of(cls, values: NDArray[np.float32]) -> Rows:
        """Return the rows of an array."""

        def blocks() -> Iterator[NDArray[np.float32]]:
            for start, stop in cuts(len(values), values[:1].nbytes):
                yield np.ascontiguousarray(values[start:stop], dtype="<f4")

        return cls(values.shape, blocks)

    def whole(self) -> NDArray[np.float32]:
        """Return all rows in one array."""
        found = np.empty(self.shape, np.float32)
        start = 0
        for block in self.blocks():
            found[start : start + len(block)] = block
            start += len(block)
        return found


@dataclass(frozen=True)
class FeatureFile:
    """An array of a feature file, in the file's own number type and order of axes; what it holds is read late.

    ``cut(axis, start, stop)`` reads entries ``start`` to ``stop`` along an axis. ``names`` and ``index`` are the
    photographs' where the file has them, ``key`` the array's where the file has names for arrays.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    cut: Callable[[int, int, int], NDArray[Any]]
    names: Sequence[str] | None = None
    index: Sequence[int] | None = None
    key: str | None = None

    @classmethod
    def of(cls, path: Path, values: NDArray[Any], labels: Labels | None = None) -> FeatureFile:
        """Return a file whose array is in memory already."""

        def cut(axis: int, start: int, stop: int) -> NDArray[Any]:
            return values[(slice(None),) * axis + (slice(start, stop),)]

        return cls(path, values.shape, values.dtype, cut).labelled(labels)

    @property
    def values(self) -> NDArray[Any]:
        """The whole array. Raises DataError when the file is damaged."""
        return self.part(0, 0, self.shape[0])

    def part(self, axis: int, start: int, stop: int) -> NDArray[Any]:
        """Read entries ``start`` to ``stop`` along an axis. Raises DataError when the file is damaged."""
        with read_errors(self.path):
            return self.cut(axis, start, stop)

    def labelled(self, labels: Labels | None, key: str | None = None) -> FeatureFile:
        """Return the same with the labels that a file has (None: none), and the name of its array."""
        known = labels or Labels()
        return replace(self, names=known.names or None, index=known.index or None, key=key or self.key)


def cuts(count: int, row_bytes: int) -> Iterator[tuple[int, int]]:
    """Yield the ends of blocks of at most 16 MiB, one row at least, that ``count`` rows are read and written in."""
    step = max(1, BLOCK_BYTES // max(1, row_bytes))
    for start in range(0, count, step):
        yield start, min(start + step, count)


@contextmanager
def read_errors(path: Path) -> Iterator[None]:
    """Turn whatever a missing or damaged file makes its reader raise into a DataError about it."""
    try:
        yield
    except (DataError, UsageError):
        raise
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file, expected features.") from error
    except MemoryError as error:
        raise OutOfMemory(f"{path}: not enough memory to read it. Split the file.") from error
    except _DAMAGE as error:
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise DataError(f"{path}: unreadable ({reason[:300]}), expected {path.suffix} features.") from error


def choose(path: Path, arrays: Sequence[str], key: Key, others: Sequence[str] = ()) -> str:
    """Return the name of the array to read, of those that a file holds; ``others`` are no numbers, but can be named."""
    if isinstance(key, Preferred):
        preferred = [name for name in key.names if name in arrays]
        if len(arrays) > 1 and preferred:
            return preferred[0]
        key = None
    if key is not None:
        if key not in (*arrays, *others):
            listed = ", ".join((*arrays, *others)) or "none"
            raise DataError(f"{path}: no array {key!r}, it holds {listed}. Name one with --key.")
        return key
    if len(arrays) != 1:
        listed = ", ".join(arrays) or ("none; it holds " + ", ".join(others) if others else "none")
        raise DataError(f"{path}: {len(arrays)} arrays ({listed}), expected one. Choose one with --key.")
    return arrays[0]


def no_key(path: Path, key: Key) -> None:
    """Raise UsageError when a key is given for a format whose only array has no name."""
    if isinstance(key, str):
        raise UsageError(f"{path}: --key {key}, but {path.suffix} holds one array without a name. Leave --key out.")


def text_of(name: str) -> str:
    r"""Return a name as text that any format holds: bytes of a path that are not UTF-8 become ``\xNN``."""
    try:
        text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # half of a surrogate pair
        text = name.encode("utf-8", "backslashreplace").decode("utf-8")
    text = text.replace("\0", r"\x00")
    return name if text == name else text  # one string for all who keep it
