"""compute-sanitizer on our kernels. ``python -m benchmarks.gpu.sanitizer BUNDLE`` is what runs below it.

That program reads and writes host memory and imports no PyTorch, whose kernels are not what is looked at.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from shutil import which

import numpy as np

from deepsim.runtime import Inverter
from deepsim.runtime.bench.timing import photographs

KERNELS_VARIABLE = "DEEPSIM_CUDA_KERNELS"  # names kernels for 16-bit values, with which fp32 is refused
TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")
FOUND = 77  # exit code for findings
LIMIT_S = 300  # for a tool
LINES = 60  # of what a tool finds that are kept
BATCHES = (1, 3, 17, 33)  # split sums, ragged tiles, two groups of convolutions
ROOT = Path(__file__).resolve().parents[2]


def find() -> str | None:
    """Return the path of compute-sanitizer: on PATH, or beside nvcc; None without it."""
    beside = Path(which("nvcc") or "/nowhere").resolve().parent / "compute-sanitizer"
    return which("compute-sanitizer") or (str(beside) if beside.is_file() else None)


def findings(
    sanitizer: str,
    bundle: Path,
    refuse: Callable[[str], None],
    tools: Sequence[str] = TOOLS,
    kernels: str | None = None,
) -> dict[str, list[str]]:
    """Run our calls below every tool; return for each the lines of what it found, its summary last: none, if nothing.

    ``kernels`` are "mma" or "wgmma"; None: as the environment has it. A tool that does not run here, or is not done
    after ``LIMIT_S`` seconds, is missing, and ``refuse`` is told.
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    if kernels is not None:
        environment[KERNELS_VARIABLE] = kernels
    found: dict[str, list[str]] = {}
    for tool in tools:
        command = [sanitizer, "--tool", tool, "--error-exitcode", str(FOUND), sys.executable, "-m", __name__]
        try:
            done = subprocess.run(
                [*command, str(bundle)], capture_output=True, text=True, env=environment, cwd=ROOT, timeout=LIMIT_S
            )
        except subprocess.TimeoutExpired:
            refuse(f"compute-sanitizer, {tool}: not done after {LIMIT_S} s")
            continue
        lines = (done.stdout + done.stderr).strip().splitlines() or [f"exit code {done.returncode}"]
        if done.returncode == 0:
            found[tool] = []
        elif done.returncode == FOUND:
            found[tool] = lines[: LINES - 1] + lines[LINES - 1 :][-1:]
        else:
            refuse(f"compute-sanitizer, {tool}: did not run ({lines[-1].strip('= ')})")
    return found


def main() -> None:
    """Call everything that the backend cuda has, at batches that take different kernels."""
    inverter = Inverter(sys.argv[1], "cuda", 0)
    for batch in BATCHES:
        photos = photographs(batch)
        for _ in range(3):  # as it is, recorded, replayed
            features = inverter.encode(photos)
            for full in (False, True):
                inverter.decode(features, full=full)
        inverter.reencode(photos, 2, (1, 2))
        if not np.isfinite(features).all():
            print(f"batch {batch}: features that are not finite")
            sys.exit(FOUND)


if __name__ == "__main__":
    main()
