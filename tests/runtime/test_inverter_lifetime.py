"""Threads, forks, closing, running out of memory, leaks."""

import copy
import multiprocessing
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from deepsim.runtime import backends
from deepsim.runtime.backends.sessions import Sessions
from deepsim.runtime.device_arrays import DeviceArray
from deepsim.runtime.errors import DataError, DeviceError, OutOfMemory, UsageError
from deepsim.runtime.inverter import Inverter
from tests.bundles import photographs
from tests.runtime.conftest import UNDER_TEST

FEATURES = np.random.default_rng(5).uniform(0, 2, (7, 20)).astype(np.float32)


def test_sixteen_threads_give_what_one_gives(inverter):
    photos = photographs(3, seed=4)
    work = [
        lambda: inverter.decode(FEATURES[:3]),
        lambda: inverter.encode(photos),
        lambda: inverter.reencode(photos, 2, (1, 2)),
        lambda: inverter.decode(FEATURES[:5], full=True),
    ]
    wanted = [call() for call in work]
    with ThreadPoolExecutor(16) as pool:
        results = list(pool.map(lambda index: (index % 4, work[index % 4]()), range(64)))
    for index, result in results:
        np.testing.assert_array_equal(result, wanted[index])


FORK = """
import os, sys
sys.path[:0] = [{checkout!r}]
import runtime
import numpy as np
from deepsim.runtime import Inverter
from deepsim.runtime.errors import DeviceError
inverter = Inverter({bundle!r}, {backend!r})
features = np.ones((1, 20), np.float32)
before = inverter.decode(features)
child = os.fork()
if child == 0:
    try:
        inverter.decode(features)
    except DeviceError as error:
        os._exit(7 if "fork" in str(error) else 8)
    os._exit(9)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
assert (inverter.decode(features) == before).all()
print("unharmed")
"""


def test_forked_child_gets_an_error_and_the_parent_goes_on(bundle_of, inverter):
    script = FORK.format(
        checkout=str(Path(__file__).parents[2]), bundle=str(bundle_of("tiny")), backend=inverter.backend
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout == "unharmed\n", done.stderr


EXIT = """
import sys, threading, time
sys.path[:0] = [{checkout!r}]
import runtime
import numpy as np
from deepsim.runtime import Inverter
inverter = Inverter({bundle!r}, {backend!r})
photos = np.zeros((8, 227, 227, 3), np.uint8)
def work():
    while True:
        inverter.reencode(photos, 50, (50,))
for _ in range(2):
    threading.Thread(target=work, daemon=True).start()
time.sleep(0.3)
print("leaving")
"""


@pytest.mark.parametrize("backend", [name for name in UNDER_TEST if name in ("cpu", "cuda")])
def test_the_process_may_end_while_threads_are_in_calls(bundle_of, backend):
    """In the native library; threads that PyTorch and ONNX Runtime have in their calls end with std::terminate."""
    script = EXIT.format(checkout=str(Path(__file__).parents[2]), bundle=str(bundle_of("tiny")), backend=backend)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "leaving\n", "")


def test_close_ends_use(bundle_of):
    with Inverter(bundle_of("tiny"), "onnxruntime", "cpu") as inverter:
        inverter.decode(FEATURES[:1])
    inverter.close()
    with pytest.raises(UsageError, match="closed"):
        inverter.decode(FEATURES[:1])
    assert "tiny" in repr(inverter)


class Scarce:
    """A backend with memory for one image."""

    name, device = "scarce", "cpu"

    def decode(self, features, full):
        if len(features) > 1:
            raise OutOfMemory("scarce: needs more. Use a smaller max_batch.")
        return np.full((1, 227, 227, 3), 9, np.uint8)


def test_usable_after_running_out_of_memory(bundle_of, monkeypatch):
    monkeypatch.setattr(backends, "create", lambda *args: Sessions("scarce", "cpu", Scarce()))
    inverter = Inverter(bundle_of("tiny"))
    with pytest.raises(OutOfMemory):
        inverter.decode(FEATURES)
    assert inverter.decode(FEATURES[:1]).max() == 9


class Meeting:
    """A backend on a GPU whose calls end only when two are under way; an image shows its feature's first value."""

    name, device = "meeting", "cuda:0"

    def __init__(self):
        self.barrier = threading.Barrier(2, timeout=30)

    def encode(self, images):
        self.barrier.wait()
        return np.full((len(images), 20), images[:, :1, 0, 0], np.float32)

    def decode(self, features, full):
        self.barrier.wait()
        return np.full((len(features), 227, 227, 3), features.reshape(len(features), -1)[:, :1, None, None], np.uint8)


def test_on_a_gpu_two_chunks_are_under_way_and_order_is_kept(bundle_of, monkeypatch):
    meeting = Meeting()
    monkeypatch.setattr(backends, "create", lambda *args: Sessions("meeting", "cuda:0", meeting, meeting))
    inverter = Inverter(bundle_of("tiny"), max_batch=2)
    features = (
        np.arange(8, dtype=np.float32).repeat(np.prod(inverter.feature_shape)).reshape(8, *inverter.feature_shape)
    )
    assert inverter.decode(features)[:, 100, 100, 1].tolist() == list(range(8))
    assert len(inverter.decode(features[:0])) == 0
    photos = np.full((8, 227, 227, 3), np.arange(8, dtype=np.uint8)[:, None, None, None])
    assert inverter.encode(photos).reshape(8, -1)[:, 0].tolist() == list(range(8))
    features[5] = np.nan
    meeting.barrier = threading.Barrier(1)
    with pytest.raises(DataError):
        inverter.decode(features)


LEAKS = """
import os, sys
sys.path[:0] = [{checkout!r}]
import runtime
import numpy as np
from pathlib import Path
from deepsim.runtime import Inverter

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

def descriptors():
    return len(os.listdir("/proc/self/fd"))

inverter = Inverter({bundle!r}, {backend!r}, "cpu")
photos, features = np.zeros((1, 227, 227, 3), np.uint8), np.ones((1, 20), np.float32)
for call in range(1000):
    if call == 200:
        before, opened = resident(), descriptors()
    inverter.reencode(photos, 1, (1,))
    inverter.decode(features)
grown = resident() - before
for _ in range(20):
    Inverter({bundle!r}, {backend!r}, "cpu").close()
print(grown, descriptors() - opened)
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["cpu", "onnxruntime"])
def test_nothing_leaks(bundle_of, backend):
    """In a process of its own, whose memory nothing else moves; not PyTorch, whose allocator keeps what it likes."""
    script = LEAKS.format(checkout=str(Path(__file__).parents[2]), bundle=str(bundle_of("tiny")), backend=backend)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=600)
    grown, descriptors = map(int, done.stdout.split())
    assert grown < 1 << 20 and descriptors == 0, done.stderr


def _decode_elsewhere(inverter, features):
    return inverter.backend, inverter.device, inverter.max_batch, inverter.decode(features)


def test_an_inverter_sent_to_spawned_workers_opens_there(bundle_of, monkeypatch):
    monkeypatch.chdir(bundle_of("tiny").parent)
    with Inverter("tiny.deepsim", "cpu", max_batch=3, half_fc_weights=True) as inverter:
        monkeypatch.chdir("/")
        wanted = inverter.decode(FEATURES)
        for method in ("spawn", "forkserver"):
            with ProcessPoolExecutor(1, multiprocessing.get_context(method)) as pool:
                found = pool.submit(_decode_elsewhere, inverter, FEATURES).result()
            assert found[:3] == ("cpu", "cpu", 3)
            np.testing.assert_array_equal(found[3], wanted)
        np.testing.assert_array_equal(copy.deepcopy(inverter).decode(FEATURES), wanted)
    with pytest.raises(UsageError, match="closed"):
        pickle.dumps(inverter)


def test_every_backend_can_be_sent(inverter):
    again = pickle.loads(pickle.dumps(inverter))  # noqa: S301  # our own bytes
    assert (again.backend, again.device, again.max_batch) == (inverter.backend, inverter.device, inverter.max_batch)
    np.testing.assert_array_equal(again.decode(FEATURES), inverter.decode(FEATURES))


def test_a_device_array_cannot_be_sent():
    with pytest.raises(DeviceError, match="another process"):
        pickle.dumps(object.__new__(DeviceArray))
