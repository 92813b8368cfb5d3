"""What ``deepsim bench`` measured, read from its record, and ours set against the best peer of the same run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from deepsim.benchmarks import WHATS
from deepsim.benchmarks.contenders import OWN

CALLS = {"encode": "Encode", "decode": "Decode", "reencode": "Re-encode"}

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Comparison:
    """One call at one batch size: the rows of our contenders and of the others, by name."""

    what: str
    batch: int
    own: Mapping[str, Row]
    peers: Mapping[str, Row]

    @property
    def best_peer(self) -> str | None:
        """Return the name of the peer with the most images per second; None without peers."""
        return max(self.peers, key=lambda name: rate(self.peers[name]), default=None)

    def ratio(self, name: str) -> float | None:
        """Return our contender's images per second over the best peer's; None where either is missing."""
        peer = self.best_peer
        return rate(self.own[name]) / rate(self.peers[peer]) if peer is not None and name in self.own else None


@dataclass(frozen=True)
class Throughput:
    """Rows as :func:`deepsim.benchmarks.compare` returns them, and what ``deepsim bench`` records beside them.

    ``devices`` maps each contender to its device. ``roofs`` are 1e9 "multiply_adds" and 1e9 "bytes" per second.
    ``memory`` maps contenders to {"load_seconds", "peak_bytes", "batch"}, ``left_out`` to why their results are
    missing. ``gpu`` ran it all; ``method`` says how, where it is not as ``deepsim bench`` does. What a record does not
    tell is None or empty.
    """

    rows: tuple[dict[str, Any], ...]
    devices: dict[str, str]
    environment: dict[str, Any]
    layer: str | None = None  # that was timed
    bundle: str | None = None
    instruction_set: str | None = None
    whole_images: bool | None = None
    roofs: dict[str, float] = field(default_factory=dict)
    memory: dict[str, dict[str, Any]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    gpu: str | None = None
    method: str | None = None

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Throughput:
        """Read the record of ``deepsim bench``. Only its rows are required; ValueError when they are of no use."""
        rows = record.get("rows")
        if not isinstance(rows, list) or not rows or not all(_is_row(row) for row in rows):
            raise ValueError("no rows of throughput, expected a list")
        whole = record.get("whole_images")
        return cls(
            tuple(rows),
            _of_type(record.get("devices"), str),
            _of_type(record.get("environment"), object),
            record.get("layer"),
            _text(record.get("bundle")),
            _text(record.get("instruction_set")),
            whole if isinstance(whole, bool) else None,
            {name: float(value) for name, value in _of_type(record.get("roofs"), object).items() if is_number(value)},
            _of_type(record.get("memory"), dict),
            _of_type(record.get("left_out"), str),
            _text(record.get("gpu")),
            _text(record.get("method")),
        )

    def best(self, what: str = "decode") -> dict[str, Any] | None:
        """Return the row of most images per second for "decode", "encode" or "reencode"; None without one."""
        return max((row for row in self.rows if row.get("what") == what), key=rate, default=None)

    def name_of(self, row: Row) -> str:
        """Return the contender of a row: the only one with a device where the row does not name it, else ""."""
        only = next(iter(self.devices)) if len(self.devices) == 1 else ""
        return str(row.get("backend") or only)

    @property
    def calls(self) -> list[str]:
        """Return what was timed, in the order of the benchmark."""
        found = dict.fromkeys(str(row["what"]) for row in self.rows)
        return sorted(found, key=lambda what: WHATS.index(what) if what in WHATS else len(WHATS))

    @property
    def contenders(self) -> list[str]:
        """Return every contender with a row, in the order of the benchmark."""
        return list(dict.fromkeys(self.name_of(row) for row in self.rows))

    @property
    def own(self) -> list[str]:
        """Return our contenders, the one that is compared first."""
        return [name for name in self.contenders if name in OWN]

    @property
    def peers(self) -> list[str]:
        """Return the contenders that are not ours."""
        return [name for name in self.contenders if name not in OWN]

    def comparisons(self) -> list[Comparison]:
        """Return every call at every batch size, in the order of the benchmark."""
        pairs = dict.fromkeys((str(row["what"]), int(row["batch"])) for row in self.rows)
        return [
            self._compared(what, batch) for what in self.calls for batch in sorted(b for w, b in pairs if w == what)
        ]

    def _compared(self, what: str, batch: int) -> Comparison:
        rows = {self.name_of(row): row for row in self.rows if (row["what"], row["batch"]) == (what, batch)}
        own = {name: row for name, row in rows.items() if name in OWN}
        return Comparison(what, batch, own, {name: row for name, row in rows.items() if name not in OWN})


def rate(row: Row) -> float:
    """Return a row's images per second."""
    return float(row["images_per_second"])


def is_number(value: object) -> bool:
    """Say whether a value of a record is a number that can be drawn: finite, and of no absurd size."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e30


def _is_row(row: Any) -> bool:
    if not isinstance(row, dict) or not isinstance(row.get("what"), str):
        return False
    if not isinstance(row.get("batch"), int) or isinstance(row["batch"], bool) or not 1 <= row["batch"] < 1e9:
        return False
    return is_number(row.get("images_per_second")) and row["images_per_second"] > 0


def _of_type(value: object, kind: type) -> dict[str, Any]:
    """Return the entries of a mapping that are of a type; none where it is no mapping."""
    return (
        {str(key): entry for key, entry in value.items() if isinstance(entry, kind)} if isinstance(value, dict) else {}
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
