"""Run the tests against this checkout, whatever deepsim is installed (see runtime/checkout.py)."""

import os
import subprocess
import sys
from itertools import chain, groupby
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import runtime  # noqa: F401  (makes deepsim.* importable from the checkout)

ROOT = Path(__file__).resolve().parent.parent


@pytest.hookimpl(trylast=True)  # after tests were deselected
def pytest_collection_modifyitems(items):
    """Put long tests first, dealt to what each process begins with.

    The Makefile runs several processes by worksteal: each begins with its part of the list, and steals from others'
    ends. So long tests run side by side, and short ones even out the end. Neighbours with equal parameters share
    fixtures, and stay together.
    """
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "2"))
    slow = [item for item in items if item.get_closest_marker("slow")]
    others = [item for item in items if not item.get_closest_marker("slow")]
    hands = [list(hand) for _, hand in groupby(slow, lambda item: (item.path, item.name.partition("[")[2]))]
    total, items[:] = len(items), []
    for process in range(processes):
        dealt = list(chain(*hands[process::processes]))
        part = (total - len(items)) // (processes - process)
        quick = max(0, part - len(dealt))
        items += [*dealt, *others[:quick]]
        del others[:quick]
    items += others


@pytest.fixture(scope="session")
def emulated():
    """Return the environment in which the library and the driver are those of an emulated GPU."""
    from tests.native.test_native import build

    folder = build("plain", "deepsim", "stand_in_driver")
    emulated = {"DEEPSIM_LIBRARY": str(folder / "libdeepsim.so"), "LD_LIBRARY_PATH": str(folder / "tests/native")}
    return {**os.environ, **emulated, "DEEPSIM_TEST_BACKENDS": "cuda"}


@pytest.fixture(scope="session")
def tracked():
    """Return the checkout's own files, relative to it: what git knows and what it would not ignore."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=ROOT, capture_output=True, check=True).stdout.split(b"\0")
    return sorted(name for name in map(os.fsdecode, names) if (ROOT / name).is_file())


@pytest.fixture
def source(tmp_path, tracked):
    """Return a copy of the checkout's own files: building leaves others beside them."""
    folder = tmp_path / "source"
    for name in tracked:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((ROOT / name).read_bytes())
    return folder
