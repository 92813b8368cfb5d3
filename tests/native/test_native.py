"""The C++ tests of the native library and the corpus of its fuzzers (``fuzz/``): as they are, under AddressSanitizer +
UndefinedBehaviorSanitizer, and under ThreadSanitizer. The programs build into ``build/``, so that a second run compiles
only what changed."""

import fcntl
import subprocess
import sysconfig
from contextlib import contextmanager
from pathlib import Path
from shutil import which

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILDS = {"plain": "", "address-undefined": "address,undefined", "thread": "thread"}
FUZZ_TARGETS = {"manifest": "2000", "safetensors": "2000", "bundle": "500"}  # fixed mutations of the corpus

# Each program, and what it is run with: everything, or the cases that a slow sanitizer can tell something of.
RUNS = {
    "plain": {
        "deepsim_tests": [],
        "deepsim_cuda_session_tests": [],
        "deepsim_cuda_absent_tests": [],
        "deepsim_cuda_kernel_tests": [],
        "deepsim_cuda_hopper_tests": [],
        "deepsim_cuda_tests": [],
        "deepsim_cuda_tests_portable": [],
    },
    "address-undefined": {  # the emulated kernels by way of a session
        "deepsim_tests": [],
        "deepsim_cuda_session_tests": [
            "--test-case-exclude=threads*,with `stable`*,the emulated GPU*,calls*,layers in groups*,re-encoding*,"
            "what another*,squares of any side*,photographs of 224*,raw images*,in graphs on Hopper*"
        ],
        "deepsim_cuda_tests": [],
    },
    "thread": {  # one layer more or less is no race: the cases that start threads, and those of the pool and the calls
        "deepsim_tests": ["--test-case-exclude=an encoder takes*,an image lies*,drawn *"],
        "deepsim_cuda_session_tests": ["--test-case=threads that share*"],
        "deepsim_cuda_tests": [],
    },
}


def cmake():
    """Return CMake's path: on PATH, or from the package in this environment."""
    found = which("cmake", path=sysconfig.get_path("scripts")) or which("cmake")
    if found is None:
        pytest.skip("no cmake here")
    return found


@contextmanager
def alone_in(folder):
    """Keep other test processes out of a build folder: its programs share objects, and tests run side by side."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def build(name, *targets):
    """Build targets with the sanitizers of this name, the CUDA kernels emulated; return the folder of the build."""
    folder = ROOT / "build" / f"tests-{name}"
    options = ["-DDEEPSIM_BUILD_TESTS=ON", "-DDEEPSIM_CUDA=EMULATED", f"-DDEEPSIM_SANITIZE={BUILDS[name]}"]
    with alone_in(folder):
        subprocess.run([cmake(), "-S", ROOT, "-B", folder, *options], check=True, capture_output=True)
        # By two compilers: another test process may wait for this one meanwhile.
        command = [cmake(), "--build", folder, "--parallel", "2", "--target", *targets]
        built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout[-3000:] + built.stderr[-3000:]
    return folder


def run(program, *arguments):
    """Run a program that was built; return what it said, after failing with that where it failed."""
    done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(("name", "program"), [(name, program) for name in RUNS for program in RUNS[name]])
def test_native_tests_pass(name, program):
    folder = build(name, program) / "tests/native"
    assert "Status: SUCCESS" in run(folder / program, *RUNS[name][program])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plain", "address-undefined"])
def test_readers_survive_the_corpus_and_its_mutations(name):
    programs = [f"replay_{target}" for target in FUZZ_TARGETS]
    folder = build(name, *programs) / "tests/native/fuzz"
    for target, mutations in FUZZ_TARGETS.items():
        corpus = ROOT / "tests/native/fuzz/corpus" / target
        assert "no error but typed ones" in run(folder / f"replay_{target}", corpus, "--mutations", mutations)
