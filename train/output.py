"""Where a run may write: not among the photographs, of which its image grids would become part when it is resumed."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from deepsim.runtime.errors import UsageError
from deepsim.runtime.files import identity_of
from deepsim.runtime.run_folder import CALIBRATION, CLOCK, COMPARATOR, CONFIG, DATA, ENCODER, LOG

WRITTEN = (CONFIG, DATA, CLOCK, LOG, ENCODER, COMPARATOR, CALIBRATION)


def refuse_output_among(folders: Iterable[str], files: Iterable[str], output: Path) -> None:
    """Raise UsageError when a run's folder is, or lies in, a folder that photographs are looked for in.

    ``folders`` are those that were named, ``files`` the photographs found in them, on the way to which links may have
    been followed. Folders are compared by what they are, not by name: links, mounts and capitals make no difference.
    """
    outer = _with_parents(output)
    for folder in _looked_through(list(folders), files):
        if identity_of(folder) in outer:
            raise UsageError(
                f"{output}: lies in {folder}, where photographs are looked for and those of the run would be found. "
                "Pass another --output."
            )


def refuse_output_over(inputs: Iterable[str | Path], folders: Iterable[str], output: Path) -> None:
    """Raise UsageError when a file of a run would replace an input file, or a folder of photographs lies in the run's.

    ``inputs`` are weights and settings that the run reads, by whichever path or link.
    """
    written = {identity_of(output / name): name for name in WRITTEN} if output.exists() else {}
    written.pop(None, None)
    for path in filter(None, map(str, inputs)):
        name = written.get(identity_of(path))
        if name is not None:
            raise UsageError(f"{path}: would be replaced by {output / name}. Pass another --output.")
    own = identity_of(output)
    for folder in folders:
        if own is not None and own in _with_parents(Path(folder)):
            raise UsageError(f"{folder}: lies in {output}, which the run writes into. Pass another --output.")


def _looked_through(folders: list[str], files: Iterable[str]) -> list[str]:
    """List the folders, and below them all those that hold photographs or lead to some."""
    found = dict.fromkeys(folders)
    for parent in {Path(path).parent for path in files}:
        for folder in (parent, *parent.parents):
            if str(folder) in found or not any(folder.is_relative_to(named) for named in folders):
                break
            found[str(folder)] = None
    return list(found)


def _with_parents(path: Path) -> set[tuple[int, int]]:
    """Identify a folder that may not exist yet, as it is spelt and with links resolved, and all folders around it."""
    real = Path(os.path.realpath(path))
    found = (identity_of(parent) for each in (path.absolute(), real) for parent in (each, *each.parents))
    return {identity for identity in found if identity is not None}
