"""Files and folders that are published by one rename: nothing torn, and nothing left of who was killed."""

import fcntl
import os
import stat
import subprocess
import sys
from multiprocessing import get_context
from pathlib import Path

import pytest

from deepsim.runtime import files
from deepsim.runtime.errors import DeviceError, UsageError
from deepsim.runtime.processes import stamp


@pytest.fixture
def umask():
    """Set the process's umask for a test."""
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_a_killed_process_left_is_removed(tmp_path):
    (tmp_path / stamp("latest", "staging")).write_text("half")
    (tmp_path / stamp("other", "staging")).mkdir()
    files.write_atomic(tmp_path / "latest", "whole\n")
    assert names(tmp_path) == ["latest"]
    assert (tmp_path / "latest").read_text() == "whole\n"


def test_what_a_living_process_stages_stays(tmp_path):
    staged = tmp_path / stamp("latest", "staging")
    staged.write_text("half")
    descriptor = os.open(staged, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        files.write_atomic(tmp_path / "latest", "whole\n")
        assert staged.exists()
    finally:
        os.close(descriptor)


def _write_often(path):
    for _ in range(100):
        files.write_atomic(path, "x" * 1000)


def test_processes_that_replace_the_same_file_do_not_disturb_each_other(tmp_path):
    processes = [get_context("fork").Process(target=_write_often, args=(tmp_path / "file",)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "x" * 1000


@pytest.mark.parametrize("content", ["text", b"bytes"])
def test_a_write_that_fails_leaves_the_old_file_alone(tmp_path, monkeypatch, content):
    path = tmp_path / "file"
    files.write_atomic(path, "old")
    with monkeypatch.context() as patched:
        patched.setattr(files, "_fsync", lambda _: (_ for _ in ()).throw(RuntimeError("no")))
        with pytest.raises(RuntimeError):
            files.write_atomic(path, content)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_block_that_fails_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), files.replacing(path) as file:
        file.write(b"new")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and names(tmp_path) == ["file"]


def test_the_new_file_can_be_read_before_it_is_published(tmp_path):
    with files.replacing(tmp_path / "file") as file:
        file.write(b"abc")
        file.seek(1)
        assert file.read() == b"bc" and not (tmp_path / "file").exists()
    assert (tmp_path / "file").read_bytes() == b"abc"


@pytest.mark.parametrize(("mask", "expected"), [(0o077, 0o600), (0o002, 0o664), (0o022, 0o644)])
def test_new_files_and_folders_have_the_modes_of_the_umask(tmp_path, umask, mask, expected):
    umask(mask)
    files.write_atomic(tmp_path / "deep/file", "text")
    with files.publish_folder(tmp_path / "folder") as staging:
        files.write_atomic(staging / "file", "text")
    folder_mode = 0o777 & ~mask
    assert mode(tmp_path / "deep/file") == mode(tmp_path / "folder/file") == expected
    assert mode(tmp_path / "deep") == mode(tmp_path / "folder") == folder_mode


def test_what_is_replaced_keeps_its_mode(tmp_path, umask):
    path, folder = tmp_path / "file", tmp_path / "folder"
    path.write_text("old")
    path.chmod(0o640)
    folder.mkdir(0o750)
    files.write_atomic(path, "new")
    with files.publish_folder(folder, overwrite=True) as staging:
        (staging / "new").touch()
    assert (path.read_text(), mode(path)) == ("new", 0o640)
    assert (names(folder), mode(folder)) == (["new"], 0o750)


@pytest.mark.parametrize(
    "name",
    [
        "r**x.npy",
        "[a]?*.npy",
        "two\nlines",
        "-o",
        "...",
        ".hidden",
        "ä" * 127,
        "x" * 255,
        os.fsdecode(b"\xff\xfe" * 127),
    ],
)
def test_any_name_is_an_ordinary_name(tmp_path, name):
    for content in ("old", "new"):
        files.write_atomic(tmp_path / name, content)
    assert (tmp_path / name).read_text() == "new" and names(tmp_path) == [name]


@pytest.mark.parametrize("name", ["r**x.deepsim", "x" * 255])
def test_any_name_is_an_ordinary_name_of_a_folder(tmp_path, name):
    for content in ("old", "new"):
        with files.publish_folder(tmp_path / name, overwrite=True) as staging:
            (staging / content).touch()
    assert names(tmp_path / name) == ["new"] and names(tmp_path) == [name]


def test_a_pattern_in_a_name_matches_no_other_file(tmp_path):
    (tmp_path / ".rx.npy.staging-mine").write_text("a user's own")
    files.write_atomic(tmp_path / "r*.npy", "text")
    assert (tmp_path / ".rx.npy.staging-mine").exists()


@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("dangling", [False, True])
def test_a_symbolic_link_stays_and_its_target_is_written(tmp_path, absolute, dangling):
    real, first, second = tmp_path / "data/real", tmp_path / "links/first", tmp_path / "second"
    for folder in (real.parent, first.parent):
        folder.mkdir()
    if not dangling:
        real.write_text("old")
    first.symlink_to(real if absolute else Path("../data/real"))
    second.symlink_to(first if absolute else Path("links/first"))
    files.write_atomic(second, "new")
    assert first.is_symlink() and second.is_symlink()
    assert real.read_text() == "new" and names(real.parent) == ["real"]


def test_a_symbolic_link_to_a_folder_stays(tmp_path):
    real, link = tmp_path / "disk/real", tmp_path / "link"
    real.mkdir(parents=True)
    (real / "old").touch()
    link.symlink_to("disk/real")
    with files.publish_folder(link, overwrite=True) as staging:
        (staging / "new").touch()
    assert link.is_symlink() and names(real) == ["new"] and names(real.parent) == ["real"]


def test_links_that_lead_nowhere_are_refused(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    (tmp_path / "lost").symlink_to("no-such-folder/file")
    with pytest.raises(UsageError, match="a loop of symbolic links"):
        files.write_atomic(tmp_path / "a", "text")
    with pytest.raises(DeviceError, match="lost: No such file or directory"):
        files.write_atomic(tmp_path / "lost", "text")
    assert names(tmp_path) == ["a", "b", "lost"]


def test_devices_and_pipes_are_written_and_not_replaced(tmp_path):
    files.write_atomic(Path("/dev/null"), "text")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    files.write_atomic(fifo, "text")
    assert os.read(reader, 10) == b"text" and names(tmp_path) == ["fifo"]
    os.close(reader)
    with pytest.raises(DeviceError, match="/dev/full: No space left on device"):
        files.write_atomic(Path("/dev/full"), "text")


def test_standard_output_is_written_as_a_file():
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); import runtime; from pathlib import Path\n"
        "from deepsim.runtime.files import reserved, write_atomic\n"
        "with reserved(Path('/dev/stdout')): write_atomic(Path('/dev/stdout'), 'text')\n"
    )
    checkout = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", script, checkout], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("text", "")


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(UsageError, match="Is a directory"):
        files.write_atomic(tmp_path, "text")
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"Not a directory|File exists"):
        files.write_atomic(tmp_path / "file/below", "text")
