"""One generator and its encoder, checked and then timed; and the record of a whole run."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.float64_error import write
from benchmarks.gpu import checks, cutlass, peers, sanitizer, timing
from benchmarks.gpu.device import Call, Gpu, clocks
from benchmarks.gpu.ours import KERNELS_VARIABLE, Ours
from deepsim.export.sources import Source
from deepsim.runtime.bench import environment
from deepsim.runtime.bench.work import Roofs, Work, rate
from deepsim.runtime.errors import DeepsimError, OutOfMemory

DEFAULT_KERNELS = "mma"
Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """What is run: ``seconds`` for each contender and row, ``cutlass`` the compiled peer, if any."""

    batches: tuple[int, ...]
    seconds: float
    repeats: int
    timed: bool = True
    single_layers: bool = True
    compiled: bool = True
    compiled_layers: bool = True
    cutlass: Path | None = None


def measure(gpu: Gpu, sources: Mapping[str, Source], plan: Plan, say: Say) -> dict[str, Any]:
    """Check and time every generator, single layers of the first; return the record that is written."""
    sanitized = sanitizer.find()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        roofs = timing.measure_roofs(gpu, plan.seconds) if plan.timed else None
        for name, source in sources.items():
            own = replace(plan, single_layers=plan.single_layers and not found)
            found[name] = Measurement(gpu, source, Path(folder) / name, own, say).run(roofs, sanitized)
    return {
        "gpu": gpu.name,
        "clocks": clocks(),
        "kernels": os.environ.get(KERNELS_VARIABLE) or DEFAULT_KERNELS,
        "commit": commit(),
        "environment": environment(),
        "roofs": roofs._asdict() if roofs else None,
        "left_out": [] if sanitized else ["compute-sanitizer: not found, expected it on PATH or beside nvcc"],
        "generators": found,
    }


def commit() -> str | None:
    """Return the commit of this checkout, with "-dirty" where files were changed; None where git does not tell."""
    command = ["git", "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


@dataclass
class Measurement:
    """A generator under measurement, in a folder of its own."""

    gpu: Gpu
    source: Source
    folder: Path
    plan: Plan
    say: Say
    rows: list[dict[str, Any]] = field(default_factory=list)
    single_layers: list[dict[str, Any]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def run(self, roofs: Roofs | None, sanitized: str | None) -> dict[str, Any]:
        """Check, then time at the roofs (None: do not) unless a check failed.

        Raises OutOfMemory where there is too little memory for the checks.
        """
        self.folder.mkdir()
        bundle = write(self.folder / "whole", self.source)
        try:
            found = self._check(bundle, sanitized)
        except torch.OutOfMemoryError as error:
            line = " ".join(str(error).split())[:200]
            raise OutOfMemory(f"checks: {line}. Name smaller --batches than {max(self.plan.batches)}.") from error
        for failure in checks.failures(found):
            self._fail(failure)
        if roofs and not self.failures:
            self._time(bundle, roofs)
        names = ("failures", "rows", "single_layers", "left_out")
        return {"checks": found, **{name: getattr(self, name) for name in names}}

    def _check(self, bundle: Path, sanitized: str | None) -> dict[str, Any]:
        few = sorted({min(size, max(self.plan.batches)) for size in checks.FEW})
        self._tell("errors of the networks")
        found: dict[str, Any] = {"network": checks.network_errors(self.gpu, self.source, bundle, self.folder)}
        self._tell("errors of every layer")
        found["steps"] = checks.step_errors(self.gpu, self.source, self.folder, self.plan.batches)
        self._tell("outputs without a gap, repeats with equal bits")
        found["unwritten"] = checks.unwritten(self.gpu, bundle, few)
        repeats = self.plan.repeats
        found["repeats_that_differ"] = {
            str(batch): checks.differing_repeats(self.gpu, bundle, batch, repeats) for batch in few
        }
        if sanitized:
            self._tell("compute-sanitizer")
        found["sanitizer"] = sanitizer.findings(sanitized, bundle) if sanitized else {}
        return found

    def _time(self, bundle: Path, roofs: Roofs) -> None:
        absent = peers.reason_without_onnxruntime(self.gpu.provider)
        if absent:
            self._refuse(f"onnxruntime: {absent}")
        for batch in self.plan.batches:
            self._tell(f"batch {batch}")
            try:
                self._time_batch(bundle, batch, roofs, onnxruntime=absent is None)
            except (torch.OutOfMemoryError, OutOfMemory) as error:
                self._refuse(f"batch {batch}: not all timed, out of memory ({' '.join(str(error).split())[:200]})")
            except DeepsimError as error:
                self._fail(f"batch {batch}: {error}")
        rate(self.rows, (timing.OWN,), {what: self._work(what) for what in timing.CALLS}, roofs)

    def _time_batch(self, bundle: Path, batch: int, roofs: Roofs, onnxruntime: bool) -> None:
        """Time one batch size; every contender is made for it and let go after it."""
        gpu, source, plan = self.gpu, self.source, self.plan
        ours = Ours(gpu, bundle, batch)
        contenders = self._contenders(ours, onnxruntime)
        self.rows += timing.time_calls(gpu, source, contenders, batch, plan.seconds, roofs, self._refuse)
        del contenders
        if plan.single_layers:
            with timing.left_out(f"single layers at batch {batch}", self._refuse):
                compiled = plan.compiled_layers
                self.single_layers += timing.time_steps(gpu, source, ours, batch, compiled, roofs, self._refuse)
        if plan.single_layers and plan.cutlass:
            with timing.left_out(f"cutlass at batch {batch}", self._refuse):
                steps = timing.networks(source)["generator"]
                gpu.let_go()  # the peer is a process of its own
                self.single_layers += cutlass.time_upconvolutions(plan.cutlass, "generator", steps, batch, roofs)

    def _contenders(self, ours: Ours, onnxruntime: bool) -> dict[str, timing.Contender]:
        """Return who takes part, ours first, each as a function from (what, argument, iterations) to a call."""

        def own(what: str, argument: Tensor, iterations: int = 1) -> Call:
            return ours.call(what, argument, ours.output(what, len(argument)), iterations)

        gpu, source = self.gpu, self.source
        found: dict[str, timing.Contender] = {timing.OWN: own}
        found |= {
            "torch": peers.TorchForm(gpu, source).call,
            "torch-graph": peers.TorchForm(gpu, source, graph=True).call,
        }
        if self.plan.compiled:
            found["torch-compile-graph"] = peers.TorchForm(gpu, source, compiled=True, graph=True).call
        if onnxruntime:
            with timing.left_out("onnxruntime", self._refuse):
                found["onnxruntime"] = peers.OnnxRuntimeForm(gpu, source).call
        return found

    def _work(self, what: str) -> Work:
        networks = timing.networks(self.source)
        steps = [step for network in timing.CALLS[what] for step in networks[network]]
        return Work(sum(step.multiply_adds for step in steps), sum(step.weight_bytes for step in steps))

    def _tell(self, line: str) -> None:
        self.say(f"{self.source.layer}: {line}")

    def _fail(self, reason: str) -> None:
        self.failures.append(reason)
        self._tell(f"FAILED, {reason}")

    def _refuse(self, reason: str) -> None:
        self.left_out.append(reason)
        self._tell(f"left out, {reason}")
