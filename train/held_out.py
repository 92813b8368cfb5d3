"""Which images a run trains on, and which it only validates with: those behind its error and its best checkpoint.

Without ``--validation`` some of the training photographs are held out, drawn by the seed. data.json in the run's folder
records them by name and SHA-256, so that a resumed run leaves out the same ones.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from deepsim.runtime.errors import CheckpointError, DataError
from deepsim.runtime.files import sha256
from deepsim.runtime.run_folder import CONFIG, DATA
from deepsim.train.datasets import SCAN_LIMIT, Dataset, DeadLeavesDataset, FolderDataset, MixedDataset

PREVIEW = 8  # images in a grid and in the validation error, so that more need not be held out
SHARE = 5  # one photograph of so many is held out
FEWEST = 10  # photographs; of fewer none is held out, since the error compares at least two
LEAVES = 10_000  # procedural images where there are no photographs
_HELD_OUT = 3  # names this family of random numbers beside those of data.py
_log = logging.getLogger("deepsim")

Validation = Literal["held-out", "given", "training"]


@dataclass(frozen=True)
class Asked:
    """What a command names: folders of training and validation photographs, and how many dead leaves to mix in."""

    data: tuple[str, ...] = ()
    leaves: int = 0
    validation: tuple[str, ...] = ()


@dataclass(frozen=True)
class Images:
    """The images of a run. ``kind`` says what validation looks at: "training" where nothing could be held out.

    ``record`` is what data.json keeps.
    """

    training: Dataset
    validation: Dataset
    kind: Validation
    record: dict[str, Any]

    @property
    def folders(self) -> list[str]:
        """List the folders that photographs were looked for in."""
        return [*self.record["data"], *self.record["validation_data"]]

    @property
    def files(self) -> list[str]:
        """List the photographs of training and validation."""
        parts = [
            *(self.training.parts if isinstance(self.training, MixedDataset) else [self.training]),
            self.validation,
        ]
        return [path for part in parts if isinstance(part, FolderDataset) for path in part.paths]

    @property
    def described(self) -> str:
        """Say in a few words what the validation images are."""
        if self.kind == "training":
            return "the training images themselves, none is held out"
        return f"{self.validation.description}{', held out' if self.kind == 'held-out' else ''}"


def choose_images(asked: Asked, seed: int = 0, begun: Path | None = None) -> Images:
    """Build the training and the validation images of a run; ``begun`` is the folder of the run that is resumed.

    A resumed run takes the folders of its beginning where none are named, and holds out the photographs that it held
    out then. Raises DataError when a folder holds no images or a photograph that was held out is missing or changed,
    CheckpointError for a damaged data.json.
    """
    saved = read_record(begun) if begun is not None else None
    if saved is None:
        return _choose(_absolute(asked), seed, None)
    images = _choose(_absolute(_as_begun(asked, saved)), seed, saved)
    if images.kind == "training" and "held_out" not in saved:
        _log.warning(
            "%s: begun before photographs were held out. Without --validation its error stays on training images.",
            begun,
        )
    _tell_of_change(images, saved)
    return images


def _choose(asked: Asked, seed: int, saved: dict[str, Any] | None) -> Images:
    """Build the images; ``saved`` is what a resumed run recorded: {} where it began before anything was."""
    old = saved is not None and "held_out" not in saved
    on_training = old or (saved is not None and saved.get("validation_on") == "training")
    given = FolderDataset(asked.validation) if asked.validation else None
    if not asked.data:
        return _leaves_alone(asked, seed, given, on_training, [] if saved is None else saved.get("held_out", []))
    photographs = FolderDataset(asked.data)
    if saved is not None and saved.get("held_out"):
        held = _found_again(photographs, asked.data, saved)
    elif given is not None or old or (saved is not None and saved.get("data")):
        held = []  # none, or what could have been was trained on already
    else:
        held = draw(photographs, seed)
    return _split(asked, seed, photographs, held, given, old)


def draw(photographs: FolderDataset, seed: int) -> list[int]:
    """Draw the photographs to hold out: one in five, at most 8, at least 2; none of fewer than ten.

    Returns their indices in order. Only readable files are drawn, so a seed gives the same ones for the same files.
    """
    count = min(PREVIEW, len(photographs) // SHARE) if len(photographs) >= FEWEST else 0
    drawn: list[int] = []
    for index in np.random.default_rng([_HELD_OUT, seed]).permutation(len(photographs)):
        if len(drawn) == count:
            break
        if photographs.readable(int(index)):
            drawn.append(int(index))
    return sorted(drawn)


def read_record(run: Path) -> dict[str, Any] | None:
    """Read a run's data.json; None where no run was begun. Raises CheckpointError when it is damaged."""
    path = run / DATA
    if not path.exists():
        return {} if (run / CONFIG).exists() else None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        held = record.get("held_out", [])
        if not all(isinstance(entry[key], str) for entry in held for key in ("name", "sha256")):
            raise TypeError("held_out is no list of names and hashes")
        return dict(record)
    except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise CheckpointError(f"{path}: not readable ({error}), expected a run's images. Restore the file.") from error


def _absolute(asked: Asked) -> Asked:
    """Spell folders so that a run can be resumed from another one."""
    data, validation = (tuple(str(Path(path).absolute()) for path in paths) for paths in (asked.data, asked.validation))
    return Asked(data, asked.leaves, validation)


def _as_begun(asked: Asked, saved: dict[str, Any]) -> Asked:
    """Take from the beginning what is not named again."""
    named = bool(asked.data) or asked.leaves > 0
    return Asked(
        asked.data if named else tuple(saved.get("data", ())),
        asked.leaves if named else int(saved.get("dead_leaves", 0)),
        asked.validation or tuple(saved.get("validation_data", ())),
    )


def _leaves_alone(
    asked: Asked, seed: int, given: Dataset | None, on_training: bool, held: list[dict[str, str]]
) -> Images:
    """Train on dead leaves; those of another seed are held out at no cost. ``held`` stays recorded."""
    training = DeadLeavesDataset(asked.leaves or LEAVES, seed)
    if given is not None:
        return _images(asked, training, given, "given", held)
    if on_training:
        return _images(asked, training, training, "training", held)
    return _images(asked, training, DeadLeavesDataset(PREVIEW, seed + 1), "held-out", held)


def _split(
    asked: Asked, seed: int, photographs: FolderDataset, held: list[int], given: FolderDataset | None, old: bool
) -> Images:
    paths = [photographs.paths[index] for index in held]
    apart = paths if given is None or old else [*paths, *given.paths]
    rest = photographs.without(same_pictures(photographs.paths, apart))
    if len(rest) == 0:
        raise DataError("--data: all its photographs are in --validation too, expected others to train on.")
    unnamed = len(photographs) - len(rest) - len(paths)
    if unnamed:
        _log.warning("--data: %d of its photographs are among the validation images, not trained on.", unnamed)
    training = _with_leaves(rest, asked.leaves, seed)
    record = [{"name": _name(path, asked.data), "sha256": sha256(Path(path))} for path in paths]
    if given is not None:
        return _images(asked, training, given, "given", record)
    if not paths:
        return _images(asked, training, training, "training", record)
    return _images(asked, training, FolderDataset.of(paths), "held-out", record)


def _tell_of_change(images: Images, saved: dict[str, Any]) -> None:
    """Say so when a resumed run trains on other images than before."""
    before, now = saved.get("training"), images.training.description
    if before not in (None, now):
        _log.warning(
            "training images: %s; when the run began: %s. Those held out stay so, the order of the others changes.",
            *(now, before),
        )


def _with_leaves(photographs: FolderDataset, leaves: int, seed: int) -> Dataset:
    """Mix dead leaves in; photographs are repeated until they are at least as many."""
    if not leaves:
        return photographs
    return MixedDataset([(photographs, -(-leaves // len(photographs))), (DeadLeavesDataset(leaves, seed), 1)])


def _images(
    asked: Asked, training: Dataset, validation: Dataset, kind: Validation, held: list[dict[str, str]]
) -> Images:
    record = {
        "training": training.description,
        "data": list(asked.data),
        "dead_leaves": asked.leaves,
        "validation_on": kind,
        "validation_data": list(asked.validation),
        "held_out": held,
    }
    images = Images(training, validation, kind, record)
    record["validation"] = images.described
    return images


def _found_again(photographs: FolderDataset, folders: Sequence[str], saved: dict[str, Any]) -> list[int]:
    """Find the photographs that were held out at the beginning. Raises DataError when one is missing or changed."""
    wanted = {(entry["name"], entry["sha256"]): None for entry in saved["held_out"]}
    ends = {Path(name).name for name, _ in wanted}
    found: dict[tuple[str, str], int | None] = dict(wanted)
    for index, path in enumerate(photographs.paths):
        if Path(path).name in ends:
            key = (_name(path, folders), _digest(path))
            if key in found and found[key] is None:
                found[key] = index
    for (name, _), place in found.items():
        if place is None:
            raise DataError(
                f"{name}: held out when the run began, now missing from --data or changed, expected the same file. "
                "Restore it, or start a new --output."
            )
    return sorted(place for place in found.values() if place is not None)


def _name(path: str, folders: Iterable[str]) -> str:
    """Return a photograph's path in the --data folder that holds it, with / between folders."""
    inside = (Path(path).relative_to(folder).as_posix() for folder in folders if Path(path).is_relative_to(folder))
    return next((name for name in inside if name != "."), Path(path).name)


def same_pictures(paths: Sequence[str], apart: Sequence[str]) -> set[int]:
    """Return the indices of ``paths`` that are one of ``apart``: by name, as a link, or as a copy of the same bytes.

    Of more than ``SCAN_LIMIT`` files only names are compared: looking at every file would take too long.
    """
    names = set(apart)
    if not apart or len(paths) > SCAN_LIMIT:
        return {index for index, path in enumerate(paths) if path in names}
    files = [file for file in map(_stat, names) if file is not None]
    nodes = {(file.st_dev, file.st_ino) for file in files}
    sizes = {file.st_size for file in files}
    contents = {_digest(path) for path in names}
    found = set()
    for index, path in enumerate(paths):
        file = _stat(path)
        if file is None:
            continue
        linked = (file.st_dev, file.st_ino) in nodes
        if linked or (file.st_size in sizes and _digest(path) in contents):
            found.add(index)
    return found


def _stat(path: str) -> os.stat_result | None:
    try:
        return Path(path).stat()
    except OSError:
        return None  # it is skipped by name when it is read


def _digest(path: str) -> str:
    try:
        return sha256(Path(path))
    except OSError:
        return path  # equals no digest
