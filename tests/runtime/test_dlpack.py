"""Memory that is shared through DLPack, here that of the host."""

import subprocess
import sys

import numpy as np
import pytest

from deepsim.runtime import dlpack
from tests.native.test_native import ROOT

torch = pytest.importorskip("torch")

# The tensor outlives every module of Python's: its memory is freed when nothing of ours can be looked up any more.
AT_EXIT = """
import ctypes, gc, sys
import tests.conftest
import numpy as np, torch
from deepsim.runtime import dlpack
content = np.arange(6, dtype=np.float32).reshape(2, 3)
made = dlpack.write(content, content.ctypes.data, content.shape, content.dtype, (1, 0))
unread = dlpack.write(content, content.ctypes.data, content.shape, content.dtype, (1, 0))
shared = torch.from_dlpack(made)
assert shared.sum() == 15
if sys.argv[1] == "module": torch.kept = shared, unread
if sys.argv[1] == "cycle": cycle = [shared, unread]; cycle.append(cycle); torch.kept = cycle
if sys.argv[1] == "never": ctypes.pythonapi.Py_IncRef(ctypes.py_object(shared))
print("done", flush=True)
"""


@pytest.mark.parametrize("kept", ["module", "cycle", "never"])
def test_a_tensor_may_outlive_the_interpreter(kept):
    done = subprocess.run([sys.executable, "-c", AT_EXIT, kept], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


def test_memory_is_kept_until_the_last_one_lets_go():
    class Owner:
        alive = True

        def __del__(self):
            Owner.alive = False

    content = np.arange(6, dtype=np.float32).reshape(2, 3)
    capsule = dlpack.write(Owner(), content.ctypes.data, content.shape, content.dtype, (1, 0))
    shared = torch.from_dlpack(capsule)
    del capsule
    np.testing.assert_array_equal(shared.numpy(), content)
    assert Owner.alive
    del shared
    assert not Owner.alive
