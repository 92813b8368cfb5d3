"""The C++ tests of the native library: as they are, under AddressSanitizer + UndefinedBehaviorSanitizer, and under
ThreadSanitizer. The programs build into ``build/``, so that a second run compiles only what changed."""

import subprocess
import sysconfig
from pathlib import Path
from shutil import which

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILDS = {"plain": "", "address-undefined": "address,undefined", "thread": "thread"}


def cmake():
    """Return CMake's path: on PATH, or from the package in this environment."""
    found = which("cmake", path=sysconfig.get_path("scripts")) or which("cmake")
    if found is None:
        pytest.skip("no cmake here")
    return found


def build_and_run(program, name):
    """Build a program with the sanitizers of this name, run it, and fail with what either of them said."""
    folder = ROOT / "build" / f"{program.removeprefix('deepsim_')}-{name}"  # one each: tests run side by side
    configure = [cmake(), "-S", ROOT, "-B", folder, "-DDEEPSIM_BUILD_TESTS=ON", f"-DDEEPSIM_SANITIZE={BUILDS[name]}"]
    subprocess.run(configure, check=True, capture_output=True)
    built = subprocess.run([cmake(), "--build", folder, "--target", program], capture_output=True, text=True)
    assert built.returncode == 0, built.stdout[-3000:] + built.stderr[-3000:]
    done = subprocess.run([folder / "tests/native" / program], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    assert "Status: SUCCESS" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", list(BUILDS))
def test_native_tests_pass(name):
    build_and_run("deepsim_tests", name)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(BUILDS))
def test_emulated_cuda_tests_pass(name):
    build_and_run("deepsim_cuda_tests", name)


@pytest.mark.slow
def test_emulated_cuda_tests_pass_without_assembly():
    build_and_run("deepsim_cuda_tests_portable", "plain")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plain", "address-undefined"])
def test_emulated_hopper_tests_pass(name):
    build_and_run("deepsim_cuda_hopper_tests", name)
