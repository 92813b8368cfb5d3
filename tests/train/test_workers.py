"""Reading processes: no shared-memory file system, a death told at once with its reason, and nothing left behind."""

import faulthandler
import itertools
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from deepsim.runtime.errors import DeviceError, OutOfMemory  # noqa: E402
from deepsim.runtime.geometry import CAFFE_FRAMING  # noqa: E402
from deepsim.train import workers as workers_module  # noqa: E402
from deepsim.train.data import batches  # noqa: E402
from tests.train.runs import write_photographs  # noqa: E402
from tests.train.test_data import Numbered  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
TRAIN = [
    *(sys.executable, str(ROOT / "train/run.py"), "--preset", "tiny", "--width", "0.015625", "--threads", "1"),
    *("--lambda-adv", "0", "--lambda-feat", "0"),
]


class Fatal(Numbered):
    """Images of which the third does something bad to the process that reads it."""

    def __init__(self, deed):
        super().__init__(8)
        self.deed, self.parent = deed, os.getpid()

    def load(self, index):
        if index == 3 and os.getpid() != self.parent:
            self.deed()
        return super().load(index)


def raises(error):
    raise error


def stream(dataset, workers=2, batch=2):
    return batches(dataset, CAFFE_FRAMING, batch, 0, 0, False, 0.0, workers=workers)


def exhaust(dataset, **options):
    for _ in itertools.islice(stream(dataset, **options), 8):
        pass


@pytest.fixture(autouse=True)
def nothing_is_left_behind():
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    yield
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize(
    ("deed", "words"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGKILL), r"SIGKILL at numbered 3.*memory ran out: pass fewer --workers"),
        (
            lambda: (faulthandler.disable(), os.kill(os.getpid(), signal.SIGSEGV)),
            r"SIGSEGV at numbered 3.*remove this image",
        ),
        (lambda: os._exit(7), r"exit code 7 at numbered 3.*--workers 0"),
    ],
    ids=["killed", "crashed", "left"],
)
def test_a_worker_that_dies_is_told_of_with_its_reason_and_its_image(deed, words):
    with pytest.raises(DeviceError, match=rf"worker \d: ended by {words}") as caught:
        exhaust(Fatal(deed))
    assert caught.value.exit_code == 4
    assert "\n" not in str(caught.value)


def test_a_worker_killed_between_two_batches():
    iterator = stream(Numbered(8))
    next(iterator)
    for child in multiprocessing.active_children():
        child.kill()
        child.join()
    with pytest.raises(DeviceError, match=r"worker \d: ended by SIGKILL( at numbered \d)?, expected a batch"):
        next(itertools.islice(iterator, 8, None))


def test_what_a_worker_raises_is_raised_here():
    with pytest.raises(OutOfMemory, match=r"worker \d: not enough memory for image 3"):
        exhaust(Fatal(lambda: raises(MemoryError())))
    with pytest.raises(RuntimeError, match=r"(?s)Traceback.*ZeroDivisionError: made up"):
        exhaust(Fatal(lambda: raises(ZeroDivisionError("made up"))))


@pytest.mark.parametrize("started", [0, 2])
def test_processes_that_do_not_start_are_one_line(monkeypatch, started):
    fork, left = os.fork, iter([True] * started)
    monkeypatch.setattr(os, "fork", lambda: fork() if next(left, False) else raises(BlockingIOError(11, "again")))
    with pytest.raises(
        DeviceError, match=rf"--workers 3: process {started + 1} does not start \(.*\).*--workers {started}"
    ):
        next(stream(Numbered(8), workers=3))


def test_no_memory_to_share_is_one_line(monkeypatch):
    monkeypatch.setattr(workers_module.mmap, "mmap", lambda *given: raises(OSError(12, "Cannot allocate memory")))
    with pytest.raises(DeviceError, match=r"--workers 2: process 1 does not start \(Cannot allocate memory\)"):
        next(stream(Numbered(8)))


def test_more_workers_than_processors_are_told(caplog):
    many = len(os.sched_getaffinity(0)) + 1
    iterator = stream(Numbered(8), workers=many)
    assert next(iterator).shape == (2, 227, 227, 3)
    iterator.close()
    assert f"--workers {many}: more than the {many - 1} processors here" in caplog.text


def test_batches_stay_what_they_were_while_others_are_made():
    """A worker writes on in the memory that a batch came in, so that what is yielded has to be a copy."""
    kept = list(itertools.islice(stream(Numbered(8), workers=1), 10))
    before = [batch.clone() for batch in kept]
    again = list(itertools.islice(stream(Numbered(8), workers=0), 10))
    assert all(map(torch.equal, kept, before))
    assert all(map(torch.equal, kept, again))


def test_closing_ends_a_worker_that_does_not_listen(monkeypatch):
    monkeypatch.setattr(workers_module, "_PATIENCE", 0.2)

    def fill(samples, pixels, begin):
        if samples[0][1] == 1:
            time.sleep(600)
        return []

    made = workers_module.make_batches(fill, iter([[(0, number)] for number in range(5)]), (1, 2, 2, 3), 1, str)
    next(made)
    made.close()  # while the worker sleeps over the second batch


def processes_of(session):
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_a_signal_leaves_no_process(tmp_path, number, code):
    write_photographs(tmp_path / "photos")
    command = [*TRAIN, "--data", "photos", "-o", "r", "--steps", "100000", "--workers", "2", "--log-every", "1"]
    run = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert any(line.startswith("step 2 ") for line in run.stderr)
    assert len(processes_of(run.pid)) >= 3
    if number == signal.SIGKILL:
        os.kill(run.pid, number)
    else:
        os.killpg(run.pid, number)  # as a terminal and a container's end do
    run.communicate(timeout=120)
    assert run.returncode == code
    deadline = time.monotonic() + 20
    while processes_of(run.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes_of(run.pid) == []


def test_a_small_dev_shm_is_enough(tmp_path):
    """Batches of 2.5 MB by four workers, where /dev/shm has 64 KiB; training stood still there."""
    if shutil.which("unshare") is None:
        pytest.skip("no unshare here")
    mount = "mount -t tmpfs -o size=64k tmpfs /dev/shm"
    if subprocess.run(["unshare", "-m", "sh", "-c", mount], capture_output=True).returncode != 0:
        pytest.skip("may not mount here")
    write_photographs(tmp_path / "photos")
    command = [*TRAIN, "--data", "photos", "-o", "r", "--steps", "1", "--workers", "4", "--batch", "16"]
    script = f'{mount} && exec "$@"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", *command], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "r/checkpoints/step-00000001").is_dir()


def test_no_shared_memory_file_is_opened(monkeypatch):
    """Also where nothing may be mounted: torch's shared tensors and semaphores live in /dev/shm, and are not used."""
    from multiprocessing import synchronize

    for owner, name in ((torch.Tensor, "share_memory_"), (torch.UntypedStorage, "_share_fd_cpu_")):
        monkeypatch.setattr(owner, name, lambda *given, **named: raises(AssertionError("shared memory")))
    monkeypatch.setattr(synchronize.SemLock, "__init__", lambda *given: raises(AssertionError("a semaphore")))
    found = next(stream(Numbered(8), workers=2))
    assert isinstance(found.numpy(), np.ndarray)
