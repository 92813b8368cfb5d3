"""Commands in which one system call fails: one line, a defined exit code, nothing left, the old output whole."""

import json
import os
import subprocess
import sys
from pathlib import Path
from shutil import which

import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    compiler = which("cc") or which("gcc") or which("clang")
    if compiler is None or sys.platform != "linux":
        pytest.skip("needs a C compiler on Linux")
    library = tmp_path_factory.mktemp("faults") / "faults.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, HERE / "faults.c", "-ldl"], check=True)
    return library


def attack(library, folder, count, seconds, *commands):
    script = [sys.executable, HERE / "inject_faults.py", folder, str(count), str(seconds), *commands]
    environment = {**os.environ, "LD_PRELOAD": str(library), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(script, env=environment, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_one_call_fails_in_encode_and_reconstruct(library, tmp_path):
    pytest.importorskip("onnx")
    found = attack(library, tmp_path, 50, 300, "encode", "reconstruct")
    assert found["wrong"] == [] and found["ran"] == 50
    assert {"0", "4"} <= set(found["codes"]) <= {"0", "2", "3", "4"}


@pytest.mark.slow
def test_any_call_fails_in_any_command(library, tmp_path):
    for needed in ("torch", "onnx", "onnxruntime"):
        pytest.importorskip(needed)
    found = attack(library, tmp_path, 100_000, 60)  # as many as a minute allows: dozens, a few on a busy machine
    assert found["wrong"] == [] and found["ran"] >= 3
