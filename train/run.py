"""Train from a checkout, installed or not: ``python train/run.py --preset demo`` (the same as ``deepsim train``)."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    _here = Path(__file__).resolve().parent
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != _here]  # train/ is no import root
    sys.path.insert(0, str(_here.parent / "python"))  # deepsim is this checkout
    from deepsim.runtime.cli import run_alone

    run_alone("train", "train/run.py")
