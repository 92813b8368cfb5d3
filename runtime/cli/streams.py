"""Standard input, output and error that a program can rely on, whatever the shell has made of them."""

from __future__ import annotations

import codecs
import errno
import io
import os
import sys
from typing import TextIO

STDOUT = "standard output"  # the file name of errors when it cannot be written


def prepare() -> None:
    """Make the three standard streams of this process safe to use.

    Closed descriptors are opened, so that no file of ours takes their number: reading from one finds the end, writing
    results to one fails, messages to one are lost. A full disk or a reader that left never stops a command by its
    messages on stderr; for stdout it is an OSError that names STDOUT, or Unread. Full pipes are waited for.
    Characters that the encoding lacks, as in file names that are no text, are written escaped. Streams that somebody
    has replaced already stay as they are.
    """
    for descriptor, mode in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        _occupy(descriptor, mode)
    if sys.stdin is None:
        sys.stdin = os.fdopen(0, closefd=False)
    if sys.stdout is sys.__stdout__:
        sys.stdout = _Results(*_binary(1, sys.stdout))
    if sys.stderr is sys.__stderr__:
        sys.stderr = _Messages(*_binary(2, sys.stderr))


def discard(descriptor: int) -> None:
    """Let vanish what a stream still holds and gets, so that the interpreter does not complain when it ends."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, descriptor)
    os.close(null)


class Unread(Exception):
    """Nobody reads standard output any more; no OSError, which click would answer with exit code 1."""


class _Results(io.TextIOWrapper):
    """Standard output: its errors tell that they are its own."""

    def __init__(self, binary: io.BufferedWriter, encoding: str, errors: str) -> None:
        super().__init__(binary, encoding, errors, line_buffering=True)

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError as error:
            raise self._failure(error) from error

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            raise self._failure(error) from error

    def _failure(self, error: OSError) -> Exception:
        return Unread() if error.errno == errno.EPIPE else OSError(error.errno, error.strerror, STDOUT)


class _Messages(_Results):
    """Standard error: from the first that cannot be written on, messages are lost."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except (OSError, Unread):
            discard(2)
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except (OSError, Unread):
            discard(2)


def _occupy(descriptor: int, mode: int) -> None:
    """Open /dev/null under a descriptor that is closed; the lowest free one is taken, so they come in order."""
    try:
        os.fstat(descriptor)
    except OSError:
        os.open(os.devnull, mode)  # writing to one that is open for reading fails, as it should for results


def _binary(descriptor: int, old: TextIO | None) -> tuple[io.BufferedWriter, str, str]:
    """Return a binary stream, and the encoding and the treatment of odd characters for the text in it."""
    if old is not None:
        old.flush()
    os.set_blocking(descriptor, True)
    encoding = "utf-8" if old is None or codecs.lookup(old.encoding).name == "ascii" else old.encoding  # as click does
    errors = "backslashreplace" if old is None or old.errors in (None, "strict") else old.errors
    return io.BufferedWriter(io.FileIO(descriptor, "w", closefd=False)), encoding, errors
