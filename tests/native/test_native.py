"""The C++ tests of the native library and the corpus of its fuzzers (``fuzz/``): as they are, under AddressSanitizer +
UndefinedBehaviorSanitizer, and under ThreadSanitizer. The programs build into ``build/``, so that a second run compiles
only what changed."""

import subprocess
import sysconfig
from pathlib import Path
from shutil import which

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILDS = {"plain": "", "address-undefined": "address,undefined", "thread": "thread"}
FUZZ_TARGETS = {"manifest": "2000", "safetensors": "2000", "bundle": "500"}  # fixed mutations of the corpus


def cmake():
    """Return CMake's path: on PATH, or from the package in this environment."""
    found = which("cmake", path=sysconfig.get_path("scripts")) or which("cmake")
    if found is None:
        pytest.skip("no cmake here")
    return found


def build(name, *programs):
    """Build programs with the sanitizers of this name; return their folder."""
    folder = ROOT / "build" / f"{programs[0].removeprefix('deepsim_')}-{name}"  # one each: tests run side by side
    options = ["-DDEEPSIM_BUILD_TESTS=ON", "-DDEEPSIM_CUDA=OFF", f"-DDEEPSIM_SANITIZE={BUILDS[name]}"]
    subprocess.run([cmake(), "-S", ROOT, "-B", folder, *options], check=True, capture_output=True)
    built = subprocess.run([cmake(), "--build", folder, "--target", *programs], capture_output=True, text=True)
    assert built.returncode == 0, built.stdout[-3000:] + built.stderr[-3000:]
    return folder / "tests/native"


def run(program, *arguments):
    """Run a program that was built; return what it said, after failing with that where it failed."""
    done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", list(BUILDS))
def test_native_tests_pass(name):
    folder = build(name, "deepsim_tests", *(f"replay_{target}" for target in FUZZ_TARGETS))
    assert "Status: SUCCESS" in run(folder / "deepsim_tests")
    for target, mutations in FUZZ_TARGETS.items():
        corpus = ROOT / "tests/native/fuzz/corpus" / target
        said = run(folder / f"fuzz/replay_{target}", corpus, "--mutations", mutations)
        assert "no error but typed ones" in said


@pytest.mark.slow
@pytest.mark.parametrize("name", list(BUILDS))
def test_emulated_cuda_tests_pass(name):
    assert "Status: SUCCESS" in run(build(name, "deepsim_cuda_tests") / "deepsim_cuda_tests")


@pytest.mark.slow
def test_emulated_cuda_tests_pass_without_assembly():
    program = "deepsim_cuda_tests_portable"
    assert "Status: SUCCESS" in run(build("plain", program) / program)
