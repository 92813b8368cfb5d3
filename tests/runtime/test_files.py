"""Files and folders that are published by one rename: nothing torn, and nothing left of who was killed."""

import fcntl
import os
from multiprocessing import get_context

import pytest

from deepsim.runtime import files


def test_what_a_killed_process_left_is_removed(tmp_path):
    left = tmp_path / ".latest.staging-abc"
    left.write_text("half")
    files.write_atomic(tmp_path / "latest", "whole\n")
    assert [path.name for path in tmp_path.iterdir()] == ["latest"]
    assert (tmp_path / "latest").read_text() == "whole\n"


def test_what_a_living_process_stages_stays(tmp_path):
    staged = tmp_path / ".latest.staging-abc"
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
        patched.setattr(files, "sync", lambda _: (_ for _ in ()).throw(RuntimeError("no")))
        with pytest.raises(RuntimeError):
            files.write_atomic(path, content)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
