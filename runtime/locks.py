"""Locks between processes, named by files, that end with the process that holds them, however it ends.

The kernel keeps them (flock, or where the file system has none, locks of open file descriptions). Where it has neither,
a folder is the lock: renaming a filled folder to a name fails when a filled folder has that name, on every file system.
The file inside is named after its process, so that a successor can remove it when, and only when, that process is gone.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from deepsim.runtime.errors import UsageError
from deepsim.runtime.os_errors import disk_errors
from deepsim.runtime.processes import ProcessId, stamp

_TRIES = 100  # while other processes create and remove the same names
_descriptors: set[int] = set()  # of the locks that this process holds


@contextmanager
def locked(path: Path, subject: str) -> Iterator[None]:
    """Hold the lock that the file ``path`` names, for this process; the file vanishes with the lock.

    Raises UsageError "subject: in use by process ..." at once while another living process holds it, DeviceError when
    the folder of ``path`` cannot be written. A process that is killed holds nothing. Missing folders are made, and
    removed again if nothing else has been put into them. Forked children do not hold the lock.
    """
    missing = [folder for folder in path.parents if not folder.exists()]
    with disk_errors(path):
        release = _acquire(path, subject)
    process = os.getpid()
    try:
        yield
    finally:
        if os.getpid() == process:
            release()
            _remove_empty(missing)


def try_lock(descriptor: int) -> bool | None:
    """Lock an open file if nobody else has; tell whether that worked, None where the file system has no locks."""
    open_file_lock = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    attempts: tuple[tuple[Callable[[], object], tuple[int, ...]], ...] = (
        (lambda: fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB), (errno.EWOULDBLOCK,)),
        (lambda: fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, open_file_lock), (errno.EAGAIN, errno.EACCES)),
    )
    for attempt, held_by_another in attempts:
        try:
            attempt()
            return True
        except OSError as error:
            if error.errno in held_by_another:
                return False
    return None


def is_abandoned(path: Path) -> bool:
    """Tell whether the process that stamped a file or folder and kept it locked is gone; False for any other name.

    Where the file system has no locks, the name decides.
    """
    with taken_over(path) as taken:
        return taken


@contextmanager
def taken_over(path: Path) -> Iterator[bool]:
    """Lock what :func:`is_abandoned` for the block, so that no other process takes it too; yield whether it was."""
    owner = ProcessId.of(path.name)
    if owner is None:
        yield False
        return
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        yield False
        return
    try:
        free = try_lock(descriptor)
        yield (owner.is_gone() if free is None else free) and _is_still(path, descriptor)
    finally:
        os.close(descriptor)


def _is_still(path: Path, descriptor: int) -> bool:
    """Tell whether an open file has this name: another process may have moved or removed it before it was locked."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except OSError:
        return False


def _acquire(path: Path, subject: str) -> Callable[[], None]:
    """Take the lock; return what gives it back."""
    for _ in range(_TRIES):
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):  # who held it removes its file and perhaps the folder meanwhile: again
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
            try:
                is_mine = try_lock(descriptor)
                if is_mine is False:
                    raise _in_use(subject, os.read(descriptor, 300).decode("utf-8", "replace"))
                if is_mine is None:
                    return _acquire_folder(path, subject)
                if _is_still(path, descriptor):
                    return _hold(path, os.dup(descriptor))
            finally:
                os.close(descriptor)
    raise _in_use(subject, "")


def _hold(path: Path, descriptor: int) -> Callable[[], None]:
    _descriptors.add(descriptor)
    with suppress(OSError):  # who holds it only serves the message: a full disk is no obstacle
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, _record(), 0)

    def release() -> None:
        with suppress(OSError):
            path.unlink()
        _descriptors.discard(descriptor)
        os.close(descriptor)

    return release


def _acquire_folder(path: Path, subject: str) -> Callable[[], None]:
    """Take the lock where the kernel keeps none: by a folder that holds one file, named after its process."""
    folder, prepared = path.with_name(f"{path.name}.d"), path.with_name(stamp(path.name, "staging"))
    prepared.mkdir()
    try:
        (prepared / prepared.name).write_bytes(_record())
        for _ in range(_TRIES):
            try:
                prepared.rename(folder)
                return lambda: _release_folder(path, folder, prepared.name)
            except OSError as error:
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY) and not folder.exists():
                    raise
            _remove_abandoned(folder, subject)
    finally:
        shutil.rmtree(prepared, ignore_errors=True)
    raise _in_use(subject, "")


def _remove_abandoned(folder: Path, subject: str) -> None:
    """Remove the lock of a process that is gone. Raises UsageError when it may be alive."""
    with suppress(FileNotFoundError):
        for held in folder.iterdir():
            owner = ProcessId.of(held.name)
            if owner is not None and not owner.is_gone():
                raise _in_use(subject, held.read_text("utf-8", "replace"), folder)
            held.unlink()  # this process's and no other's: a successor's has another name
    with suppress(OSError):
        folder.rmdir()  # only if nobody has filled it again


def _release_folder(path: Path, folder: Path, name: str) -> None:
    for remove in ((folder / name).unlink, folder.rmdir, path.unlink):
        with suppress(OSError):
            remove()


def _record() -> bytes:
    return f"process {os.getpid()} on host {socket.gethostname()}".encode("utf-8", "replace")


def _in_use(subject: str, record: str, folder: Path | None = None) -> UsageError:
    holder = " ".join(record.split()) or "another process"
    hint = f", or remove {folder} if that process is gone" if folder else ""
    return UsageError(f"{subject}: in use by {holder}. Wait until it has ended{hint}, or choose another output.")


def _remove_empty(folders: list[Path]) -> None:
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()


def _let_go() -> None:
    """Close the locks in a forked child, which would hold them longer than its parent lives."""
    while _descriptors:
        os.close(_descriptors.pop())


os.register_at_fork(after_in_child=_let_go)
