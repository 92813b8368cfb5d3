"""Walk through folder trees: the files with certain suffixes, sorted, each real folder once."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from deepsim.runtime.files import identity_of


def walk(folder: Path, suffixes: tuple[str, ...], apart_from: Path | None, left_out: Counter[str]) -> Iterator[str]:
    """Yield the paths of the files below ``folder`` whose names end in one of ``suffixes`` (any case), as they sort.

    Hidden files and folders do not count; of others ``left_out`` counts the suffixes. Symbolic links are followed; a
    folder that is reached twice is walked once, ``apart_from`` only where it is ``folder`` itself. Paths sort part by
    part. Only the names of one folder, and of those around it, are in memory. Raises OSError.
    """
    seen = set() if apart_from is None or identity_of(apart_from) == identity_of(folder) else {identity_of(apart_from)}
    return _walk(str(folder), suffixes, seen, left_out)


def _walk(
    folder: str, suffixes: tuple[str, ...], seen: set[tuple[int, int] | None], left_out: Counter[str]
) -> Iterator[str]:
    identity = identity_of(folder)
    if identity in seen:
        return
    seen.add(identity)
    entries = []
    with os.scandir(folder) as found:
        for entry in found:
            if entry.name.startswith("."):
                continue
            if _is_folder(entry):
                entries.append(entry.name + "/")
            elif entry.name.lower().endswith(suffixes):
                entries.append(entry.name)
            else:
                left_out[Path(entry.name).suffix.lower() or "without a suffix"] += 1
    entries.sort(key=lambda name: name.removesuffix("/"))
    for name in entries:
        path = os.path.join(folder, name.removesuffix("/"))  # noqa: PTH118  # no object for each of millions
        if name.endswith("/"):
            yield from _walk(path, suffixes, seen, left_out)
        else:
            yield path


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a loop of links
        return False
