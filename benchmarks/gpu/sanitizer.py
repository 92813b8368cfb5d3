"""Our kernels in a process of their own, alone or below compute-sanitizer.

Its program, ``python -m deepsim.benchmarks.gpu.sanitizer BUNDLE BATCH ...``, reads and writes host memory and imports
no PyTorch, whose kernels are not what is looked at.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from shutil import which

import numpy as np

from deepsim.benchmarks.gpu.plan import environment_of
from deepsim.benchmarks.timing import photographs
from deepsim.runtime import Inverter
from deepsim.runtime.checkout import process_environment

TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")
# The kernels for Hopper have more barriers in shared memory than these tools expect.
OPTIONS = dict.fromkeys(("racecheck", "synccheck"), ("--num-cuda-barriers", "64"))
FOUND = 77  # exit code for findings
LIMIT_S = 300  # for a tool
TRIAL_S = 120  # for our kernels alone
LINES = 60  # of what a tool finds that are kept
BATCHES = (1, 3, 17, 33)  # split sums, ragged tiles, two groups of convolutions


def find() -> str | None:
    """Return the path of compute-sanitizer: on PATH, or beside nvcc; None without it."""
    beside = Path(which("nvcc") or "/nowhere").resolve().parent / "compute-sanitizer"
    return which("compute-sanitizer") or (str(beside) if beside.is_file() else None)


def findings(
    sanitizer: str,
    bundle: Path,
    tool: str,
    refuse: Callable[[str], None],
    kernels: str | None = None,
    limit_s: float = LIMIT_S,
) -> list[str] | None:
    """Run our calls below a tool; return the lines of what it found, its summary last: none, if nothing.

    ``kernels`` are those of ``environment_of``. None is returned, and ``refuse`` told, where the
    tool does not run here or is not done after ``limit_s`` seconds.
    """
    command = [sanitizer, "--tool", tool, "--error-exitcode", str(FOUND), *OPTIONS.get(tool, ())]
    done = _run(command, bundle, BATCHES, kernels, limit_s)
    if done is None:
        refuse(f"compute-sanitizer, {tool}: not done after {limit_s:.0f} s")
        return None
    code, text = done
    lines = text.strip().splitlines() or [f"exit code {code}"]
    # The program may fail of what is found, and its exit code is then the one that counts: the summary tells.
    summary = re.search(r"^=+ (?:\w+ )?SUMMARY: (\d+)", text, re.MULTILINE)
    if code == FOUND or (summary and int(summary[1]) > 0):
        return lines[: LINES - 1] + lines[LINES - 1 :][-1:]
    if code == 0 and summary:
        return []
    refuse(f"compute-sanitizer, {tool}: did not run ({lines[-1].strip('= ')})")
    return None


def trial(bundle: Path, batches: Sequence[int], kernels: str | None = None, limit_s: float = TRIAL_S) -> str | None:
    """Run our calls in a process that may break; return what went wrong, None if nothing."""
    done = _run([], bundle, batches, kernels, limit_s)
    if done is None:
        return f"calls that do not end, after {limit_s:.0f} s"
    code, text = done
    return None if code == 0 else (text.strip().splitlines() or [f"exit code {code}"])[-1]


def _run(
    below: Sequence[str], bundle: Path, batches: Sequence[int], kernels: str | None, limit_s: float
) -> tuple[int, str] | None:
    """Return exit code and output of this module's program; None, and nothing left running, after a time."""
    environment = {**process_environment(), **environment_of(kernels)}
    command = [*below, sys.executable, "-P", "-m", __name__, str(bundle), *map(str, batches)]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        start_new_session=True,
    ) as process:
        try:
            text, _ = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # the tool's children too
            return None
    return process.returncode, text


def main() -> None:
    """Call everything that the backend cuda has, at the batch sizes that are named."""
    batches = [int(size) for size in sys.argv[2:]]
    inverter = Inverter(sys.argv[1], "cuda", 0, max_batch=max(batches))
    for batch in batches:
        photos = photographs(batch, inverter.image_size)
        for _ in range(3):  # as it is, recorded, replayed
            features = inverter.encode(photos)
            for full in (False, True):
                inverter.decode(features, full=full)
                inverter.decode(features, full=full, raw=True)
        inverter.reencode(photos, 2, (1, 2))
        if not np.isfinite(features).all():
            print(f"batch {batch}: features that are not finite")
            sys.exit(FOUND)


if __name__ == "__main__":
    main()
