"""What only the backend cuda promises; run by test_cuda.py, where a GPU is emulated."""

import numpy as np
import pytest

from deepsim.runtime import available_backends, native_library
from deepsim.runtime.errors import DeviceError, UsageError
from deepsim.runtime.inverter import Inverter
from tests.bundles import photographs


def test_cuda_is_usable_and_named(bundle_of):
    assert available_backends()["cuda"] is None
    inverter = Inverter(bundle_of("tiny"), "cuda", 0)
    assert (inverter.backend, inverter.device) == ("cuda", "cuda:0")
    assert Inverter(bundle_of("tiny"), "auto", "cuda").backend == "cuda"
    with pytest.raises(DeviceError, match=r"device cuda:1: not here, the driver sees 1 GPU"):
        Inverter(bundle_of("tiny"), "cuda", 1)
    with pytest.raises(DeviceError, match="it runs on GPUs only"):
        Inverter(bundle_of("tiny"), "cuda", "cpu")


def test_cuda_precisions_differ_and_are_near(bundle_of):
    photos = photographs(2, seed=31)
    exact = Inverter(bundle_of("tiny"), "cpu").encode(photos)
    errors = {}
    for precision in ("fp16", "bf16", "fp32"):
        found = Inverter(bundle_of("tiny"), "cuda", precision=precision).encode(photos)
        errors[precision] = np.linalg.norm(found - exact) / np.linalg.norm(exact)
    assert 1e-5 < errors["fp16"] < 2e-3 and 4 * errors["fp16"] < errors["bf16"] < 2e-2
    assert 0 < errors["fp32"] < 1e-5
    with pytest.raises(UsageError, match="precision 'fp8': unknown on a GPU, expected fp16, bf16 or fp32"):
        Inverter(bundle_of("tiny"), "cuda", precision="fp8")
    with pytest.raises(UsageError, match="precision: backend cpu has no such option, only cuda has"):
        Inverter(bundle_of("tiny"), "cpu", precision="fp16")
    with pytest.raises(UsageError, match="half_fc_weights: backend cuda has no such option, only cpu has"):
        Inverter(bundle_of("tiny"), "cuda", half_fc_weights=True)


def test_cuda_images_in_fp32_are_those_of_the_cpu_but_for_a_few_levels(bundle_of):
    features = Inverter(bundle_of("tiny"), "cpu").encode(photographs(2, seed=35))
    wanted = Inverter(bundle_of("tiny"), "cpu").decode(features, full=True).astype(int)
    difference = abs(Inverter(bundle_of("tiny"), "cuda", precision="fp32").decode(features, full=True) - wanted)
    assert difference.max() <= 1 and np.mean(difference) < 1e-3


def test_cuda_fp32_has_kernels_of_its_own(bundle_of, monkeypatch):
    monkeypatch.setenv("DEEPSIM_CUDA_KERNELS", "wgmma")
    with pytest.raises(UsageError, match="kernels 'wgmma': precision is fp32, expected fp16 or bf16"):
        Inverter(bundle_of("tiny"), "cuda", precision="fp32")


def test_cuda_stable_bits_depend_on_neither_batch_nor_position(bundle_of):
    photos = photographs(3, seed=32)
    whole = Inverter(bundle_of("tiny"), "cuda", stable=True).reconstruct(photos)
    for max_batch in (1, 2):
        inverter = Inverter(bundle_of("tiny"), "cuda", max_batch=max_batch, stable=True)
        np.testing.assert_array_equal(inverter.reconstruct(photos), whole)


def test_cuda_device_check_names_what_is_missing(monkeypatch):
    native_library.check_device("cuda:0", "bf16")
    monkeypatch.setenv("DEEPSIM_STAND_IN_ARCHITECTURE", "75")
    with pytest.raises(DeviceError, match=r"compute capability 7.5, expected 8.0 or later for bf16. Use fp16"):
        native_library.check_device("cuda:0", "bf16")
    monkeypatch.setenv("DEEPSIM_STAND_IN_ARCHITECTURE", "61")
    with pytest.raises(DeviceError, match=r"compute capability 6.1, expected 7.5 or later. Use backend cpu"):
        native_library.check_device("cuda:0")


DESCRIBED = [
    (
        {},
        "fp16",
        "mma.sync; machine code for compute capability 8.0; no kernel starts early: that takes compute capability 9.0",
    ),
    (
        {},
        "fp32",
        "fp32 without tensor cores; machine code for compute capability 8.0; no kernel starts early: that takes",
    ),
    (
        {"DEEPSIM_STAND_IN_ARCHITECTURE": "90"},
        "fp16",
        "wgmma, and mma.sync where that is faster; machine code for compute capability 9.0; kernels start early",
    ),
    (
        {"DEEPSIM_STAND_IN_ARCHITECTURE": "90", "DEEPSIM_CUDA_KERNELS": "mma", "DEEPSIM_CUDA_OVERLAP": "0"},
        "bf16",
        "mma.sync (DEEPSIM_CUDA_KERNELS); machine code for compute capability 9.0; no kernel starts early: "
        "DEEPSIM_CUDA_OVERLAP is 0",
    ),
    (
        {"DEEPSIM_STAND_IN_ARCHITECTURE": "120", "DEEPSIM_STAND_IN_COMPILED_FOR": "80"},
        "fp16",
        "mma.sync; machine code for compute capability 12.0; no kernel starts early: they were compiled for compute",
    ),
]


@pytest.mark.parametrize(("environment", "precision", "told"), DESCRIBED)
def test_cuda_kernels_are_described(monkeypatch, environment, precision, told):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert native_library.describe_kernels("cuda:0", precision).startswith(told)


def test_cuda_kernels_that_cannot_run_are_not_described(monkeypatch):
    monkeypatch.setenv("DEEPSIM_STAND_IN_ARCHITECTURE", "61")
    with pytest.raises(DeviceError, match=r"compute capability 6.1, expected 7.5 or later. Use backend cpu"):
        native_library.describe_kernels("cuda:0")
    monkeypatch.setenv("DEEPSIM_STAND_IN_ARCHITECTURE", "90")
    monkeypatch.setenv("DEEPSIM_CUDA_OVERLAP", "yes")
    with pytest.raises(UsageError, match="DEEPSIM_CUDA_OVERLAP: 'yes', expected 0 or 1"):
        native_library.describe_kernels("cuda:0")


def test_cuda_streams_batches_two_at_a_time(bundle_of, monkeypatch):
    inverter = Inverter(bundle_of("tiny"), "cuda", 0, max_batch=2, stable=True)
    photos = photographs(5, seed=36)
    wanted = inverter.reconstruct(photos)
    for late in ("", "0", "1"):
        monkeypatch.setenv("DEEPSIM_STAND_IN_LATE", late)
        batches = list(inverter.stream(iter(photos), batch=2))
        assert [len(batch) for batch in batches] == [2, 2, 1]
        np.testing.assert_array_equal(np.concatenate(batches), wanted)
