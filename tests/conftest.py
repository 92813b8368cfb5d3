"""Run the tests against this checkout, whatever deepsim is installed (see runtime/checkout.py)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import runtime  # noqa: F401  (makes deepsim.* importable from the checkout)
