"""OpenMP threads that PyTorch has started rest when a call of ours begins, and come back with its next one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bundles import write_bundle

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import os, sys
import runtime
import numpy as np, torch
from deepsim.runtime import Inverter

def threads():
    return len(os.listdir("/proc/self/task"))

torch.set_num_threads(2)
features = np.ones((1, 20), np.float32)
with Inverter(sys.argv[1], "cpu") as inverter:
    wanted = inverter.decode(features)
    began = threads()
    matrix = torch.ones(600, 600)  # large enough for two threads
    product = matrix + 1
    with_openmp = threads()
    same = (inverter.decode(features) == wanted).all()
    rested = threads()
    again = bool(((matrix + 1) == product).all())
    print(with_openmp - began, rested - began, threads() - began, same, again)
"""


@pytest.mark.parametrize(("kept", "ours", "rested"), [("0", "2", 0), ("1", "2", 1), ("0", "1", 1)])
def test_openmp_threads_rest_while_we_compute(tmp_path, kept, ours, rested):
    torch = pytest.importorskip("torch")
    if "libgomp" not in "".join(path.name for path in Path(torch.__file__).parent.rglob("*.so*")):
        pytest.skip("this PyTorch does not run on GNU's OpenMP")
    environment = {**os.environ, "DEEPSIM_KEEP_OPENMP": kept, "DEEPSIM_NUM_THREADS": ours, "OMP_NUM_THREADS": "2"}
    command = [sys.executable, "-c", PROGRAM, write_bundle(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["1", str(rested), "1", "True", "True"]
