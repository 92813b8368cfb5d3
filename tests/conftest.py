"""Run the tests against this checkout, whatever deepsim is installed (see runtime/checkout.py)."""

import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parent
sys.path.insert(0, str(TESTS.parent))
sys.path += [str(TESTS), str(TESTS / "runtime")]  # modules that tests share: bundles, image_zoo

import runtime  # noqa: F401  (makes deepsim.* importable from the checkout)
