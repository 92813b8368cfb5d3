"""Build HTML and SVG so that every tag is closed and every text and attribute is escaped."""

from __future__ import annotations

from html import escape
from typing import TypeAlias

_VOID = frozenset({"img", "input", "br", "meta"})


class Html(str):
    """Text that is markup already; any other string is escaped when it becomes part of an element."""

    __slots__ = ()


Child: TypeAlias = "str | int | float | None"


def element(tag: str, *children: Child, **attributes: Child) -> Html:
    """Build one element; None children and attributes are left out.

    An attribute name loses a trailing underscore (``class_``, ``for_``) and writes hyphens for the others.
    """
    words = [tag, *(_attribute(name, value) for name, value in attributes.items() if value is not None)]
    opening = f"<{' '.join(words)}>"
    return Html(opening) if tag in _VOID else Html(f"{opening}{join(*children)}</{tag}>")


def join(*children: Child) -> Html:
    """Put pieces of markup and text after each other."""
    return Html("".join(_safe(child) for child in children if child is not None))


def _safe(child: str | int | float) -> str:
    return child if isinstance(child, Html) else escape(str(child))


def _attribute(name: str, value: Child) -> str:
    return f'{name.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
