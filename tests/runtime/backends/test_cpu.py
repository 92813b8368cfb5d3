"""What only the native backend promises: equal bits in any batch, its options, and who may use it where."""

import os
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest

from deepsim.runtime import native_library
from deepsim.runtime.errors import DeviceError, UsageError
from deepsim.runtime.inverter import Inverter
from tests.bundles import photographs


@pytest.mark.parametrize("name", ["tiny", "tiny-rgb", "norm2"])
def test_bits_depend_on_neither_batch_nor_position_nor_threads(bundle_of, monkeypatch, name):
    photos = photographs(7, seed=20)
    whole = Inverter(bundle_of(name), "cpu").reconstruct(photos)
    for max_batch, threads in ((1, "1"), (3, "3"), (64, "4")):
        monkeypatch.setenv("DEEPSIM_NUM_THREADS", threads)
        inverter = Inverter(bundle_of(name), "cpu", max_batch=max_batch)
        np.testing.assert_array_equal(inverter.reconstruct(photos), whole)
        np.testing.assert_array_equal(inverter.reconstruct(photos[4:5])[0], whole[4])


def test_every_instruction_set_of_this_machine_agrees(bundle_of, monkeypatch):
    photos = photographs(2, seed=21)
    images = {}
    for name in native_library.instruction_sets():
        monkeypatch.setenv("DEEPSIM_INSTRUCTION_SET", name)
        images[name] = Inverter(bundle_of("norm2"), "cpu").reconstruct(photos).astype(int)
    assert "baseline" in images
    assert all(np.abs(image - images["baseline"]).max() <= 1 for image in images.values())
    monkeypatch.setenv("DEEPSIM_INSTRUCTION_SET", "mmx")
    with pytest.raises(DeviceError, match=r"instruction set 'mmx': not on this machine, it has .*baseline"):
        Inverter(bundle_of("norm2"), "cpu")


def test_half_stored_weights_are_close_but_not_equal(bundle_of):
    photos = photographs(2, seed=22)
    exact = Inverter(bundle_of("tiny"), "cpu").encode(photos)
    half = Inverter(bundle_of("tiny"), "cpu", half_fc_weights=True).encode(photos)
    error = np.linalg.norm(half - exact) / np.linalg.norm(exact)
    assert 1e-6 < error < 1e-3
    with pytest.raises(UsageError, match="half_fc_weights: backend torch has no such option"):
        Inverter(bundle_of("tiny"), "torch", half_fc_weights=True)


def test_threads_share_one_inverter(bundle_of):
    inverter = Inverter(bundle_of("tiny"), "cpu")
    features = np.random.default_rng(23).uniform(0, 2, (8, 20)).astype(np.float32)
    wanted = [inverter.decode(row[None]) for row in features]
    different = []

    def work(index):
        different.extend(index for _ in range(25) if (inverter.decode(features[index][None]) != wanted[index]).any())

    threads = [threading.Thread(target=work, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert different == []


def test_memory_does_not_grow_with_calls(bundle_of):
    inverter = Inverter(bundle_of("tiny"), "cpu")
    features = np.ones((1, 20), np.float32)

    def resident():
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    for _ in range(200):
        inverter.decode(features)
    growth = []
    for _ in range(5):  # a leak grows in each; other libraries of this process may still settle in the first
        before = resident()
        for _ in range(2_000):
            inverter.decode(features)
        growth.append(resident() - before)
    assert sorted(growth)[2] < 1 << 18, growth


def test_c_abi_checks_what_python_does_not_pass_on(bundle_of):
    inverter = Inverter(bundle_of("tiny"), "cpu")._sessions.decoder
    bad = np.full((1, 20), np.nan, np.float32)
    image = np.empty((1, 227, 227, 3), np.uint8)
    call = native_library.call
    with pytest.raises(native_library.errors.DataError, match="features: NaN, expected finite float32"):
        call("deepsim_decode", inverter.handle, bad.ctypes.data, 1, 0, image.ctypes.data)
    with pytest.raises(native_library.errors.ShapeError, match="n: -1"):
        call("deepsim_decode", inverter.handle, bad.ctypes.data, -1, 0, image.ctypes.data)
    with pytest.raises(UsageError, match="input: a null pointer"):
        call("deepsim_decode", inverter.handle, None, 1, 0, image.ctypes.data)


@pytest.fixture
def another_library(monkeypatch, tmp_path):
    monkeypatch.setattr(native_library, "PATH", tmp_path / "libdeepsim.so")
    native_library.load.cache_clear()
    yield tmp_path / "libdeepsim.so"
    monkeypatch.undo()
    native_library.load.cache_clear()


def test_a_missing_library_is_the_reason(another_library):
    assert "not built, expected the native library" in native_library.reason_unavailable()


def test_a_library_of_another_version_is_the_reason(another_library):
    another_library.with_suffix(".c").write_text("int deepsim_open(void) { return 0; }\n")
    subprocess.run(["cc", "-shared", "-o", another_library, another_library.with_suffix(".c")], check=True)
    expected = "has no deepsim_describe, expected a library of this version. Install deepsim again."
    assert native_library.reason_unavailable() == f"libdeepsim.so: {expected}"
