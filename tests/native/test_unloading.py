"""The native library is unloaded, closed, forked and left: no thread stays, and nothing crashes or hangs."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.bundles import write_bundle

START = """
import _ctypes, os, sys, threading, time
sys.path[:0] = [{root!r}]
import runtime
import numpy as np
from pathlib import Path
from deepsim.runtime import native_library
from deepsim.runtime.bundle import Bundle
from deepsim.runtime.native_inverter import NativeInverter

BUNDLE = Bundle.open({bundle!r})
FEATURES, PHOTOS = np.ones((2, 20), np.float32), np.zeros((2, 227, 227, 3), np.uint8)

def inverter(threads=4):
    return NativeInverter(BUNDLE, max_batch=4, threads=threads)

def unload():
    library = native_library.load()
    native_library.load.cache_clear()
    _ctypes.dlclose(library._handle)

def loaded():
    return "libdeepsim" in Path("/proc/self/maps").read_text()

def threads(expected=1):
    # One that was joined may be listed a moment longer.
    until = time.monotonic() + 2
    while (found := len(os.listdir("/proc/self/task"))) != expected and time.monotonic() < until:
        time.sleep(0.001)
    return found

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

def descriptors():
    return len(os.listdir("/proc/self/fd"))

def exit_code_of(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_bundle(tmp_path_factory.mktemp("bundle"))


def run(bundle, script, timeout=100):
    """Run a script after START in a process of its own; return what it printed. It ends well, and says nothing else."""
    start = START.format(root=str(Path(__file__).parents[2]), bundle=str(bundle))
    done = subprocess.run([sys.executable, "-c", start + script], capture_output=True, text=True, timeout=timeout)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


def test_rounds_of_loading_and_unloading_leave_nothing(bundle):
    printed = run(
        bundle,
        """
images = set()
for number in range(90):
    if number == 50:
        before, opened = resident(), descriptors()
    own = inverter()
    images.add(own.decode(FEATURES, False).tobytes())
    own._close()
    assert threads() == 1, number
    unload()
    assert not loaded()
print(len(images), resident() - before < 1 << 20, descriptors() - opened)
""",
    )
    assert printed == ["1", "True", "0"]


def test_inverters_of_one_number_of_threads_share_them_and_the_last_ends_them(bundle):
    printed = run(
        bundle,
        """
first, second, third = inverter(3), inverter(3), inverter(2)
print(threads(4))
first._close()
third._close()
print(threads(3))
assert (second.decode(FEATURES, False) == inverter(5).decode(FEATURES, False)).all()
second._close()
print(threads())
""",
    )
    assert printed == ["4", "3", "1"]


def test_closing_in_several_threads_at_once(bundle):
    printed = run(
        bundle,
        """
def work():
    for number in range(10):
        own = inverter(1 + number % 4)
        own.decode(FEATURES, False)
        own._close()
running = [threading.Thread(target=work) for _ in range(8)]
for each in running: each.start()
for each in running: each.join()
while threads() > 1:  # Python's own are there for a moment after they were joined; others would stay
    time.sleep(0.01)
print(threads())
""",
    )
    assert printed == ["1"]


def test_unloading_ends_the_threads_of_inverters_that_are_open(bundle):
    printed = run(
        bundle,
        """
own = inverter()
own.decode(FEATURES, False)
own._close.detach()
unload()
print(loaded(), threads())
""",
    )
    assert printed == ["False", "1"]


def test_a_child_of_a_fork_closes_what_its_parent_opened_and_opens_its_own(bundle):
    """The child begins while another thread is in a call: what that thread holds, nobody gives back in the child."""
    printed = run(
        bundle,
        """
kept, ended = inverter(), threading.Event()
wanted = kept.decode(FEATURES, False)
def work():
    while not ended.is_set():
        kept.reencode(PHOTOS, 3, (3,))
caller = threading.Thread(target=work)
caller.start()
for _ in range(5):
    time.sleep(0.02)
    child = os.fork()
    if child == 0:
        kept._close()
        own = inverter()
        same = (own.decode(FEATURES, False) == wanted).all()
        own._close()
        unload()
        os._exit(0 if same and not loaded() and threads() == 1 else 1)
    print(exit_code_of(child))
ended.set()
caller.join()
assert (kept.decode(FEATURES, False) == wanted).all()
""",
    )
    assert printed == ["0"] * 5


def test_a_child_may_end_as_a_program_does(bundle):
    printed = run(
        bundle,
        """
kept = inverter()
kept.decode(FEATURES, False)
child = os.fork()
if child == 0:
    sys.exit(5)
print(exit_code_of(child))
""",
    )
    assert printed == ["5"]


def test_signals_are_delivered_to_the_threads_of_the_application(bundle):
    printed = run(
        bundle,
        """
kept = inverter()
own = str(os.getpid())

def blocked():
    found = []
    for task in set(os.listdir("/proc/self/task")) - {own}:
        status = Path("/proc/self/task", task, "status").read_text()
        mask = int(status.split("SigBlk:")[1].split()[0], 16)
        found += [bool(mask >> 14 & 1), bool(mask >> 1 & 1), bool(mask >> 10 & 1)]  # SIGTERM, SIGINT, SIGSEGV
    return found

until = time.monotonic() + 10
while blocked() != [True, True, False] * 3 and time.monotonic() < until:
    time.sleep(0.01)  # glibc starts a thread with every signal blocked
print(*blocked(), sep="\\n")
""",
    )
    assert printed == ["True", "True", "False"] * 3
