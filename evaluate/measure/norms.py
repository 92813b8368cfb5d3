"""N of the normalised error for each space, computed once for a set of photographs and kept; a killed run goes on."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from deepsim.evaluate.metrics.pairwise import streamed_mean_distance
from deepsim.evaluate.metrics.rows import BLOCK_BYTES, RowSource
from deepsim.runtime.errors import DataError
from deepsim.runtime.files import sha256, write_atomic
from deepsim.runtime.os_errors import disk_errors


@dataclass(frozen=True)
class Norms:
    """Keeps every N in ``norms.json`` of a folder, and sums of blocks on the way in a file beside it."""

    folder: Path

    def mean_distance(self, rows: RowSource, what: str, identity: str) -> float | None:
        """Return N of rows; None where it is 0 or there are fewer than two. ``identity`` tells rows from all others.

        Raises DataError when the file is damaged, NumericError when rows are not finite.
        """
        known = self._read()
        if identity in known:
            return self.known(identity)
        found = self._compute(rows, what, identity) if rows.shape[0] > 1 else 0.0
        entry = {"space": what, "photographs": rows.shape[0], "mean_distance": found}
        write_atomic(self._path, json.dumps({**known, identity: entry}, indent=2) + "\n")
        self._progress(identity).unlink(missing_ok=True)
        return found or None

    def knows(self, identities: Iterable[str]) -> bool:
        """Tell whether N of all these rows is kept."""
        return set(identities) <= set(self._read())

    def known(self, identity: str) -> float | None:
        """Return N of rows that it knows; None where it is 0."""
        return float(self._read()[identity]["mean_distance"]) or None

    def entries(self, identities: Iterable[str]) -> list[dict[str, Any]]:
        """Return what is kept of these rows: space, photographs, mean_distance."""
        known = self._read()
        return [known[identity] for identity in identities if identity in known]

    @property
    def _path(self) -> Path:
        return self.folder / "norms.json"

    def _progress(self, identity: str) -> Path:
        return self.folder / f"norm-{sha256(identity.encode())[:12]}.jsonl"

    def _compute(self, rows: RowSource, what: str, identity: str) -> float:
        path = self._progress(identity)
        known = _sums(path)
        with (
            disk_errors(path),
            path.open("a", encoding="ascii") as file,
            tqdm(total=100, desc=f"N, {what}", unit="%", disable=None, bar_format="{l_bar}{bar}| {elapsed}") as bar,
        ):
            file.write("\n")  # a kill may have cut off the last line

            def finished(block: int, total: float, share: float) -> None:
                if block not in known:
                    file.write(json.dumps({"block": block, "total": total}) + "\n")
                    file.flush()
                bar.update(100 * share - bar.n)

            return streamed_mean_distance(rows, BLOCK_BYTES, known, finished)

    def _read(self) -> dict[str, Any]:
        try:
            found = json.loads(self._path.read_text("utf-8")) if self._path.exists() else {}
        except (OSError, ValueError) as error:
            raise DataError(f"{self._path}: damaged ({error}). Pass --overwrite to begin anew.") from error
        if not isinstance(found, dict):
            raise DataError(
                f"{self._path}: {type(found).__name__}, expected an object. Pass --overwrite to begin anew."
            )
        return found


def _sums(path: Path) -> dict[int, float]:
    """Read the sums of blocks that an earlier run finished; a line that a kill cut off does not count."""
    found: dict[int, float] = {}
    for line in path.read_text("ascii", "replace").splitlines() if path.exists() else ():
        try:
            record = json.loads(line)
            found[int(record["block"])] = float(record["total"])
        except (ValueError, KeyError, TypeError):
            continue
    return found
