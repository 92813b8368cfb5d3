"""Docstrings as Markdown, for mkdocstrings: ours use the roles of Sphinx, its tables, and examples for doctest."""

from __future__ import annotations

import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:func|class|meth|attr|data|mod|exc):`~?\.?([^`]+)`")
_EXAMPLE = re.compile(r"(?:^>>> .*\n(?:^(?!\s*$).*\n?)*)(?:\n(?=>>> ))?", re.MULTILINE)
_TABLE = re.compile(r"^(=+  ?[= ]+)\n(.*?)\n\1\n(.*?)\n\1$", re.MULTILINE | re.DOTALL)
_LITERAL = re.compile(r"^::\n\n((?:    .*\n|\n)+)", re.MULTILINE)


class Docstrings(griffe.Extension):
    """Rewrites every docstring when its object has been read."""

    def on_instance(self, *, obj: Any, **_: Any) -> None:
        """Rewrite the object's docstring."""
        if not obj.is_alias and obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)


def as_markdown(text: str) -> str:
    """Turn roles into code, tables and literal blocks into Markdown's, and fence the examples."""
    text = _TABLE.sub(_table, text)
    text = _LITERAL.sub(lambda found: f"```text\n{_dedented(found[1])}\n```\n", text + "\n")
    text = _EXAMPLE.sub(lambda found: f"```pycon\n{found[0].rstrip()}\n```\n", text)
    return _ROLE.sub(lambda found: f"`{found[1]}`", text).rstrip()


def _dedented(block: str) -> str:
    return "\n".join(line.removeprefix("    ") for line in block.rstrip().splitlines())


def _table(found: re.Match[str]) -> str:
    """Turn a table of Sphinx, with columns under rulers of =, into one of Markdown."""
    spans = [(ruler.start(), ruler.end()) for ruler in re.finditer(r"=+", found[1])]
    ends = [*(start for start, _ in spans[1:]), None]

    def row(line: str) -> str:
        cells = (line[start:end].strip() for (start, _), end in zip(spans, ends, strict=True))
        return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"

    head = [row(found[2]), f"|{'---|' * len(spans)}"]
    return "\n".join([*head, *(row(line) for line in found[3].splitlines())])
