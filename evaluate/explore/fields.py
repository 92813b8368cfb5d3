"""Fields of a JSON record that came from outside, each read as the type and range that it must have."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from deepsim.runtime.errors import UsageError


class Fields:
    """The fields of one record; ``subject`` names it in messages. Every method raises UsageError.

    >>> Fields("group", {"scale": 0.5}, ("scale",)).number("scale", 0, 1)
    0.5
    """

    def __init__(self, subject: str, record: Any, known: Collection[str]) -> None:
        self.subject = subject
        if not isinstance(record, dict):
            raise UsageError(f"{subject}: {_kind(record)}, expected an object.")
        unknown = sorted(set(record) - set(known))
        if unknown:
            raise UsageError(f"{subject}: unknown field {unknown[0][:40]!r}, expected {', '.join(known)}.")
        self._record = record

    def get(self, name: str) -> Any:
        """Return a field as it is, None where it is missing."""
        return self._record.get(name)

    def number(self, name: str, low: float, high: float) -> float:
        """Return a number from ``low`` to ``high``."""
        value = self.get(name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:  # as NaN is not
            raise self._wrong(name, value, f"a number from {low:g} to {high:g}")
        return float(value)

    def whole(self, name: str, low: int, high: int) -> int:
        """Return a whole number from ``low`` to ``high``."""
        value = self.get(name)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self._wrong(name, value, f"a whole number from {low} to {high}")
        return value

    def flag(self, name: str) -> bool:
        """Return true or false; missing is false."""
        value = self.get(name)
        if value is not None and not isinstance(value, bool):
            raise self._wrong(name, value, "true or false")
        return bool(value)

    def text(self, name: str, most: int = 64) -> str:
        """Return a text of at most ``most`` characters."""
        value = self.get(name)
        if not isinstance(value, str) or not 0 < len(value) <= most:
            raise self._wrong(name, value, f"a text of 1 to {most} characters")
        return value

    def optional_text(self, name: str) -> str | None:
        """Return a text, None where the field is missing or null."""
        return None if self.get(name) is None else self.text(name)

    def range(self, name: str, extent: int) -> tuple[int, int] | None:
        """Return [from, to) within 0..extent, not empty; None where the field is missing or null."""
        value = self.get(name)
        if value is None:
            return None
        whole = isinstance(value, list) and len(value) == 2 and all(type(end) is int for end in value)
        if not whole or not 0 <= value[0] < value[1] <= extent:
            raise self._wrong(name, value, f"two whole numbers that increase, from 0 to {extent}")
        return value[0], value[1]

    def items(self, name: str, most: int) -> list[Any]:
        """Return a list of at most ``most`` items; missing is empty."""
        value = self.get(name)
        if value is None:
            return []
        if not isinstance(value, list) or len(value) > most:
            raise self._wrong(name, value, f"a list of at most {most}")
        return value

    def _wrong(self, name: str, value: Any, expected: str) -> UsageError:
        shown = repr(value) if isinstance(value, (int, float, str, bool)) or value is None else _kind(value)
        return UsageError(f"{self.subject}: {name} {shown[:60]}, expected {expected}.")


def _kind(value: Any) -> str:
    return {list: "a list", dict: "an object", str: "a text", type(None): "nothing"}.get(type(value), "a number")
