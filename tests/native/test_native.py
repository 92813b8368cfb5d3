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


@pytest.mark.slow
@pytest.mark.parametrize("name", list(BUILDS))
def test_native_tests_pass(name):
    folder = ROOT / "build" / f"tests-{name}"
    configure = [cmake(), "-S", ROOT, "-B", folder, "-DDEEPSIM_BUILD_TESTS=ON", f"-DDEEPSIM_SANITIZE={BUILDS[name]}"]
    subprocess.run(configure, check=True, capture_output=True)
    programs = ["deepsim_tests", *(f"replay_{target}" for target in FUZZ_TARGETS)]
    built = subprocess.run([cmake(), "--build", folder, "--target", *programs], capture_output=True, text=True)
    assert built.returncode == 0, built.stdout[-3000:] + built.stderr[-3000:]
    done = subprocess.run([folder / "tests/native/deepsim_tests"], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    assert "Status: SUCCESS" in done.stdout
    for target, mutations in FUZZ_TARGETS.items():
        corpus = ROOT / "tests/native/fuzz/corpus" / target
        replay = [folder / f"tests/native/fuzz/replay_{target}", corpus, "--mutations", mutations]
        done = subprocess.run(replay, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
        assert "no error but typed ones" in done.stdout
