"""Engines from ONNX graphs: choose the target, run the builder in its own process, write the sidecar.

An engine's precision is the types of the graph it is built from. That is checked on the parsed network before the
build (see ``engine_build.py``), and on the built engine wherever a GPU can load it.
"""

from __future__ import annotations

import importlib.util
import json
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from deepsim.export.engine_build import MODULES, probe_gpu
from deepsim.runtime.errors import DeviceError, NumericError, UsageError, missing_extra
from deepsim.runtime.files import sha256

Target = Literal["auto", "tensorrt", "tensorrt-rtx"]
Progress = Callable[[str, int, int], None]  # phase, steps done, steps

SILENCE_SECONDS = 600.0  # a builder that says nothing for so long hangs
BUILD_SECONDS = 3600.0
OPT_BATCH = 8
HOW = "parity of the very ONNX graph that was built, through ONNX Runtime; the engine was not run"
_EXTRAS = {"tensorrt": "gpu", "tensorrt-rtx": "export"}
_LOG_LINES = 12
_SCRIPT = Path(__file__).with_name("engine_build.py")


@dataclass(frozen=True)
class EngineJob:
    """One engine to build: ``onnx`` -> ``plan``, for batches 1 to ``max_batch``; ``workspace_bytes`` 0 is no limit.

    ``gpus``, a key of TARGET_GPUS, is what TensorRT-RTX builds for; TensorRT builds for the GPU at hand.
    """

    target: str
    precision: str
    onnx: Path
    plan: Path
    max_batch: int
    islands: frozenset[str] = frozenset()
    gpus: str = "ampere"
    workspace_bytes: int = 0
    silence_seconds: float = SILENCE_SECONDS
    build_seconds: float = BUILD_SECONDS

    def to_json(self) -> str:
        """Return the builder process's job."""
        return json.dumps(
            {
                "target": self.target,
                "precision": self.precision,
                "onnx": str(self.onnx),
                "plan": str(self.plan),
                "islands": sorted(self.islands),
                "opt_batch": min(OPT_BATCH, self.max_batch),
                "max_batch": self.max_batch,
                "gpus": self.gpus,
                "workspace_bytes": self.workspace_bytes,
            }
        )


def choose_target(target: Target) -> str:
    """Return "tensorrt" or "tensorrt-rtx". "auto": TensorRT where it and a GPU are there, else TensorRT-RTX.

    TensorRT shares TensorRT-RTX's API and so this code; builds with TensorRT itself on a GPU are not covered by tests.
    Raises DeviceError naming the extra when the target's package is missing, or when TensorRT has no GPU to build on.
    """
    if target == "auto":
        with_gpu = _installed("tensorrt") and probe_gpu() is not None
        target = "tensorrt" if with_gpu else "tensorrt-rtx"
    if not _installed(target):
        raise missing_extra(target, _EXTRAS[target])
    if target == "tensorrt" and probe_gpu() is None:
        raise DeviceError("tensorrt: no GPU or driver, it builds on the target GPU. Pass --target tensorrt-rtx.")
    return target


def build_engine(job: EngineJob, progress: Progress | None = None) -> dict[str, Any]:
    """Build one engine; return its sidecar record. Interrupting cancels the build.

    Raises NumericError when layers have another precision than asked for, DeviceError with the vendor's log lines
    when the builder fails, dies or hangs, UsageError on a batch below 1.
    """
    if job.max_batch < 1:
        raise UsageError(f"--max-batch: {job.max_batch}, expected at least 1.")
    log: deque[str] = deque(maxlen=_LOG_LINES)
    began = time.monotonic()
    with tempfile.TemporaryFile("w+") as stderr:
        outcome = _watch(job, stderr, log, progress)
        stderr.seek(0)
        log.extend(line.rstrip() for line in stderr.readlines()[-_LOG_LINES:])
    if outcome.get("event") != "built":
        raise _failure(job, outcome, list(log))
    return _sidecar(job, outcome, time.monotonic() - began)


def _watch(job: EngineJob, stderr: IO[str], log: deque[str], progress: Progress | None) -> dict[str, Any]:
    """Run the builder process and follow its events; return the last one that ends a build, or what went wrong."""
    process = subprocess.Popen(
        [sys.executable, str(_SCRIPT)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True
    )
    try:
        for event in _events(process, job):
            if event["event"] == "log":
                log.append(f"{event['severity']}: {event['message']}")
            elif event["event"] == "progress" and progress is not None:
                progress(event["phase"], event["done"], event["steps"])
            elif event["event"] in ("built", "failed", "hangs"):
                return event
        return {"event": "died", "message": f"the builder process ended with code {process.wait()}"}
    finally:
        process.kill()
        process.wait()


def _events(process: subprocess.Popen[str], job: EngineJob) -> Iterator[dict[str, Any]]:
    """Yield the builder's events; ends with "hangs" when it is silent or busy for too long."""
    lines: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=_read, args=(process, job.to_json(), lines), daemon=True).start()
    deadline = time.monotonic() + job.build_seconds
    while True:
        left = min(job.silence_seconds, deadline - time.monotonic())
        try:
            line = lines.get(timeout=max(left, 0.001))
        except queue.Empty:
            yield {"event": "hangs", "message": f"the builder was silent for {left:.0f} seconds or ran over its limit"}
            return
        if line is None:
            return
        with suppress(ValueError):  # a line cut off by the process's death; its exit code tells
            yield json.loads(line)


def _read(process: subprocess.Popen[str], job: str, lines: queue.Queue[str | None]) -> None:
    assert process.stdin is not None and process.stdout is not None  # both are pipes
    with suppress(BrokenPipeError):  # the process died; its exit code tells
        process.stdin.write(job)
        process.stdin.close()
    for line in process.stdout:
        lines.put(line)
    lines.put(None)


def _failure(job: EngineJob, outcome: dict[str, Any], log: list[str]) -> NumericError | DeviceError:
    said = f" The builder's last words: {' | '.join(log)}" if log else ""
    message = f"{job.target} {job.precision} engine of {job.onnx.name}: {outcome['message']}."
    if outcome.get("kind") == "numeric":
        return NumericError(f"{message} Nothing was published. Export again, or report this.{said}")
    return DeviceError(f"{message} Try another --target, or --engine onnx.{said}")


def _sidecar(job: EngineJob, outcome: dict[str, Any], seconds: float) -> dict[str, Any]:
    record = {key: value for key, value in outcome.items() if key != "event"}
    numbers = ", ".join(capability.replace(".", "") for capability in record["compute_capabilities"])
    portable = job.target == "tensorrt-rtx"
    return {
        "target": job.target,
        "precision": job.precision,
        "built_for": f"TensorRT-RTX portable: SM {numbers}" if portable else f"{record['gpu']} (SM {numbers})",
        **record,
        "onnx": {"file": job.onnx.name, "sha256": sha256(job.onnx)},
        "plan": {"file": job.plan.name, "sha256": sha256(job.plan), "size": job.plan.stat().st_size},
        "build_seconds": round(seconds, 2),
    }


def _installed(target: str) -> bool:
    return importlib.util.find_spec(MODULES[target]) is not None
