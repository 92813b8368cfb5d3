"""Files that are old or new, never torn: everything is written beside its place, synced, and renamed into it."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from deepsim.runtime.errors import DeviceError, UsageError

_STAGING = ".staging-"
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


def sha256(data: bytes | Path) -> str:
    """Return the hexadecimal SHA-256 of bytes or of a file's content."""
    if isinstance(data, bytes):
        return hashlib.sha256(data).hexdigest()
    digest = hashlib.sha256()
    with data.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sync(path: Path) -> None:
    """Force a file's or folder's content to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a full disk, a missing permission or an I/O error into a DeviceError that names the path."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EACCES, errno.EROFS, errno.EPERM):
            raise
        free = shutil.disk_usage(_existing_parent(path)).free
        raise DeviceError(
            f"{path}: {os.strerror(error.errno)} ({free:,} bytes free). Free some space or choose another folder."
        ) from error


def write_atomic(path: Path, data: bytes | str) -> None:
    """Replace a file's content so that readers and crashes see the old or the new, never a part.

    What a killed process left beside it is removed first.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    content = data.encode() if isinstance(data, str) else data
    _sweep(path)
    with disk_errors(path), _locked_staging(path, _new_file) as staging:
        staging.write_bytes(content)
        sync(staging)
        staging.chmod(0o644)
        staging.replace(path)
        sync(path.parent)


@contextmanager
def publish_folder(target: Path, overwrite: bool = False) -> Iterator[Path]:
    """Yield a staging folder beside ``target``; on success it becomes ``target`` by one rename, else it vanishes.

    Staging folders that a killed process left beside ``target`` are removed first. Raises UsageError when ``target``
    exists and ``overwrite`` is not set; DeviceError on a full disk.
    """
    if target.exists() and not overwrite:
        raise UsageError(f"{target}: exists already. Choose another name, or pass --overwrite to replace it.")
    target.parent.mkdir(parents=True, exist_ok=True)
    _sweep(target)
    with disk_errors(target), _locked_staging(target, tempfile.mkdtemp) as staging:
        staging.chmod(0o755)
        yield staging
        for path in sorted(staging.rglob("*")):
            sync(path)
        sync(staging)
        _rename(staging, target)
        sync(target.parent)


def _new_file(prefix: str, dir: Path) -> str:
    descriptor, name = tempfile.mkstemp(prefix=prefix, dir=dir)
    os.close(descriptor)
    return name


@contextmanager
def _locked_staging(target: Path, create: Callable[..., str]) -> Iterator[Path]:
    """Yield a new file or folder beside ``target``; what is left of it vanishes."""
    staging, descriptor = _create_locked(target, create)
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True) if staging.is_dir() else staging.unlink(missing_ok=True)
        os.close(descriptor)


def _create_locked(target: Path, create: Callable[..., str]) -> tuple[Path, int]:
    """Create it and lock it, which tells _sweep in other processes that this one is alive; again if one was faster."""
    while True:
        staging = Path(create(prefix=f".{target.name}{_STAGING}", dir=target.parent))
        with suppress(FileNotFoundError):
            descriptor = os.open(staging, os.O_RDONLY)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if staging.exists():
                return staging, descriptor
            os.close(descriptor)


def _rename(staging: Path, target: Path) -> None:
    if not target.exists():
        staging.rename(target)
        return
    libc = ctypes.CDLL(None, use_errno=True)  # exchanges both names in one step
    if libc.renameat2(_AT_FDCWD, bytes(staging), _AT_FDCWD, bytes(target), _RENAME_EXCHANGE) != 0:
        raise OSError(ctypes.get_errno(), f"cannot exchange {staging} and {target}")


def _sweep(target: Path) -> None:
    """Remove what killed processes left staged beside ``target``; a living process holds a lock on its own."""
    for stale in target.parent.glob(f".{target.name}{_STAGING}*"):
        with suppress(OSError):
            descriptor = os.open(stale, os.O_RDONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(stale, ignore_errors=True) if stale.is_dir() else stale.unlink()
            finally:
                os.close(descriptor)


def _existing_parent(path: Path) -> Path:
    return next(parent for parent in (path, *path.absolute().parents) if parent.exists())
