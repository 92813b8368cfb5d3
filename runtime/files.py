"""Files that are old or new, never torn: everything is written beside its place, synced, and renamed into it.

``docs/files.md`` says what that means on file systems that lack a part of it.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from deepsim.runtime.errors import UsageError
from deepsim.runtime.locks import is_abandoned, locked, taken_over, try_lock
from deepsim.runtime.os_errors import disk_errors
from deepsim.runtime.processes import ProcessId, stamp, stem

STAGING, ASIDE, SAVED = "staging", "old", "saved"
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_MAX_LINKS = 40  # as Linux
_swept: set[tuple[int, Path]] = set()  # process and folder


def sha256(data: bytes | Path) -> str:
    """Return the hexadecimal SHA-256 of bytes or of a file's content."""
    if isinstance(data, bytes):
        return hashlib.sha256(data).hexdigest()
    digest = hashlib.sha256()
    with data.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def identity_of(path: str | os.PathLike[str]) -> tuple[int, int] | None:
    """Tell a file or folder from all others, by whichever path it is reached; None when there is none."""
    try:
        status = os.stat(path)  # noqa: PTH116  # any kind of path
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def sync(path: Path) -> None:
    """Force a file's or folder's content to the disk, as far as its file system can.

    A folder that cannot be opened or synced is left to the system: its content is there, only later on the disk.
    """
    is_folder = path.is_dir()
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except PermissionError:
        if is_folder:
            return
        raise
    try:
        _fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomic(path: Path, data: bytes | str) -> None:
    """Replace a file's content by ``data`` (text as UTF-8) as :func:`replacing` does; missing folders are made."""
    with replacing(path) as file:
        file.write(data.encode() if isinstance(data, str) else data)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Yield a new file, open for writing and reading, that takes ``path``'s place when the block ends without error.

    Readers and crashes see the old content or the new, never a part. On an exception the new file vanishes. Its mode is
    the replaced file's, or as the umask says. A symbolic link stays and its target is written. A device or a
    pipe, such as /dev/stdout, is written directly. Missing folders are made, but not those that a link points into.
    What killed processes left in the folder is removed first. Raises UsageError when ``path`` is a folder or a loop of
    links, DeviceError when the disk is full or the system refuses.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        target = real_target(path)
        if _is_special(target):
            with target.open("wb") as file:
                yield file
            return
        with _staged(target, _new_file) as (staging, descriptor):
            with os.fdopen(os.dup(descriptor), "w+b") as file:
                yield file
            _keep_mode(descriptor, target)
            _fsync(descriptor)
            _rename_file(staging, target)
            sync(target.parent)


@contextmanager
def publish_folder(path: Path, overwrite: bool = False) -> Iterator[Path]:
    """Yield a staging folder beside ``path``; on success it becomes ``path`` by one rename, else it vanishes.

    Modes and symbolic links are treated as by :func:`replacing`. What killed processes left beside it is removed first.
    Raises UsageError when ``path`` exists and ``overwrite`` is not set; DeviceError on a full disk.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        target = real_target(path)
        restore(target)
        if target.exists() and not overwrite:
            raise UsageError(f"{path}: exists already. Choose another name, or pass --overwrite to replace it.")
        with _staged(target, _new_folder) as (staging, descriptor):
            yield staging
            for written in sorted(staging.rglob("*")):
                sync(written)
            _keep_mode(descriptor, target)
            _fsync(descriptor)
            _rename_folder(staging, target)
            sync(target.parent)


@contextmanager
def reserved(*paths: Path) -> Iterator[None]:
    """Keep output files or folders to this process, from before the work until they are written.

    The lock of each is the file ``.NAME.lock`` beside it. Raises UsageError at once while another living process has
    it.
    """
    with ExitStack() as locks:
        for path in paths:
            with disk_errors(path):
                target = real_target(path)
                is_shared = not target.is_dir() and _is_special(target)  # /dev/null is everybody's
            if not is_shared:
                locks.enter_context(locked(target.with_name(f"{stem(target.name)}.lock"), str(path)))
        yield


def real_target(path: Path) -> Path:
    """Follow the symbolic links of ``path`` to the file or folder that is to be written, which need not exist.

    Raises UsageError for a loop.
    """
    target = path
    with suppress(OSError):
        if not path.is_dir() and _is_special(path):
            return path  # /dev/stdout is a link to what no path leads to, such as a pipe
    for _ in range(_MAX_LINKS):
        if not target.is_symlink():
            return target
        target = target.parent / target.readlink()
    raise UsageError(f"{path}: a loop of symbolic links, expected one that leads to a file or folder.")


def remove_folder(path: Path) -> None:
    """Remove a folder that no one needs any more: for readers and after a crash it is whole or gone.

    What the system does not let us remove stays.
    """
    doomed = path.with_name(stamp(path.name, STAGING))
    try:
        path.rename(doomed)
    except OSError:
        doomed = path
    _remove(doomed)


def restore(path: Path) -> None:
    """Put a folder back that a killed process had moved aside to replace it; what it had replaced already is removed.

    Only file systems that cannot exchange two names need this; see docs/files.md.
    """
    with suppress(OSError, UsageError):
        target = real_target(path)
        for found in list(target.parent.iterdir()):
            if found.name.startswith(f"{stem(target.name)}.{ASIDE}-") and is_abandoned(found):
                _remove(found) if target.exists() else found.rename(target)
            elif found.name.startswith(f"{stem(target.name)}.{SAVED}-"):
                with taken_over(found) as is_abandoned_copy:
                    if is_abandoned_copy:
                        _put_back(found, target)


@contextmanager
def _staged(target: Path, create: Callable[[Path], int]) -> Iterator[tuple[Path, int]]:
    """Yield a new file or folder beside ``target``, and its descriptor; what is left of it vanishes."""
    _sweep(target.parent)
    staging, descriptor = _create_locked(target, create)
    try:
        yield staging, descriptor
    finally:
        _remove(staging)
        os.close(descriptor)


def _create_locked(target: Path, create: Callable[[Path], int]) -> tuple[Path, int]:
    """Create it and lock it, which tells other processes that this one is alive; again if one was faster."""
    while True:
        staging = target.with_name(stamp(target.name, STAGING))
        descriptor = create(staging)
        if try_lock(descriptor) is not False and staging.exists():
            return staging, descriptor
        os.close(descriptor)
        _remove(staging)


def _new_file(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)


def _new_folder(path: Path) -> int:
    path.mkdir()
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def _is_special(target: Path) -> bool:
    """Tell a device, pipe or socket from a regular file or nothing. Raises IsADirectoryError for a folder."""
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        return False
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
    return not stat.S_ISREG(mode)


def _keep_mode(descriptor: int, target: Path) -> None:
    """Give the new file or folder the mode of the one that it replaces, where the file system knows modes."""
    with suppress(OSError):
        mode = stat.S_IMODE(target.stat().st_mode) & 0o777
        if mode != stat.S_IMODE(os.fstat(descriptor).st_mode):
            os.fchmod(descriptor, mode)


def _fsync(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF):
            raise  # those say that this kind of file is not synced here


def _rename_file(staging: Path, target: Path) -> None:
    try:
        staging.replace(target)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        shutil.copyfile(staging, target)  # a file that is mounted, as into a container, keeps its name
        sync(target)


def _rename_folder(staging: Path, target: Path) -> None:
    """Give the new folder its name; an old one gets the staging folder's in the same step, where that is possible."""
    if not target.exists():
        staging.rename(target)
        return
    libc = ctypes.CDLL(None, use_errno=True)
    names = (_AT_FDCWD, os.fsencode(staging), _AT_FDCWD, os.fsencode(target))
    if not hasattr(libc, "renameat2") or libc.renameat2(*names, _RENAME_EXCHANGE) != 0:
        _rename_folder_in_two_steps(staging, target)


def _rename_folder_in_two_steps(staging: Path, target: Path) -> None:
    """Move the old folder aside and the new one in. Killed in between, :func:`restore` puts the old one back."""
    aside = target.with_name(stamp(target.name, ASIDE))
    with _held(target):
        try:
            target.rename(aside)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            _replace_saved(staging, target)
            return
        try:
            staging.rename(target)
        except BaseException:
            aside.rename(target)
            raise
    _remove(aside)


def _replace_saved(staging: Path, target: Path) -> None:
    """Copy the old folder, remove it, and move the new one in: a folder of a container's image cannot be renamed.

    Killed in between, :func:`restore` puts the copy back.
    """
    copy, saved = (target.with_name(stamp(target.name, kind)) for kind in (STAGING, SAVED))
    try:
        shutil.copytree(target, copy, symlinks=True)
        with _held(copy):
            copy.rename(saved)
            try:
                shutil.rmtree(target)
                staging.rename(target)
            except BaseException:
                _put_back(saved, target)
                raise
        _remove(saved)
    finally:
        _remove(copy)


def _put_back(saved: Path, target: Path) -> None:
    _remove(target)
    saved.rename(target)


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Lock a folder, under whatever name, so that :func:`restore` in other processes knows that this one is alive."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try_lock(descriptor)
        yield
    finally:
        os.close(descriptor)


def _sweep(folder: Path) -> None:
    """Remove what killed processes left in a folder, once per process: a folder may hold many files."""
    if (os.getpid(), folder.absolute()) in _swept or ProcessId.of(folder.name):  # a staging folder is new
        return
    _swept.add((os.getpid(), folder.absolute()))
    with suppress(OSError):
        for found in folder.iterdir():
            if found.name.startswith(".") and f".{STAGING}-" in found.name and is_abandoned(found):
                _remove(found)


def _remove(path: Path) -> None:
    with suppress(OSError):
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() and not path.is_symlink() else path.unlink()
