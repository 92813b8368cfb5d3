"""What is where in the folder of a closed loop.

::

    run.json            optimiser, settings, seed, start, bundle: what a resumed loop has to agree with
    state.npz           all that decides the next generation; replaced when a generation's scores are told
    log.jsonl           one JSON object for each generation whose scores were told
    codes/gen004/       gen004_000080.npy, ...: the codes of a generation, float32, named as XDream names them;
                        genealogy_gen004.npz where the optimiser has parents
    strips/gen004.png   the best images of a generation, best first
    best.png            the image of the best code, when the loop has ended

Everything but the log is replaced in one step. A generation's codes are written while its images are shown. When its
scores are told, its line is added, then the state replaced; its strip is written while the next one is computed. A loop
that is killed anywhere goes on from the state: it hands the same codes out again, removes lines that the state does not
know, and draws a missing strip.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepsim.runtime.errors import CheckpointError, UsageError
from deepsim.runtime.files import publish_folder, write_atomic
from deepsim.runtime.images import save_png
from deepsim.runtime.os_errors import disk_errors
from deepsim.runtime.pixels import Pixels
from deepsim.runtime.run_folder import LOG
from deepsim.train.optimize.black_box.optimizer import Codes, State

RUN, STATE, BEST = "run.json", "state.npz", "best.png"
CODES, STRIPS = "codes", "strips"


class LoopFolder:
    """The folder of a closed loop; its writers run while the process has the folder reserved."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def begin(self, run: Mapping[str, Any], resume: bool) -> State | None:
        """Begin or go on; return the state to go on from, None for a new loop.

        Raises UsageError where the folder holds a loop and ``resume`` is not set, holds a loop of another ``run``, or
        is no folder; CheckpointError where its files are damaged.
        """
        if self.path.exists() and not self.path.is_dir():
            raise UsageError(f"{self.path}: a file, expected a folder.")
        path = self.path / RUN
        if not path.exists():
            write_atomic(path, json.dumps(run, indent=2, sort_keys=True) + "\n")
            return None
        if not resume:
            raise UsageError(f"{self.path}: holds a closed loop already. Choose another folder, or resume it.")
        self._check_run(path, run)
        return self._read_state() if (self.path / STATE).exists() else None

    def _check_run(self, path: Path, run: Mapping[str, Any]) -> None:
        try:
            begun = json.loads(path.read_bytes())
            differing = [key for key in run if begun.get(key) != run[key]]
        except (ValueError, AttributeError) as error:
            raise CheckpointError(f"{path}: unreadable ({error}), expected the settings of a closed loop.") from error
        if differing:
            key = differing[0]
            raise UsageError(f"{path}: {key} is {begun.get(key)!r}, expected {run[key]!r}. Choose another folder.")

    def _read_state(self) -> State:
        path = self.path / STATE
        try:
            with np.load(path, allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, AttributeError) as error:
            raise CheckpointError(f"{path}: unreadable ({error}), expected the state of a closed loop.") from error

    def write_state(self, state: State) -> None:
        """Replace the state: from now on a resumed loop goes on from here."""
        content = io.BytesIO()
        np.savez(content, **state)  # type: ignore[arg-type]  # arrays by name
        write_atomic(self.path / STATE, content.getvalue())

    def read_log(self, before: int) -> list[dict[str, Any]]:
        """Return the lines of generations below ``before``, and remove others, such as one of which a part was written.

        Raises CheckpointError where one is missing.
        """
        path = self.path / LOG
        content = path.read_bytes() if path.exists() else b""
        lines = [_parsed(line) for line in content.splitlines(keepends=True) if line.endswith(b"\n")]
        kept = [line for line in lines if line is not None and line["generation"] < before]
        if [line["generation"] for line in kept] != list(range(before)):
            raise CheckpointError(f"{path}: damaged, expected a line for each of {before} generations.")
        expected = b"".join(_line(line) for line in kept)
        if content != expected:
            write_atomic(path, expected)
        return kept

    def write_line(self, record: Mapping[str, Any]) -> None:
        """Add a generation to the log."""
        path = self.path / LOG
        with disk_errors(path), path.open("ab") as file:
            file.write(_line(record))
            file.flush()
            os.fsync(file.fileno())

    def write_codes(self, generation: int, codes: Codes, names: Sequence[str], genealogy: Sequence[str] | None) -> None:
        """Write a generation's codes, one file each, and where they come from."""
        with publish_folder(self.path / CODES / f"gen{generation:03d}", overwrite=True) as folder:
            for name, code in zip(names, codes, strict=True):
                np.save(folder / f"{name}.npy", code, allow_pickle=False)
            if genealogy is not None:
                texts: dict[str, NDArray[np.str_]] = {"image_ids": np.array(names), "genealogy": np.array(genealogy)}
                np.savez(folder / f"genealogy_gen{generation:03d}.npz", **texts)  # type: ignore[arg-type]

    def read_codes(self, generation: int, indices: Sequence[int]) -> Codes:
        """Return some of a generation's codes. Raises CheckpointError where a file is missing or damaged."""
        folder = self.path / CODES / f"gen{generation:03d}"
        try:
            paths = sorted(folder.glob("gen*.npy"))
            return np.stack([np.load(paths[index], allow_pickle=False) for index in indices])
        except (OSError, ValueError, IndexError, EOFError) as error:
            raise CheckpointError(f"{folder}: unreadable ({error}), expected the codes of a generation.") from error

    def has_strip(self, generation: int) -> bool:
        """Tell whether a generation's strip was written."""
        return self._strip(generation).exists()

    def write_strip(self, generation: int, images: Pixels) -> None:
        """Write images (n, S, S, 3) side by side."""
        save_png(np.concatenate(list(images), axis=1), self._strip(generation))

    def _strip(self, generation: int) -> Path:
        return self.path / STRIPS / f"gen{generation:03d}.png"

    def write_best(self, image: Pixels) -> None:
        """Write the image of the best code."""
        save_png(image, self.path / BEST)


def _line(record: Mapping[str, Any]) -> bytes:
    return (json.dumps(record, allow_nan=False) + "\n").encode()


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and type(record.get("generation")) is int else None
