"""Who a process is, written into file names, so that another process can tell whether its owner is still alive."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import socket
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_NAMED = re.compile(r"-([0-9a-f]{8})\.([0-9a-f]{8})\.(\d+)\.(\d+)\.(\d+)-[0-9a-f]{8}$")
_NAME_BYTES = 60  # of a file's name inside a stamped one, which stays below the 143 bytes of the strictest file system


@dataclass(frozen=True)
class ProcessId:
    """A process of a machine: its number alone returns after a while, with the start time and the boot it does not."""

    host: str  # hash of the host's name and machine id
    boot: str  # hash of the boot id
    namespace: int  # in which the number counts: containers have their own
    number: int
    started: int  # clock ticks after the boot; 0 where the system does not tell

    @classmethod
    def current(cls) -> ProcessId:
        """Name this process."""
        return _identify(os.getpid())

    @classmethod
    def of(cls, stamped: str) -> ProcessId | None:
        """Read the process from a name that :func:`stamp` made; None for any other name."""
        found = _NAMED.search(stamped)
        if found is None:
            return None
        host, boot, *numbers = found.groups()
        return cls(host, boot, *map(int, numbers))

    def __str__(self) -> str:
        return f"{self.host}.{self.boot}.{self.namespace}.{self.number}.{self.started}"

    def is_gone(self) -> bool:
        """Tell whether the process has certainly ended; False where that cannot be known, as on another host."""
        here = ProcessId.current()
        if self.host != here.host:
            return False
        if self.boot != here.boot:
            return True
        return self.namespace == here.namespace and not _lives(self.number, self.started)


def stamp(name: str, kind: str) -> str:
    """Build the hidden name ``.NAME.KIND-PROCESS-RANDOM``, new at every call and of at most 143 bytes."""
    return f"{stem(name)}.{kind}-{ProcessId.current()}-{secrets.token_hex(4)}"


def stem(name: str) -> str:
    """Build the hidden name ``.NAME``; a long one is cut and told apart by its hash."""
    encoded = os.fsencode(name)
    if len(encoded) <= _NAME_BYTES:
        return f".{name}"
    beginning = encoded[: _NAME_BYTES - 9].decode("utf-8", "ignore")
    return f".{beginning}~{_hash(encoded)}"


@cache
def _identify(number: int) -> ProcessId:
    machine = socket.gethostname().encode() + _content("/etc/machine-id")
    namespace = Path("/proc/self/ns/pid")
    return ProcessId(
        _hash(machine),
        _hash(_content("/proc/sys/kernel/random/boot_id")),
        namespace.stat().st_ino if namespace.exists() else 0,
        number,
        _started(number)[0],
    )


def _lives(number: int, started: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    since, state = _started(number)
    return state != "Z" and (0 in (since, started) or since == started)


def _started(number: int) -> tuple[int, str]:
    """Return when a process started, in clock ticks after the boot, and its state; (0, "?") where that is hidden."""
    fields = _content(f"/proc/{number}/stat").rpartition(b")")[2].split()  # behind the program's name
    return (int(fields[19]), fields[0].decode()) if len(fields) > 19 else (0, "?")


def _content(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:8]
