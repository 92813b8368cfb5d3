"""Folders of feature files: which files are meant, in which order, and the names of what they hold.

==================================================================================  =============================
``<root>/<layer>/<label>.mat``                                                      ``bdpy.dataform.Features``
``<root>/<layer>/<subject>/<roi>[/<fold>][/decoded_features]/<label>.mat``          ``DecodedFeatures`` of bdpy
``<type>/<net>/<layer>/<subject>/<roi>/<type>-<net>-...-<label>.mat``               the same, as on figshare
``<folder>/<name>.npy``                                                             one code each, as XDream writes
``<folder>/block003_thread000_code.mat``                                            variables ``codes`` and ``ids``
==================================================================================  =============================

Only the folders that lead to the files are listed. Pickles (``statistics.pkl``) are never opened.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from deepsim.runtime.errors import DataError, UsageError
from deepsim.runtime.names import Names

_BELOW = ("subject", "roi", "fold")  # the levels of folders below a layer's
_INNER = "decoded_features"  # a folder that some versions put around the files
_OTHERS = re.compile(r"feature_index\.mat|genealogy.*\.npz|.*\.names\.csv|statistics\..*", re.IGNORECASE)
_BLOCK = re.compile(r"block\d+.*_code\.mat", re.IGNORECASE)
_FIGSHARE_PARTS = 5  # type, network, layer, subject and region, which the names of files repeat
_DEPTH = 12


@dataclass(frozen=True)
class Selection:
    """Which features of a tree: names of folders; None where there is one only (of layers: the bundle's)."""

    layer: str | None = None
    subject: str | None = None
    roi: str | None = None
    fold: str | None = None

    @property
    def given(self) -> tuple[str, ...]:
        """Return the names of what is selected."""
        return tuple(field.name for field in fields(self) if getattr(self, field.name) is not None)


@dataclass(frozen=True)
class FeatureFolder:
    """The feature files of a folder: their names in natural order, and what is cut from each for its label."""

    path: Path
    files: Names
    prefix: str
    in_blocks: bool

    def label(self, name: str) -> str:
        """Return the label of a file: its name without its suffix, and without what its folders say already."""
        return name.removeprefix(self.prefix).rpartition(".")[0]


def find_folder(root: Path, selection: Selection, layers: Sequence[str], suffixes: Sequence[str]) -> FeatureFolder:
    """Find the folder of features of one of ``layers`` (the best first) below ``root``, and its files.

    Raises DataError when there are none, or of several formats; UsageError, naming what there is, when a level has
    several folders and none is selected, or not the selected one.
    """
    wanted = (selection.layer,) if selection.layer else tuple(layers)
    folder, levels = root, _levels_below(root, wanted)
    for depth in range(_DEPTH):
        files, folders = _listed(folder, suffixes)
        if depth == 0 and any(name in folders for name in wanted):
            levels = None  # whatever the folders above are called
        if files:
            _check_used(folder, selection, levels)
            return _of_files(folder, files)
        if not folders:
            break
        name, levels = _next_folder(folder, folders, selection, wanted, levels)
        folder = folder / name
    raise DataError(f"{folder}: no features in it, expected files named {' '.join(suffixes)}.")


def natural(name: str) -> list[str | int]:
    """Return what sorts names as people count: gen2 before gen10.

    >>> sorted(["gen10.npy", "gen2.npy"], key=natural)
    ['gen2.npy', 'gen10.npy']
    """
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d{1,18})", name)]


def _levels_below(root: Path, wanted: Sequence[str]) -> tuple[str, ...] | None:
    """Return the levels of folders that are still below ``root``; None where the layer's is not reached yet."""
    parts = root.absolute().parts[-1 - len(_BELOW) :]
    for place in reversed(range(len(parts))):
        if parts[place] in wanted:
            return _BELOW[len(parts) - 1 - place :]
    return None


def _next_folder(
    folder: Path, folders: Sequence[str], selection: Selection, wanted: Sequence[str], levels: tuple[str, ...] | None
) -> tuple[str, tuple[str, ...] | None]:
    """Choose the folder to go on with, and the levels below it."""
    if _INNER in folders:
        return _INNER, levels
    if levels is None:
        layer = next((name for name in wanted if name in folders), None)
        if layer is not None:
            return layer, _BELOW
        if len(folders) == 1:  # a type or a network, of which there is one
            return folders[0], None
        names = " or ".join(wanted)
        raise UsageError(f"{folder}: folders {_shown(folders)}, expected one named {names}. Name another with --layer.")
    if not levels:
        raise UsageError(f"{folder}: folders {_shown(folders)}, expected feature files.")
    level, chosen = levels[0], getattr(selection, levels[0])
    if chosen is None and len(folders) == 1:
        return folders[0], levels[1:]
    if chosen not in folders:
        raise UsageError(
            f"{folder}: folders {_shown(folders)}, expected one {level}{f' {chosen}' if chosen else ''}. "
            f"Name it with --{level}."
        )
    return chosen, levels[1:]


def _listed(folder: Path, suffixes: Sequence[str]) -> tuple[Names, list[str]]:
    """Return the names of a folder's feature files, sorted, and of its folders. Raises DataError."""
    files, folders = [], []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.name.lower().endswith(tuple(suffixes)) and not _OTHERS.fullmatch(entry.name):
                    files.append(entry.name)
                elif entry.is_dir():
                    folders.append(entry.name)
    except OSError as error:
        raise DataError(f"{folder}: {error.strerror}, expected a folder of features.") from error
    return Names(sorted(files, key=natural)), sorted(folders, key=natural)


def _of_files(folder: Path, files: Names) -> FeatureFolder:
    """Return the files of a folder, all of one format; of an experiment's blocks of codes these alone."""
    if any(_BLOCK.fullmatch(name) for name in files):
        return FeatureFolder(folder, Names(name for name in files if _BLOCK.fullmatch(name)), "", True)
    kinds = Counter(name.rpartition(".")[2].lower() for name in files)
    if len(kinds) > 1:
        counted = " and ".join(f"{count} .{kind}" for kind, count in kinds.most_common())
        raise DataError(f"{folder}: {counted} files, expected one format.")
    prefix = "-".join(folder.absolute().parts[-_FIGSHARE_PARTS:]) + "-"
    shared = all(name.startswith(prefix) for name in files)
    return FeatureFolder(folder, files, prefix if shared else "", False)


def _check_used(folder: Path, selection: Selection, levels: tuple[str, ...] | None) -> None:
    """Raise UsageError when a level is selected that the tree does not have."""
    left = ("layer", *_BELOW) if levels is None else levels
    for name in selection.given:
        if name in left:
            value = getattr(selection, name)
            raise UsageError(f"--{name} {value}: {folder} has feature files already, expected folders. Leave it out.")


def _shown(folders: Sequence[str]) -> str:
    more = f" and {len(folders) - 12} more" if len(folders) > 12 else ""
    return ", ".join(folders[:12]) + more
