"""What a run of the GPU benchmark does, and which kernels there are to choose of."""

from __future__ import annotations

import math
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from benchmarks.gpu.device import Gpu

KERNELS = {90: ("wgmma", "mma")}  # by compute capability: the default, and others to choose
VARIANTS = Path(__file__).resolve().parents[2] / "kernels/cuda/variants.h"


@dataclass(frozen=True)
class Plan:
    """What is run: ``seconds`` for each contender and row, ``cutlass`` the compiled peer, if any.

    ``brief``: of compute-sanitizer's tools memcheck alone, and single layers are checked of the default kernels alone.
    What has not begun at ``deadline``, by time.monotonic, is left out.
    """

    batches: tuple[int, ...]  # in the order in which they are timed
    seconds: float
    repeats: int
    timed: bool = True
    single_layers: bool = True
    compiled: tuple[int, ...] = ()  # batch sizes at which torch.compile takes part
    compiled_layers: bool = False
    cutlass: Path | None = None
    brief: bool = False
    tiles: bool = False  # single layers with every tile that the kernels have
    deadline: float = math.inf


def kernels_of(gpu: Gpu) -> tuple[str, ...]:
    """Return the names of the kernels for 16-bit values that a GPU can run, the default first."""
    return KERNELS.get(gpu.architecture, ("mma",))


def tiles_of(gpu: Gpu) -> list[str]:
    """Return the names of the tiles whose kernels a GPU can run, by kernels/cuda/variants.h."""
    listed = re.findall(r"TILE\((\w+?)(?:16)?, \d", VARIANTS.read_text())
    return [name for name in dict.fromkeys(listed) if gpu.architecture == 90 or not name.startswith("wgmma")]


def commit() -> str | None:
    """Return the commit of this checkout, with "-dirty" where files were changed; None where git does not tell."""
    command = ["git", "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
