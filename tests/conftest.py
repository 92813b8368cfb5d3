"""Run the tests against this checkout, whatever deepsim is installed (see runtime/checkout.py)."""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import runtime  # noqa: F401  (makes deepsim.* importable from the checkout)


@pytest.fixture(scope="session")
def emulated():
    """Return the environment in which the library and the driver are those of an emulated GPU."""
    from tests.native.test_native import build

    folder = build("plain", "deepsim", "stand_in_driver")
    emulated = {"DEEPSIM_LIBRARY": str(folder / "libdeepsim.so"), "LD_LIBRARY_PATH": str(folder / "tests/native")}
    return {**os.environ, **emulated, "DEEPSIM_TEST_BACKENDS": "cuda"}
