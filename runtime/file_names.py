"""Names of files made from names of photographs: plain, distinct, and short enough for any file system."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

from deepsim.runtime.images import SUFFIXES
from deepsim.runtime.names import Names

LONGEST = 120  # bytes of a stem: encrypted file systems take 143 in all, and a number and a suffix follow


class PathsIn(Sequence[Path]):
    """The paths of files in a folder, made when they are asked for: a path takes a kilobyte."""

    def __init__(self, folder: Path, names: Names) -> None:
        self.folder, self.names = folder, names

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, index: int) -> Path: ...
    @overload
    def __getitem__(self, index: slice) -> list[Path]: ...
    def __getitem__(self, index: int | slice) -> Path | list[Path]:
        if isinstance(index, slice):
            return [self.folder / name for name in self.names[index]]
        return self.folder / self.names[index]


def png_paths(folder: Path, names: Sequence[str], suffix: str = ".png") -> PathsIn:
    """Return one path ``folder/STEM.png`` per name, distinct also where stems are equal, and always in ``folder``.

    The stem is what follows the last ``/`` or, in a Windows path, the last backslash, without an image's suffix; an
    empty one becomes the name's number. File systems that fold case or compose accents see distinct names too.
    """
    stems = np.fromiter((_hash(_whole_stem(index, name)) for index, name in enumerate(names)), np.uint64, len(names))
    known, counts = np.unique(stems, return_counts=True)
    repeated = set(known[counts > 1].tolist())
    taken: set[int] = set()  # of what is repeated, and of names made from it
    numbers: Counter[str] = Counter()  # how many have had a stem
    files = Names()
    for index, name in enumerate(names):
        unique = stem = _whole_stem(index, name)
        if int(stems[index]) in repeated:
            while _hash(unique) in taken or (unique != stem and _is_in(known, _hash(unique))):
                numbers[_folded(stem)] += 1
                unique = f"{stem}_{numbers[_folded(stem)] + 1}"
            taken.add(_hash(unique))
        files.append(f"{unique}{suffix}")
    return PathsIn(folder, files)


def _whole_stem(index: int, name: str) -> str:
    """Return the stem of a name, not too long, or the name's number."""
    return cut_bytes(_stem(name), LONGEST) or f"{index:06d}"


def _hash(stem: str) -> int:
    """Return a number for what file systems see of a stem: a set of very many of them is small."""
    return int.from_bytes(blake2b(_folded(stem).encode(), digest_size=8).digest(), "big")


def _is_in(known: NDArray[np.uint64], value: int) -> bool:
    place = int(np.searchsorted(known, np.uint64(value)))
    return place < len(known) and int(known[place]) == value


def cut_bytes(text: str, length: int) -> str:
    """Return as much of a text's beginning as UTF-8 holds in ``length`` bytes, no character cut in two."""
    return text.encode()[:length].decode(errors="ignore")


def _stem(name: str) -> str:
    last = re.split(r"/|\\(?!x[0-9a-f]{2})", name.rstrip("/\\"))[-1]  # \xNN is a byte of a name that is not UTF-8
    whole, dot, suffix = last.rpartition(".")
    plain = whole if dot and f".{suffix}".lower() in SUFFIXES else last
    return re.sub(r"[^\w.-]", "_", plain).strip(".")


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
