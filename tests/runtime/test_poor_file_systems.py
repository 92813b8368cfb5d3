"""File systems that lack locks, syncing, exchanges, links or modes (NFS, Lustre, CIFS, FUSE): all is written."""

import ctypes
import errno
import fcntl
import os
import shutil
import signal
from multiprocessing import get_context
from pathlib import Path

import pytest

from deepsim.runtime import files
from deepsim.runtime.bundle import Bundle
from deepsim.runtime.errors import DeviceError
from deepsim.runtime.processes import ProcessId, stamp
from tests.bundles import write_bundle


def refuse(number):
    def refused(*_, **__):
        raise OSError(number, os.strerror(number))

    return refused


class NoExchange:
    """A C library whose renameat2 knows no flags."""

    def renameat2(self, *_):
        ctypes.set_errno(errno.EINVAL)
        return -1


@pytest.fixture
def no_exchange(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: NoExchange())


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def publish_twice(folder):
    for word in ("old", "new"):
        files.write_atomic(folder / "file", word)
        with files.publish_folder(folder / "bundle", overwrite=True) as staging:
            files.write_atomic(staging / word, word)


@pytest.mark.parametrize(
    ("module", "call", "numbers"),
    [
        (fcntl, "flock", ["ENOSYS", "ENOLCK", "EOPNOTSUPP", "EINVAL", "EBADF"]),
        (os, "fsync", ["EINVAL", "ENOSYS", "EOPNOTSUPP"]),
        (os, "fchmod", ["EPERM", "EOPNOTSUPP"]),
        (os, "chmod", ["EPERM", "EOPNOTSUPP"]),
        (os, "link", ["EPERM", "EMLINK", "EOPNOTSUPP"]),
        (os, "symlink", ["EPERM"]),
    ],
)
def test_everything_is_written_without(tmp_path, monkeypatch, no_exchange, module, call, numbers):
    for number in numbers:
        folder = tmp_path / number
        with monkeypatch.context() as patched:
            patched.setattr(module, call, refuse(getattr(errno, number)))
            publish_twice(folder)
        assert contents(folder) == {"file": "new", "bundle/new": "new"}


def test_a_sync_that_fails_is_told(tmp_path, monkeypatch):
    files.write_atomic(tmp_path / "file", "old")
    monkeypatch.setattr(os, "fsync", refuse(errno.EIO))
    with pytest.raises(DeviceError, match=r"file: Input/output error\.$"):
        files.write_atomic(tmp_path / "file", "new")
    assert contents(tmp_path) == {"file": "old"}


def test_a_second_rename_that_fails_puts_the_old_folder_back(tmp_path, monkeypatch, no_exchange):
    with files.publish_folder(tmp_path / "bundle") as staging:
        (staging / "old").write_text("old")
    rename = Path.rename

    def fail_on_staging(path, target):
        if f".{files.STAGING}-" in path.name:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail_on_staging)
    with pytest.raises(DeviceError), files.publish_folder(tmp_path / "bundle", overwrite=True) as staging:
        (staging / "new").write_text("new")
    assert contents(tmp_path) == {"bundle/old": "old"}


def _die_between_the_renames(folder):
    remove = Path.rename

    def rename(path, target):
        remove(path, target)
        if f".{files.ASIDE}-" in Path(target).name:
            os.kill(os.getpid(), signal.SIGKILL)

    Path.rename = rename
    with files.publish_folder(folder, overwrite=True) as staging:
        (staging / "new").write_text("new")


def kill_between_the_renames(folder):
    process = get_context("fork").Process(target=_die_between_the_renames, args=(folder,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL and not folder.exists()


@pytest.mark.parametrize("locks", [True, False], ids=["with locks", "without locks"])
def test_the_next_process_restores_a_folder_moved_aside(tmp_path, monkeypatch, no_exchange, locks):
    if not locks:
        monkeypatch.setattr(fcntl, "flock", refuse(errno.ENOSYS))
        monkeypatch.setattr(fcntl, "fcntl", refuse(errno.EINVAL))
    folder = tmp_path / ("long" * 40)
    with files.publish_folder(folder) as staging:
        (staging / "old").write_text("old")
    kill_between_the_renames(folder)
    files.restore(folder)
    assert contents(folder) == {"old": "old"}
    kill_between_the_renames(folder)
    with pytest.raises(ZeroDivisionError), files.publish_folder(folder, overwrite=True):
        1 / 0  # noqa: B018
    assert contents(folder) == {"old": "old"}


def test_a_reader_restores_a_bundle_moved_aside(tmp_path, no_exchange):
    bundle = write_bundle(tmp_path)
    kill_between_the_renames(bundle)
    assert Bundle.open(bundle).manifest.name == "tiny"


def test_what_was_replaced_before_the_kill_is_removed(tmp_path):
    (tmp_path / "bundle").mkdir()
    (tmp_path / stamp("bundle", files.ASIDE)).mkdir()
    files.restore(tmp_path / "bundle")
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


@pytest.fixture
def no_folder_renames(no_exchange, monkeypatch):
    """Refuse to rename the folder "bundle", as an overlay refuses for a folder of the image below it."""
    rename = Path.rename

    def rename_others(path, target):
        if path.name == "bundle":
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", rename_others)


def replace_by_new(folder):
    with files.publish_folder(folder, overwrite=True) as staging:
        (staging / "new").write_text("new")


def test_a_folder_that_cannot_be_renamed_is_replaced(tmp_path, no_folder_renames):
    write_old(tmp_path / "bundle")
    replace_by_new(tmp_path / "bundle")
    assert contents(tmp_path) == {"bundle/new": "new"}
    files.remove_folder(tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def write_old(folder):
    folder.mkdir()
    for name in ("a", "b"):
        (folder / name).write_text("old")


@pytest.mark.parametrize("kill", ["before the old folder is removed", "while it is removed", "after it"])
def test_killed_while_a_folder_that_cannot_be_renamed_is_replaced(tmp_path, no_folder_renames, kill):
    folder = tmp_path / "bundle"
    write_old(folder)

    def die(path, **_):
        if kill != "before the old folder is removed":
            (folder / "a").unlink()
        if kill == "after it":
            (folder / "b").unlink()
            folder.rmdir()
        os.kill(os.getpid(), signal.SIGKILL)

    def replace():
        shutil.rmtree = die
        replace_by_new(folder)

    process = get_context("fork").Process(target=replace)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    files.restore(folder)
    assert contents(folder) == {"a": "old", "b": "old"}


def test_where_nothing_locks_the_name_tells_who_lives(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "try_lock", lambda _: None)
    monkeypatch.setattr("deepsim.runtime.locks.try_lock", lambda _: None)
    me = ProcessId.current()
    mine, of_another_boot = (tmp_path / stamp(name, files.STAGING) for name in ("mine", "dead"))
    of_another_boot = of_another_boot.with_name(of_another_boot.name.replace(me.boot, "0" * 8))
    mine.touch()
    of_another_boot.touch()
    files.write_atomic(tmp_path / "file", "text")
    assert mine.exists() and not of_another_boot.exists()


def test_a_file_that_is_mounted_is_written_in_place(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("old")
    inode = path.stat().st_ino
    monkeypatch.setattr(Path, "replace", refuse(errno.EBUSY))
    files.write_atomic(path, "new")
    assert contents(tmp_path) == {"report.html": "new"} and path.stat().st_ino == inode
