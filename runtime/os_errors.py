"""What the operating system refuses, as one line: which file, what happened, and whose fault it is."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from deepsim.runtime.errors import DeepsimError, DeviceError, OutOfMemory, UsageError
from deepsim.runtime.processes import ProcessId

# These say that the path itself makes no sense here; all others that the machine cannot do it now.
_WRONG_PATHS = frozenset({errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY})
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_UNMAPPED = ("failed to map segment", "cannot allocate memory", "cannot create shared object descriptor")  # glibc's


def lacks_memory(error: ImportError | OSError) -> bool:
    """Tell whether a library could not be loaded for lack of memory."""
    return any(words in str(error).lower() for words in _UNMAPPED)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn an OSError into a UsageError (the path makes no sense) or a DeviceError (anything else) in one line.

    The line names the file that the error is about, or ``path``. An OSError without a number comes from a library
    and not from the system; it is passed on.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise as_one_line(error, path) from error


def as_one_line(error: OSError, path: Path) -> DeepsimError:
    """Say what the system refused, about the file that the error names or ``path``."""
    subject = _named(error) or path
    reason = os.strerror(error.errno) if error.errno else " ".join(str(error).split()) or type(error).__name__
    if error.errno in _WRONG_PATHS:
        return UsageError(f"{subject}: {reason}. Choose another path.")
    if error.errno == errno.ENOMEM:
        return OutOfMemory(f"{subject}: {reason}.")
    if error.errno in _FULL:
        return DeviceError(f"{subject}: {reason}{_free(subject)}. Free some space or choose another folder.")
    return DeviceError(f"{subject}: {reason}.")


def _named(error: OSError) -> Path | None:
    """Return the file that an error names, unless it is one that we staged, which the user has not heard of."""
    name = error.filename
    path = Path(os.fsdecode(name)) if isinstance(name, (str, bytes)) and name else None
    return None if path is None or any(ProcessId.of(part) for part in path.parts) else path


def _free(path: Path) -> str:
    with suppress(OSError):
        existing = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
        return f" ({shutil.disk_usage(existing).free:,} bytes free)"
    return ""
