"""One generator and its encoder, checked and then timed; and the record of a whole run."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.float64_error import write
from benchmarks.gpu import checks, cutlass, peers, sanitizer, timing
from benchmarks.gpu.device import Call, Gpu, clocks
from benchmarks.gpu.ours import Ours
from benchmarks.gpu.sanitizer import KERNELS_VARIABLE
from deepsim.export.sources import Source
from deepsim.runtime.bench import environment
from deepsim.runtime.bench.work import Roofs, Work, rate
from deepsim.runtime.errors import DeepsimError, OutOfMemory

DEFAULT_KERNELS = "mma"
OTHER_KERNELS = {90: "wgmma"}  # by compute capability, where there are others to choose
Say = Callable[[str], None]
Keep = Callable[[dict[str, Any]], None]


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


def measure(gpu: Gpu, sources: Mapping[str, Source], plan: Plan, say: Say, keep: Keep) -> None:
    """Check and time every generator, single layers of the first; give ``keep`` the record whenever it has grown."""
    sanitized = sanitizer.find()
    generators: dict[str, Any] = {}
    measured: list[Measurement] = []
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        roofs = timing.measure_roofs(gpu, plan.seconds) if plan.timed else None
        record = {
            "gpu": gpu.name,
            "clocks": clocks(),
            "kernels": os.environ.get(KERNELS_VARIABLE) or DEFAULT_KERNELS,
            "commit": commit(),
            "environment": environment(),
            "roofs": roofs._asdict() if roofs else None,
            "left_out": [] if sanitized else ["compute-sanitizer: not found, expected it on PATH or beside nvcc"],
            "generators": generators,
        }
        for name, source in sources.items():
            own = replace(plan, single_layers=plan.single_layers and not generators)

            def grown(found: dict[str, Any], name: str = name) -> None:
                generators[name] = found
                keep(record)

            measured.append(Measurement(gpu, source, Path(folder) / name, own, say, grown))
            measured[-1].run(roofs, sanitized)
        # Last, when whatever they might break is measured.
        other = None if os.environ.get(KERNELS_VARIABLE) else OTHER_KERNELS.get(gpu.architecture)
        for measurement in measured:
            if other is not None and not measurement.failures:
                measurement.compare(other, roofs, sanitized)


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
    keep: Keep
    checks: dict[str, Any] = field(default_factory=dict)
    other_checks: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    single_layers: list[dict[str, Any]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def run(self, roofs: Roofs | None, sanitized: str | None) -> None:
        """Check, then time at the roofs (None: do not) unless a check failed.

        Raises OutOfMemory where there is too little memory for the checks.
        """
        self.folder.mkdir()
        bundle = write(self._bundle, self.source)
        try:
            self._check(bundle, sanitized)
            self._grown()
            if roofs and not self.failures:
                self._time(bundle, roofs)
        except torch.OutOfMemoryError as error:
            line = " ".join(str(error).split())[:200]
            raise OutOfMemory(f"checks: {line}. Name smaller --batches than {max(self.plan.batches)}.") from error

    def compare(self, kernels: str, roofs: Roofs | None, sanitized: str | None) -> None:
        """Check other kernels of this GPU; then time them (without roofs: do not) beside the default, after ``run``."""
        try:
            self._compare(self._bundle, kernels, roofs, sanitized)
        except (DeepsimError, RuntimeError) as error:
            self._fail(f"{kernels}: {' '.join(str(error).split())[:300]}")
        self._grown(roofs)

    @property
    def _bundle(self) -> Path:
        return self.folder / "whole"

    def _grown(self, roofs: Roofs | None = None) -> None:
        """Hand out what was found so far."""
        own = tuple(dict.fromkeys(row["backend"] for row in self.rows if row["backend"].startswith(timing.OWN)))
        rate(self.rows, own, {what: self._work(what) for what in timing.CALLS}, roofs)
        names = ("checks", "other_checks", "failures", "rows", "single_layers", "left_out")
        self.keep({name: getattr(self, name) for name in names})

    def _check(self, bundle: Path, sanitized: str | None) -> None:
        self.checks = self._errors(bundle, self.plan.batches, None)
        if sanitized:
            self._tell("compute-sanitizer")
            self.checks["sanitizer"] = sanitizer.findings(sanitized, bundle, self._refuse)
        for failure in checks.failures(self.checks):
            self._fail(failure)

    def _errors(self, bundle: Path, batches: Sequence[int], kernels: str | None) -> dict[str, Any]:
        """Return what is checked of kernels, the default where None are named, within this process."""
        gpu, source, folder, repeats = self.gpu, self.source, self.folder, self.plan.repeats
        few = sorted({min(size, max(self.plan.batches)) for size in checks.FEW})
        of_kernels = f" of {kernels}" if kernels else ""
        self._tell(f"errors of the networks{of_kernels}")
        found: dict[str, Any] = {"network": checks.network_errors(gpu, source, bundle, folder, kernels=kernels)}
        self._tell(f"errors of every layer{of_kernels}")
        found["steps"] = checks.step_errors(gpu, source, folder, batches, kernels)
        self._tell(f"outputs{of_kernels} without a gap, repeats with equal bits")
        found["unwritten"] = checks.unwritten(gpu, bundle, few, kernels)
        found["repeats_that_differ"] = {
            str(batch): checks.differing_repeats(gpu, bundle, batch, repeats, kernels) for batch in few
        }
        found["sanitizer"] = {}
        return found

    def _compare(self, bundle: Path, kernels: str, roofs: Roofs | None, sanitized: str | None) -> None:
        sanitizer_found: dict[str, list[str]] = {}
        if sanitized:  # first, in a process that may break; of its tools the one that knows about asynchronous copies
            self._tell(f"compute-sanitizer on {kernels}")
            sanitizer_found = sanitizer.findings(sanitized, bundle, self._refuse, ("memcheck",), kernels)
        found = self.other_checks[kernels] = self._errors(bundle, (max(self.plan.batches),), kernels)  # fill the GPU
        found["sanitizer"] = sanitizer_found
        failures = checks.failures(found)
        for failure in failures:
            self._fail(f"{kernels}: {failure}")
        if failures or roofs is None:
            return
        gpu, source, name = self.gpu, self.source, f"{timing.OWN}-{kernels}"
        for batch in self.plan.batches:
            self._tell(f"batch {batch} with {kernels}")
            with timing.left_out(f"{name} at batch {batch}", self._refuse):
                default, other = Ours(gpu, bundle, batch), Ours(gpu, bundle, batch, kernels=kernels)
                contenders = {timing.OWN: _called(default), name: _called(other)}
                timed = timing.time_calls(gpu, source, contenders, batch, self.plan.seconds, roofs, self._refuse)
                self.rows += [row for row in timed if row["backend"] == name]
                if self.plan.single_layers:
                    self.single_layers += timing.own_steps(gpu, source, other, batch, roofs, name)

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
            except (DeepsimError, RuntimeError) as error:
                self._fail(f"batch {batch}: {' '.join(str(error).split())[:300]}")
            self._grown(roofs)

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
        gpu, source = self.gpu, self.source
        found: dict[str, timing.Contender] = {timing.OWN: _called(ours)}
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


def _called(ours: Ours) -> timing.Contender:
    def call(what: str, argument: Tensor, iterations: int = 1) -> Call:
        return ours.call(what, argument, ours.output(what, len(argument)), iterations)

    return call
