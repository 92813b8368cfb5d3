"""Settings as fields of a frozen record: each with its default, its help and its range."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping
from dataclasses import field, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from deepsim.runtime.errors import UsageError


def setting(
    default: Any, help: str, *, least: float | None = None, most: float | None = None, below: float | None = None
) -> Any:
    """Declare a field of the configuration: its default, its help text, and the range of its number or numbers.

    The command line builds the option from it, and the record checks the range.
    """
    return field(default=default, metadata={"help": help, "least": least, "most": most, "below": below})


def check_values(record: Any) -> None:
    """Check every field of a record of settings. Raises UsageError for a value that is not in its range."""
    hints = get_type_hints(type(record))
    for entry in fields(record):
        _check_value(entry.name, getattr(record, entry.name), hints[entry.name], entry.metadata)


def converted_values(record: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Convert values to the types of a record's fields (YAML reads 1e-4 as text).

    Raises UsageError naming an unknown field or a value of the wrong type.
    """
    hints = get_type_hints(record)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise UsageError(f"{unknown[0]}: no such setting, expected one of {', '.join(hints)}.")
    return {name: _converted(name, value, hints[name]) for name, value in values.items()}


def _check_value(name: str, value: Any, hint: Any, facts: Mapping[str, Any]) -> None:
    """Raise UsageError for a value that is not among a setting's names or not in its range."""
    if get_origin(hint) is Literal and value not in get_args(hint):
        raise UsageError(f"{name}: {value!r}, expected one of {', '.join(get_args(hint))}.")
    least, most, below = (facts.get(key) for key in ("least", "most", "below"))
    for number in value if isinstance(value, tuple) else (value,):
        if isinstance(number, (str, bool)):
            continue
        fits = math.isfinite(number) and (least is None or number >= least)
        if not fits or (most is not None and number > most) or (below is not None and number >= below):
            bounds = [("at least", least), ("at most", most), ("below", below)]
            words = [f"{word} {bound:g}" for word, bound in bounds if bound is not None]
            raise UsageError(f"{name}: {number}, expected {' and '.join(words) or 'a finite number'}.")


def _converted(name: str, value: Any, hint: Any) -> Any:
    if get_origin(hint) is tuple and isinstance(value, str):
        value = [part for part in value.split(",") if part]
    if get_origin(hint) is tuple and isinstance(value, (list, tuple)):
        return tuple(_converted(name, entry, get_args(hint)[0]) for entry in value)
    try:
        if hint is bool and isinstance(value, bool):
            return value
        if hint is float and isinstance(value, (int, float, str)) and not isinstance(value, bool):
            return float(value)
        if hint is int and (isinstance(value, str) or (isinstance(value, (int, float)) and int(value) == value)):
            if not isinstance(value, bool):
                return int(value)
        elif (hint is str or get_origin(hint) is Literal) and isinstance(value, str):
            return value
    except (ValueError, OverflowError):
        pass
    expected = "numbers with commas between" if get_origin(hint) is tuple else _WORDS.get(hint, "text")
    found = reprlib.repr(value)  # short, also where YAML's references make a value that is endless when written out
    raise UsageError(f"{name}: {found if len(found) <= 60 else found[:57] + '...'}, expected {expected}.")


_WORDS: dict[Any, str] = {bool: "true or false", int: "a whole number", float: "a number"}


def arguments_of(settings: dict[str, Any]) -> list[str]:
    """Write settings as options of ``deepsim train``.

    >>> arguments_of({"warm_up": 50, "even_start": True, "mirror": False})
    ['--warm-up=50', '--even-start', '--no-mirror']
    """
    found = []
    for name, value in settings.items():
        word = name.replace("_", "-")
        switch = "" if value is True else "no-"
        found.append(f"--{switch}{word}" if isinstance(value, bool) else f"--{word}={value}")
    return found
