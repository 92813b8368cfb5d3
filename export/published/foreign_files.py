"""What a file is that holds no weights, where its first bytes tell: more help than what a parser stumbles over."""

from __future__ import annotations

import re

_EXPECTED = "expected a Caffe model, or a state dict (.pt, .pth, .safetensors)"
_MAGIC = (
    (0, b"\x93NUMPY", "a NumPy array", ""),
    (0, b"\x89PNG", "a picture", ""),
    (0, b"\xff\xd8\xff", "a picture", ""),
    (0, b"\x1f\x8b", "a gzip archive", "Unpack it."),
    (0, b"BZh", "a bzip2 archive", "Unpack it."),
    (0, b"\xfd7zXZ", "an xz archive", "Unpack it."),
    (0, b"7z\xbc\xaf", "a 7z archive", "Unpack it."),
    (0, b"Rar!", "a RAR archive", "Unpack it."),
    (257, b"ustar", "a tar archive", "Unpack it."),
    (0, b"version https://git-lfs", "a pointer of Git LFS", "Download the file that it points to."),
    (0, b"%PDF", "a PDF file", ""),
)
_WEB_PAGE = re.compile(rb"\s*(<!doctype html|<html|<head)", re.IGNORECASE)
HEAD = 512
"""How many of a file's first bytes tell."""


def foreign(head: bytes) -> str | None:
    """Say what a file with these first bytes is and what was expected; None where they do not tell.

    >>> foreign(b"\\x93NUMPY...")
    'a NumPy array, expected a Caffe model, or a state dict (.pt, .pth, .safetensors).'
    """
    if not head:
        return f"an empty file, {_EXPECTED}."
    for place, magic, what, advice in _MAGIC:
        if head[place:].startswith(magic):
            return f"{what}, {_EXPECTED}.{advice and ' '}{advice}"
    if _WEB_PAGE.match(head):
        return f"a web page, {_EXPECTED}. A download that failed may have left it."
    return None
