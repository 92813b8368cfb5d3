import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from deepsim.runtime import backends
from deepsim.runtime.backends import devices
from deepsim.runtime.backends.sessions import Sessions
from deepsim.runtime.backends.torch import Options
from deepsim.runtime.bundle import Bundle
from deepsim.runtime.errors import DeviceError, UsageError
from deepsim.runtime.geometry import CAFFE_FRAMING, Geometry
from tests.bundles import write_bundle, write_files

ROOT = Path(__file__).resolve().parents[3]
# Of a bundle, what no fake session looks at.
CLIPPED = SimpleNamespace(manifest=SimpleNamespace(display="clip", geometry=Geometry.central(CAFFE_FRAMING, 256)))


def test_reasons_name_every_backend_once():
    found = backends.reasons("cpu")
    assert tuple(found) == backends.BACKENDS == ("cpu", "cuda", "onnxruntime", "tensorrt", "tensorrt-rtx", "torch")
    assert all(reason is None or (reason and "\n" not in reason) for reason in found.values())


@pytest.mark.parametrize("missing", ["onnxruntime", "torch", "safetensors"])
def test_missing_package_is_the_reason(monkeypatch, missing):
    backend = "onnxruntime" if missing == "onnxruntime" else "torch"
    module = sys.modules.get(f"deepsim.runtime.backends.{backend}") or backends._module(backend)
    monkeypatch.setattr(module, "find_spec", lambda name: None if name == missing else object())
    assert f"{missing} is not installed" in backends.reasons("cpu")[backend]


def test_nothing_usable_lists_every_reason(monkeypatch, tmp_path):
    bundle = Bundle.open(write_files(tmp_path / "b.deepsim", "tiny", {}))
    for name in backends.AUTO_ORDER:
        monkeypatch.setattr(
            backends._module(name), "reason_unavailable", lambda device="auto", name=name: f"no {name}!"
        )
    told = f"onnxruntime: no onnxruntime!; torch: no torch!); deepsim is {ROOT}."
    with pytest.raises(DeviceError, match=re.escape(told)):
        backends.create("auto", bundle, "auto", 4)
    with pytest.raises(DeviceError, match="backend torch on device cpu: no torch!"):
        backends.create("torch", bundle, "cpu", 4)
    with pytest.raises(UsageError, match="unknown"):
        backends.create("numpy", bundle, "cpu", 4)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [("auto", "auto"), ("cpu", "cpu"), (0, "cuda:0"), ("1", "cuda:1"), ("cuda", "cuda:0"), ("cuda:12", "cuda:12")],
)
def test_parse_device(given, wanted):
    assert devices.parse_device(given) == wanted


@pytest.mark.parametrize("given", [-1, True, 1.0, None, "", "gpu", "cuda:", "cuda:-1", "cuda:1x", 10**6, [0], "CPU"])
def test_devices_that_are_refused(given):
    with pytest.raises(UsageError, match="device"):
        devices.parse_device(given)


class FakeDriver:
    """libcuda with two GPUs, whose n-th call fails."""

    def __init__(self, failing=None):
        self.failing = failing

    def _status(self, name):
        return 999 if name == self.failing else 0

    def cuInit(self, flags):
        return self._status("cuInit")

    def cuDriverGetVersion(self, version):
        version._obj.value = 13010
        return self._status("cuDriverGetVersion")

    def cuDeviceGetCount(self, count):
        count._obj.value = 2
        return self._status("cuDeviceGetCount")

    def cuDeviceGet(self, handle, ordinal):
        handle._obj.value = ordinal
        return self._status("cuDeviceGet")

    def cuDeviceGetName(self, name, size, handle):
        name.value = f"GPU {handle.value}".encode()
        return self._status("cuDeviceGetName")


def test_gpus_as_the_driver_tells(monkeypatch):
    monkeypatch.setattr(devices.ctypes, "CDLL", lambda name: FakeDriver())
    assert devices.find_gpus() == devices.Gpus(("GPU 0", "GPU 1"), "13.1", None)
    for call in ("cuInit", "cuDriverGetVersion", "cuDeviceGetCount"):
        monkeypatch.setattr(devices.ctypes, "CDLL", lambda name, call=call: FakeDriver(call))
        assert devices.find_gpus().names == () and devices.find_gpus().reason
    monkeypatch.setattr(devices.ctypes, "CDLL", lambda name: FakeDriver("cuDeviceGetName"))
    assert devices.find_gpus().names == ("unknown GPU", "unknown GPU")


def test_no_driver(monkeypatch):
    def missing(name):
        raise OSError(name)

    monkeypatch.setattr(devices.ctypes, "CDLL", missing)
    assert "no NVIDIA driver" in devices.find_gpus().reason


@pytest.mark.parametrize("text", ["0", "-1", "four", "1.5", "99999", " 2", "²"])
def test_number_of_threads_is_checked(monkeypatch, text):
    monkeypatch.setenv("DEEPSIM_NUM_THREADS", text)
    with pytest.raises(UsageError, match="DEEPSIM_NUM_THREADS"):
        devices.num_threads()
    monkeypatch.setenv("DEEPSIM_NUM_THREADS", "3")
    assert devices.num_threads() == 3
    monkeypatch.delenv("DEEPSIM_NUM_THREADS")
    assert devices.num_threads() is None


@pytest.mark.parametrize(("usable", "threads"), [(1, 1), (2, 2), (3, None)])
def test_other_libraries_get_no_more_threads_than_a_quota_has_cpus(monkeypatch, usable, threads):
    monkeypatch.delenv("DEEPSIM_NUM_THREADS", raising=False)
    monkeypatch.setattr(devices.os, "sched_getaffinity", lambda process: {0, 1, 2})
    monkeypatch.setattr(devices.native_library, "usable_cpus", lambda: usable)
    assert devices.library_threads() == threads
    monkeypatch.setenv("DEEPSIM_NUM_THREADS", "5")
    assert devices.library_threads() == 5


def test_importing_and_listing_loads_no_heavy_package():
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import runtime; from deepsim.runtime import Inverter\n"
        "import deepsim.runtime.backends.onnxruntime, deepsim.runtime.backends.torch\n"
        "print([m for m in ('torch', 'onnx', 'onnxruntime', 'safetensors', 'h5py', 'scipy') if m in sys.modules])"
    )
    checkout = str(Path(__file__).parents[3])
    done = subprocess.run([sys.executable, "-c", code, checkout], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n", done.stderr


@pytest.fixture
def unusable(monkeypatch):
    """Return a function that makes backends unusable; the others become usable, and nothing is loaded into them."""

    def sessions(name):
        session = SimpleNamespace(name=name)
        return Sessions(name, "cpu", session, session)

    def module(name):
        return SimpleNamespace(create=lambda *rest: sessions(name), Options=Options)

    monkeypatch.setattr(backends, "_module", module)

    def make(**reasons):
        monkeypatch.setattr(backends, "_reason", lambda name, device: reasons.get(name))

    return make


def test_auto_says_what_it_leaves_out_and_why(unusable, caplog):
    unusable(cpu="libdeepsim.so: not built", cuda="no driver")
    assert backends.create("auto", CLIPPED, "auto", 4).decoder.name == "onnxruntime"
    assert caplog.messages == [
        "backend auto: takes onnxruntime and leaves out cpu: libdeepsim.so: not built; cuda: no driver; "
        f"deepsim is {ROOT}."
    ]
    assert caplog.records[0].name == "deepsim"


@pytest.mark.parametrize(("device", "first"), [("auto", "cpu"), ("cpu", "cpu"), ("cuda:0", "cuda")])
def test_auto_is_silent_when_it_takes_its_first_choice(unusable, caplog, device, first):
    unusable()
    assert backends.create("auto", CLIPPED, device, 4).decoder.name == first
    assert caplog.messages == []


def test_a_named_backend_is_taken_in_silence(unusable, caplog):
    unusable(cpu="not built")
    assert backends.create("torch", CLIPPED, "auto", 4).decoder.name == "torch"
    assert caplog.messages == []


def test_what_auto_leaves_out_is_one_line_on_stderr(tmp_path):
    code = "import runtime; print(runtime.Inverter('tiny.deepsim', device='cpu').backend)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "DEEPSIM_LIBRARY": str(tmp_path / "libdeepsim.so")}
    write_bundle(tmp_path)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout == "onnxruntime\n", done.stderr
    assert done.stderr.startswith("backend auto: takes onnxruntime and leaves out cpu: libdeepsim.so: not built")
    assert done.stderr.count("\n") == 1
