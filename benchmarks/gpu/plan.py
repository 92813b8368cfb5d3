"""What a run of the GPU benchmark does, and which kernels there are to choose of."""

from __future__ import annotations

import math
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deepsim.runtime import native_library
from deepsim.runtime.errors import DeviceError

if TYPE_CHECKING:
    from deepsim.benchmarks.gpu.device import (
        Gpu,  # which imports PyTorch, as the program below compute-sanitizer must not
    )

KERNELS_VARIABLE = "DEEPSIM_CUDA_KERNELS"  # names kernels for 16-bit values, with which fp32 is refused
OVERLAP_VARIABLE = "DEEPSIM_CUDA_OVERLAP"  # "0": kernels do not start early
KERNELS = {90: ("wgmma", "mma")}  # by compute capability: the default, and others to choose
EARLY = "kernels start early"  # what described() says where they do
SERIAL = "serial"  # the default kernels, none of which starts before the one before is over
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


def others_of(gpu: Gpu) -> list[str]:
    """Return the names of kernels to compare with the default: none where the environment names some."""
    if os.environ.get(KERNELS_VARIABLE):
        return []
    return [*kernels_of(gpu)[1:], *([SERIAL] if EARLY in described() else [])]


def described() -> str:
    """Return in words which kernels an engine takes here, by the environment."""
    return native_library.describe_kernels("cuda:0")


def environment_of(kernels: str | None, serial: bool = False) -> dict[str, str]:
    """Return what the environment has where an engine shall take these kernels; None: those that it takes anyway."""
    found = {OVERLAP_VARIABLE: "0"} if serial or kernels == SERIAL else {}
    return found if kernels in (None, SERIAL) else {**found, KERNELS_VARIABLE: str(kernels)}


def tiles_of(gpu: Gpu) -> list[str]:
    """Return the names of the tiles whose kernels a GPU can run, by kernels/cuda/variants.h.

    Raises DeviceError in an installation, which has no such file.
    """
    listed = re.findall(r"TILE\((\w+?)(?:16)?, \d", of_checkout(VARIANTS).read_text())
    return [name for name in dict.fromkeys(listed) if gpu.architecture == 90 or not name.startswith("wgmma")]


def of_checkout(path: Path) -> Path:
    """Return the path of a source file. Raises DeviceError in an installation, which has none."""
    if not path.is_file():
        raise DeviceError(f"{path.name}: not in an installation, expected to run from a checkout.")
    return path


def commit() -> str | None:
    """Return the commit of this checkout, with "-dirty" where files were changed; None where git does not tell."""
    command = ["git", "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
