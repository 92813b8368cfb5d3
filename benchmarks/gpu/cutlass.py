"""CUTLASS's strided dgrad as a peer of our up-convolutions: compiled with nvcc, run on its own."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from shutil import which
from typing import Any

from deepsim.benchmarks.gpu.plan import of_checkout
from deepsim.benchmarks.gpu.steps import Step
from deepsim.benchmarks.work import Roofs
from deepsim.runtime.errors import DeviceError, NumericError, UsageError

SOURCE = Path(__file__).with_name("cutlass_dgrad.cu")
OLDEST = 80  # compute capability
LIMIT_S = 120  # for all up-convolutions at one batch size
WRONG = 5  # the program's exit code for a result that does not agree with float64


def check_headers(cutlass: Path, architecture: int) -> None:
    """Raise UsageError or DeviceError, before any work, where the peer cannot be compiled for a GPU like 80."""
    if not (cutlass / "include" / "cutlass" / "cutlass.h").is_file():
        raise UsageError(f"--cutlass {cutlass}: no include/cutlass/cutlass.h in it. Name a checkout of CUTLASS.")
    if which("nvcc") is None:
        raise DeviceError("nvcc: not found, expected it for --cutlass. Put it on PATH, or leave CUTLASS out.")
    if architecture < OLDEST:
        raise DeviceError(
            f"cutlass: compute capability {architecture / 10}, expected {OLDEST / 10} or later. Leave it out."
        )


def compile_peer(cutlass: Path, architecture: int, folder: Path) -> Path:
    """Compile the program into ``folder``; takes a minute. Raises DeviceError with nvcc's first error."""
    program = folder / SOURCE.stem
    target = f"arch=compute_{architecture},code=sm_{architecture}"
    command = [
        "nvcc",
        "-std=c++17",
        "-O3",
        "--expt-relaxed-constexpr",
        "-gencode",
        target,
        "-I",
        str(cutlass / "include"),
    ]
    done = subprocess.run([*command, "-o", str(program), str(of_checkout(SOURCE))], capture_output=True, text=True)
    if done.returncode:
        lines = [line for line in (done.stderr + done.stdout).splitlines() if "error" in line] or ["no message"]
        raise DeviceError(f"cutlass: {SOURCE.name} did not compile ({lines[0].strip()}). Use CUTLASS 3.5 or later.")
    return program


def time_upconvolutions(
    program: Path, network: str, steps: Sequence[Step], batch: int, roofs: Roofs
) -> list[dict[str, Any]]:
    """Return a row as of single layers for every up-convolution of a network; "error" is against float64.

    The program's time is that of back-to-back launches between two CUDA events. Raises NumericError for a wrong
    result, DeviceError where it does not run.
    """
    chosen = [step for step in steps if step.upconvolution is not None]
    if not chosen:
        return []
    numbers = [str(number) for step in chosen for number in _numbers(step, batch)]
    try:
        done = subprocess.run([str(program), *numbers], capture_output=True, text=True, timeout=LIMIT_S)
    except subprocess.TimeoutExpired as error:
        raise DeviceError(f"cutlass: not done after {LIMIT_S} s. Leave it out.") from error
    if done.returncode:
        line = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise (NumericError if done.returncode == WRONG else DeviceError)(line)
    return rows_of(done.stdout, network, chosen, batch, roofs)


def rows_of(output: str, network: str, steps: Sequence[Step], batch: int, roofs: Roofs) -> list[dict[str, Any]]:
    """Turn what the program printed for steps, a line of JSON each, into rows."""
    rows = []
    for step, line in zip(steps, output.splitlines(), strict=True):
        found = json.loads(line)
        if (found["batch"], found["height"], found["inputs"], found["outputs"]) != _numbers(step, batch):
            raise DeviceError(f"cutlass: {line}, expected layer {step.name} at batch {batch}. Report it.")
        row = {"network": network, "step": step.name, "batch": batch, "backend": "cutlass"}
        share = step.floor_seconds(batch, roofs) / found["seconds"]
        timed = {"microseconds": found["seconds"] * 1e6, "roof_share": share}
        rows.append({**row, **timed, "tile": found["tile"], "error": found["error"]})
    return rows


def _numbers(step: Step, batch: int) -> tuple[int, int, int, int]:
    layer, (_, shape) = step.upconvolution, step.without_reshape
    assert layer is not None
    return batch, shape[1], layer.inputs, layer.outputs
