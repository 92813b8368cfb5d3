"""Peak memory and time to the first image of one contender, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepsim.benchmarks.contenders import open_contender
from deepsim.benchmarks.timing import Contender, half_normal
from deepsim.runtime.bundle import Bundle
from deepsim.runtime.checkout import process_environment
from deepsim.runtime.errors import DeviceError
from deepsim.runtime.manifest import Manifest

CALLS = 3  # on a whole batch, before the peak is read


def measure_memory(bundle: Path, name: str, batch: int) -> dict[str, Any]:
    """Load a bundle in a new process, decode one image, then batches: {"load_seconds", "peak_bytes", "batch"}.

    A bundle without a generator encodes instead. The time is from before the contender's libraries are imported until
    the first image; the peak is of the whole process, from its start. Raises DeviceError with the last line that the
    process wrote when it fails.
    """
    command = [sys.executable, "-P", "-m", "deepsim.benchmarks.memory", str(bundle), name, str(batch)]
    done = subprocess.run(command, env=process_environment(), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise DeviceError(f"{name}: no memory measured ({last}). Choose the others with --backend.")
    record: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return record


def main() -> None:
    """Measure the contender named on the command line and print JSON."""
    path, name, batch = sys.argv[1], sys.argv[2], int(sys.argv[3])
    start = time.perf_counter()
    bundle = Bundle.open(path)
    contender = open_contender(name, bundle, "cpu", batch)
    given = _given(bundle.manifest, batch)
    _call(contender, given[:1])
    load_seconds = time.perf_counter() - start
    for _ in range(CALLS):
        _call(contender, given)
    print(json.dumps({"load_seconds": load_seconds, "peak_bytes": _peak_bytes(), "batch": batch}))


def _given(manifest: Manifest, batch: int) -> NDArray[Any]:
    """Return features, or photographs, uint8, where there is nothing to decode them."""
    if manifest.generator is not None:
        return half_normal((batch, *manifest.feature_shape))
    return np.zeros((batch, manifest.geometry.side, manifest.geometry.side, 3), np.uint8)


def _call(contender: Contender, given: NDArray[Any]) -> None:
    if given.dtype == np.uint8:
        contender.encode(given)
    else:
        contender.decode(given, full=False)


def _peak_bytes() -> int:
    """Return the most memory that this process has held (not its parent before it, which getrusage would count)."""
    for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status: no VmHWM")


if __name__ == "__main__":
    main()
