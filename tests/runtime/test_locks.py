"""Locks between processes: one holds it, a killed one does not, also where the file system has no locks."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time
from multiprocessing import get_context
from pathlib import Path

import pytest

from deepsim.runtime import files, locks
from deepsim.runtime.errors import UsageError
from deepsim.runtime.processes import ProcessId, stamp


def refuse(number):
    def refused(*_):
        raise OSError(number, os.strerror(number))

    return refused


@pytest.fixture(params=["flock", "open file locks", "folders"])
def mechanism(request, monkeypatch):
    """Run a test with each kind of lock, as a file system without the others has it."""
    if request.param != "flock":
        monkeypatch.setattr(fcntl, "flock", refuse(errno.ENOSYS))
    if request.param == "folders":
        monkeypatch.setattr(fcntl, "fcntl", refuse(errno.EINVAL))
    return request.param


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run/.lock"


def is_free(path):
    try:
        with locks.locked(path, "run"):
            return True
    except UsageError:
        return False


def test_a_second_holder_is_refused_in_one_line(mechanism, path):
    with (
        locks.locked(path, "runs/demo"),
        pytest.raises(UsageError, match=rf"^runs/demo: in use by process {os.getpid()} on host \S+\. [^\n]*$"),
        locks.locked(path, "runs/demo"),
    ):
        pass
    assert is_free(path)


def test_nothing_stays_behind(mechanism, path):
    with locks.locked(path, "run"):
        assert path.parent.exists()
    assert not path.parent.exists()
    with pytest.raises(KeyboardInterrupt), locks.locked(path, "run"):
        (path.parent / "result").touch()
        raise KeyboardInterrupt
    assert [found.name for found in path.parent.iterdir()] == ["result"]


def _hold(path, ready):
    with locks.locked(path, "run"):
        ready.set()
        time.sleep(600)


def _in_a_child(path):
    ready = get_context("fork").Event()
    process = get_context("fork").Process(target=_hold, args=(path, ready))
    process.start()
    assert ready.wait(60)
    return process


def test_a_killed_process_holds_nothing(mechanism, path):
    process = _in_a_child(path)
    assert not is_free(path)
    os.kill(process.pid, signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, but nobody has asked for its exit code yet
    assert is_free(path)
    process.join()


def test_a_forked_child_does_not_hold_the_lock_of_its_parent(mechanism, path):
    with locks.locked(path, "run"):
        child = get_context("fork").Process(target=time.sleep, args=(600,))
        child.start()
    assert is_free(path)
    child.kill()
    child.join()


def _leave(path):
    with locks.locked(path, "run"):
        if os.fork() == 0:
            raise SystemExit  # unwinds the parent's lock
        os.wait()
        os._exit(0 if not is_free(path) else 1)


def test_a_forked_child_that_unwinds_does_not_give_it_back(mechanism, path):
    process = get_context("fork").Process(target=_leave, args=(path,))
    process.start()
    process.join()
    assert process.exitcode == 0


def _count(path, log, rounds):
    for _ in range(rounds):
        while True:
            try:
                with locks.locked(path, "run"):
                    held = os.open(log.with_name("held"), os.O_CREAT | os.O_EXCL)  # fails if two hold it
                    os.close(held)
                    log.with_name("held").unlink()
                    with log.open("a") as file:
                        file.write("x")
                break
            except UsageError:
                time.sleep(0.001)


def test_many_processes_hold_it_one_at_a_time(mechanism, path, tmp_path):
    processes = [get_context("fork").Process(target=_count, args=(path, tmp_path / "log", 25)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert (tmp_path / "log").read_text() == "x" * 100


def test_a_lock_of_another_host_is_respected_where_only_folders_lock(monkeypatch, path):
    monkeypatch.setattr(locks, "try_lock", lambda _: None)
    other = "00000000.00000000.0.1.1-00000000"
    held = path.with_name(".lock.d") / f"x-{other}"
    held.parent.mkdir(parents=True)
    held.write_text("process 1 on host elsewhere")
    with (
        pytest.raises(UsageError, match=r"run: in use by process 1 on host elsewhere\. .*or remove .*\.lock\.d"),
        locks.locked(path, "run"),
    ):
        pass


def test_processes_are_told_apart_by_boot_and_start():
    me = ProcessId.current()
    assert ProcessId.of(stamp("name", "staging")) == me and not me.is_gone()
    assert ProcessId(me.host, "00000000", me.namespace, me.number, me.started).is_gone()
    assert ProcessId(me.host, me.boot, me.namespace, me.number, me.started + 1).is_gone()
    assert not ProcessId("00000000", me.boot, me.namespace, me.number, me.started + 1).is_gone()
    assert not ProcessId(me.host, me.boot, me.namespace + 1, me.number, me.started + 1).is_gone()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert ProcessId(me.host, me.boot, me.namespace, ended.pid, 1).is_gone()
    assert ProcessId.of("name") is None


def test_an_output_is_reserved_under_any_name_and_through_links(tmp_path):
    real, link = tmp_path / ("x" * 250), tmp_path / "link"
    link.symlink_to(real.name)
    with files.reserved(real):
        with pytest.raises(UsageError, match=f"^{link}: in use by process {os.getpid()}"), files.reserved(link):
            pass
        with files.reserved(tmp_path / ("x" * 249)):
            pass
    assert [path.name for path in tmp_path.iterdir()] == ["link"]
    with files.reserved(Path("/dev/null")), files.reserved(Path("/dev/null")):
        pass


def test_what_is_abandoned_is_taken_over_by_one(tmp_path):
    left, other = (tmp_path / stamp(name, "saved") for name in ("left", "other"))
    left.mkdir()
    with locks.taken_over(left) as taken, locks.taken_over(left) as again:
        assert taken and not again
        left.rename(other)
        with locks.taken_over(left) as gone, locks.taken_over(tmp_path) as of_no_process:
            assert not gone and not of_no_process
    assert locks.is_abandoned(other)


def test_what_moved_away_before_it_was_locked_is_not_taken_over(tmp_path, monkeypatch):
    left = tmp_path / stamp("left", "saved")
    left.mkdir()
    try_lock = locks.try_lock

    def move_and_lock(descriptor):
        left.rename(tmp_path / "restored")
        return try_lock(descriptor)

    monkeypatch.setattr(locks, "try_lock", move_and_lock)
    assert not locks.is_abandoned(left)
