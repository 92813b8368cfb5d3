"""The backend cuda without a GPU: tests of every backend run once more, in a process of their own, on a library whose
kernels are emulated behind what stands in for NVIDIA's driver."""

import subprocess
import sys

import pytest

from deepsim.runtime.backends import cuda
from tests.native.test_native import ROOT

# Emulated, the others take minutes.
CHOSEN = "(cuda or emulated) and not norm2 and not sixteen and not chunks and not number_of_threads"
# By compute capability: on Hopper, kernels are others and start early.
SUITES = {
    "80": (
        "test_encoder_kinds.py",
        "test_raw.py",
        "backends/cuda_on_an_emulated_gpu.py",
        "backends/cuda_arrays_on_an_emulated_gpu.py",
    ),
    "90": ("test_parity.py", "test_inverter.py", "test_inverter_lifetime.py"),
}


@pytest.mark.slow
@pytest.mark.parametrize("architecture", SUITES)
def test_every_backends_tests_pass_on_an_emulated_gpu(emulated, architecture):
    files = [ROOT / "tests/runtime" / name for name in SUITES[architecture]]
    chosen = ["-k", CHOSEN, "-p", "no:cacheprovider", "--durations=5"]
    command = [sys.executable, "-m", "pytest", "-q", *chosen, *map(str, files)]
    environment = {**emulated, "DEEPSIM_STAND_IN_ARCHITECTURE": architecture}
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200, env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert int(done.stdout.split(" passed")[0].split()[-1]) > 25


def test_reasons_are_one_line():
    assert cuda.reason_unavailable("cpu") == "it runs on GPUs only"
    reason = cuda.reason_unavailable("auto")
    assert reason is None or (reason and "\n" not in reason)
