"""Settings in YAML, as people's editors write it: read, or refused in one line that names the likely cause."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from deepsim.runtime.errors import UsageError

MAX_BYTES = 1 << 20
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


def read_mapping(path: Path) -> dict[str, Any]:
    """Read a YAML (or JSON) file of settings: UTF-8, or UTF-16 with a byte-order mark; any line ends.

    Raises UsageError when it is missing, not text, not a mapping, over 1 MiB, or names a setting twice.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{path}: not readable ({getattr(error, 'strerror', None) or error}), expected settings."
        ) from error
    if len(data) > MAX_BYTES:
        raise UsageError(f"{path}: over {MAX_BYTES:,} bytes, expected a few lines of settings.")
    return _mapping(_decoded(data, path), path)


def _decoded(data: bytes, path: Path) -> str:
    encoding = "utf-16" if data.startswith(_UTF16) else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{path}: not UTF-8 text (byte {error.start}), expected settings in UTF-8. Save it as UTF-8."
        ) from error
    if "\0" in text:
        raise UsageError(f"{path}: holds zero bytes, as UTF-16 without a byte-order mark does. Save it as UTF-8.")
    return text


def _mapping(text: str, path: Path) -> dict[str, Any]:
    try:
        values = yaml.load(text, Loader=_Unique)
    except yaml.YAMLError as error:
        raise UsageError(f"{path}: not readable as YAML ({_reason(error)}).") from error
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:  # PyYAML's for absurd values
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UsageError(f"{path}: not readable as YAML ({reason}).") from error
    if not isinstance(values, dict):
        raise UsageError(f"{path}: not a mapping, expected lines such as 'layer: fc6'.")
    return {str(name): value for name, value in values.items()}


class _Unique(yaml.SafeLoader):
    """Refuse a key that stands twice, of which YAML's loader would silently take the last."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """Build a mapping. Raises YAMLError for a key that stands twice."""
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"'{key.value}' stands twice", key.start_mark)
            seen.add(key.value if isinstance(key.value, str) else "")
        return dict(super().construct_mapping(node, deep))


def _reason(error: yaml.YAMLError) -> str:
    """Say in one line what is wrong, and where; name the likely cause where it is a tab."""
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    mark = getattr(error, "problem_mark", None)
    where = f"line {mark.line + 1}: " if mark is not None else ""
    advice = ", indent with spaces" if "\\t" in problem or "\t" in problem else ""
    return f"{where}{' '.join(problem.split())}{advice}"
