"""Run the tests against this checkout, whatever deepsim is installed (see runtime/checkout.py)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.extend(str(Path(__file__).resolve().parent / folder) for folder in (".", "runtime"))  # bundles, image_zoo

import runtime  # noqa: F401  (makes deepsim.* importable from the checkout)
