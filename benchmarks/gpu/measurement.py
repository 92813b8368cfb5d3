"""One generator and its encoder, checked and then timed; and the record of a whole run."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deepsim.benchmarks.float64_error import write
from deepsim.benchmarks.gpu import checks, cutlass, peers, sanitizer, timing
from deepsim.benchmarks.gpu.device import Call, Gpu, clocks
from deepsim.benchmarks.gpu.ours import Ours
from deepsim.benchmarks.gpu.plan import (
    KERNELS_VARIABLE,
    SERIAL,
    Plan,
    commit,
    described,
    kernels_of,
    others_of,
    tiles_of,
)
from deepsim.benchmarks.work import Roofs, Work, rate
from deepsim.export.sources import Source
from deepsim.runtime.errors import OutOfMemory
from deepsim.runtime.machine import environment

Say = Callable[[str], None]
Keep = Callable[[dict[str, Any]], None]


def measure(gpu: Gpu, sources: Mapping[str, Source], plan: Plan, say: Say, keep: Keep) -> None:
    """Check and time every generator, single layers of the first; give ``keep`` the record whenever it has grown.

    First what matters most: whole calls, then other kernels, single layers, for which a profiler is attached, and at
    last compute-sanitizer, which takes long.
    """
    generators: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        roofs = timing.measure_roofs(gpu) if plan.timed else None
        record: dict[str, Any] = {
            "gpu": gpu.name,
            "clocks": clocks(),
            "kernels": os.environ.get(KERNELS_VARIABLE) or kernels_of(gpu)[0],
            "default_kernels": kernels_of(gpu)[0],
            "kernels_described": described(),
            "commit": commit(),
            "environment": environment(),
            "roofs": roofs._asdict() if roofs else None,
            "left_out": [],
            "generators": generators,
        }

        def growing(name: str) -> Keep:
            def grown(found: dict[str, Any]) -> None:
                generators[name] = found
                keep(record)

            return grown

        measured = [
            Measurement(gpu, source, Path(folder) / name, plan, say, growing(name), roofs)
            for name, source in sources.items()
        ]
        for each in measured:
            each.run()
        others = others_of(gpu)
        for each in measured:
            for other in others:
                if each.sound:
                    each.compare(other)
        for each in measured:
            each.time_compiled()
        if roofs and plan.single_layers:
            measured[0].time_single_layers()
        if roofs and plan.tiles:
            measured[0].time_tiles()
        path = sanitizer.find()
        if path is None:
            record["left_out"] = ["compute-sanitizer: not found, expected it on PATH or beside nvcc"]
        for each in measured:
            if path is not None:
                each.sanitize(path)
        keep(record)


@dataclass
class Measurement:
    """A generator under measurement, in a folder of its own; without ``roofs`` nothing is timed."""

    gpu: Gpu
    source: Source
    folder: Path
    plan: Plan
    say: Say
    keep: Keep
    roofs: Roofs | None
    checks: dict[str, Any] = field(default_factory=dict)
    other_checks: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    single_layers: list[dict[str, Any]] = field(default_factory=list)
    tiles: list[dict[str, Any]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    sound: bool = False  # what the default kernels compute

    def run(self) -> None:
        """Check, then time whole calls unless a check failed.

        Raises OutOfMemory where there is too little memory for the checks.
        """
        self.folder.mkdir()
        if self._late("checks"):
            self._grown()
            return
        write(self._bundle, self.source)
        try:
            if self._tried(None):
                self.checks = self._errors(self.plan.batches, None, steps=True)
                failures = checks.failures(self.checks)
                for failure in failures:
                    self._fail(failure)
                self.sound = not failures
        except torch.OutOfMemoryError as error:
            line = " ".join(str(error).split())[:200]
            raise OutOfMemory(f"checks: {line}. Name smaller --batches than {max(self.plan.batches)}.") from error
        self._grown()
        if self.roofs and self.sound:
            self._time(self.roofs)

    def time_compiled(self) -> None:
        """Time PyTorch's compiled form beside ours: last of the calls, as to compile takes long and may fail."""
        if self.roofs is None or not self.sound:
            return
        for batch in self.plan.compiled:
            name = f"{timing.COMPILED} at batch {batch}"
            if self._late(name):
                continue
            self._tell(name)
            with timing.left_out(name, self._refuse):
                form = peers.TorchForm(self.gpu, self.source, compiled=True, graph=True)
                ours = _called(Ours(self.gpu, self._bundle, batch))
                contenders = {timing.OWN: ours, timing.COMPILED: form.call}
                for timed in self._time_calls(contenders, batch, self.roofs):
                    self.rows += [row for row in timed if row["backend"] != timing.OWN]
                    self._grown()

    def compare(self, kernels: str) -> None:
        """Check other kernels of this GPU; then time them beside the default, after ``run``."""
        if self._late(kernels):
            return
        try:
            self._compare(kernels)
        except (torch.OutOfMemoryError, OutOfMemory) as error:
            self._refuse(f"{kernels}: out of memory ({_line(error)})")
        except Exception as error:
            self._fail(f"{kernels}: {_line(error)}")
        self._grown()

    def time_single_layers(self) -> None:
        """Time every layer by itself: of our kernels, the default and others that were checked, and of the peers."""
        if self.roofs is None or not self.sound:
            return
        for batch in self.plan.batches if self._profiles("single layers") else ():
            if not self._late(f"single layers at batch {batch}"):
                self._tell(f"single layers at batch {batch}")
                self._time_single_layers(batch, self.roofs)
                self._grown()

    def time_tiles(self) -> None:
        """Time every layer by itself as it runs by default, then with every tile.

        A layer that a tile has no kernel for runs as the others of the tile's instructions would have it.
        """
        if self.roofs is None or not self.sound or not self._profiles("tiles"):
            return
        for batch in self.plan.batches:
            images = self.gpu.tensor(checks.photographs(batch, seed=7))
            wanted = None
            for tile in (None, *tiles_of(self.gpu)):
                name = tile or timing.OWN
                if self._late(f"tile {name} at batch {batch}"):
                    continue
                self._tell(f"tile {name} at batch {batch}")
                with timing.left_out(f"tile {name} at batch {batch}", self._refuse):
                    ours = Ours(self.gpu, self._bundle, batch, kernels=tile, serial=True)
                    found = ours.result("reencode", images).float()
                    wanted = found if wanted is None else wanted
                    timing.check_agreement(found, wanted)
                    self.tiles += timing.own_steps(self.gpu, self.source, ours, batch, self.roofs, name)
                    del ours, found
            self._grown()

    def sanitize(self, path: str) -> None:
        """Run compute-sanitizer's tools on all kernels that were checked; of others the one that knows about copies."""
        for kernels, found in ((None, self.checks), *self.other_checks.items()):
            few = self.plan.brief or kernels is not None
            for tool in sanitizer.TOOLS[:1] if few else sanitizer.TOOLS:
                name = f"compute-sanitizer, {tool}" + (f" on {kernels}" if kernels else "")
                if not found or self._late(name):
                    continue
                self._tell(name)
                limit = min(sanitizer.LIMIT_S, self.plan.deadline - time.monotonic())
                lines = sanitizer.findings(path, self._bundle, tool, self._refuse, kernels, limit)
                if lines is not None:
                    found["sanitizer"][tool] = lines
                if lines:
                    self._fail(f"{name}: {lines[-1]}")
                self._grown()

    def _profiles(self, what: str) -> bool:
        """Tell whether kernels are recorded, and why something is left out where they are not."""
        with timing.left_out(what, self._refuse):
            self.gpu.attach_profiler()
            return True
        return False

    @property
    def _bundle(self) -> Path:
        return self.folder / "whole"

    def _tried(self, kernels: str | None) -> bool:
        """Tell whether calls come back in a process that may break or hang, as this one must not."""
        self._tell(f"first calls{_of(kernels)}, in a process of their own")
        wrong = sanitizer.trial(self._bundle, (*sanitizer.BATCHES, max(self.plan.batches)), kernels)
        if wrong is not None:
            self._fail(f"{kernels}: {wrong}" if kernels else wrong)
        return wrong is None

    def _grown(self) -> None:
        """Hand out what was found so far."""
        own = tuple(dict.fromkeys(row["backend"] for row in self.rows if row["backend"].startswith(timing.OWN)))
        rate(self.rows, own, {what: self._work(what) for what in timing.CALLS}, self.roofs)
        names = ("checks", "other_checks", "failures", "rows", "single_layers", "tiles", "left_out")
        self.keep({name: getattr(self, name) for name in names})

    def _errors(self, batches: Sequence[int], kernels: str | None, steps: bool) -> dict[str, Any]:
        """Return what is checked of kernels, the default where None are named, within this process."""
        gpu, source, folder, repeats = self.gpu, self.source, self.folder, self.plan.repeats
        few = sorted({min(size, max(self.plan.batches)) for size in checks.FEW})
        self._tell(f"errors of the networks{_of(kernels)}")
        found: dict[str, Any] = {"network": checks.network_errors(gpu, source, self._bundle, folder, kernels=kernels)}
        found["steps"] = []
        if steps:
            self._tell(f"errors of every layer{_of(kernels)}")
            found["steps"] = checks.step_errors(gpu, source, folder, batches, kernels)
        self._tell(f"results{_of(kernels)} that must be equal")
        found["contradictions"] = checks.contradictions(gpu, self._bundle, few, kernels)
        found["repeats_that_differ"] = {
            str(batch): checks.differing_repeats(gpu, self._bundle, batch, repeats, kernels) for batch in few
        }
        found["sanitizer"] = {}
        return found

    def _checked(self, kernels: str) -> bool:
        if not self._tried(kernels):
            return False
        largest = (max(self.plan.batches),)  # fills the GPU
        found = self.other_checks[kernels] = self._errors(largest, kernels, steps=not self.plan.brief)
        failures = checks.failures(found)
        for failure in failures:
            self._fail(f"{kernels}: {failure}")
        return not failures

    def _compare(self, kernels: str) -> None:
        # The serial ones are the default's, whose bits were compared with theirs.
        if (kernels != SERIAL and not self._checked(kernels)) or self.roofs is None:
            return
        name = _name_of(kernels)
        for batch in self.plan.batches:
            if self._late(f"{name} at batch {batch}"):
                continue
            self._tell(f"batch {batch} with {kernels}")
            with timing.left_out(f"{name} at batch {batch}", self._refuse):
                default, other = (
                    Ours(self.gpu, self._bundle, batch),
                    Ours(self.gpu, self._bundle, batch, kernels=kernels),
                )
                contenders = {timing.OWN: _called(default), name: _called(other)}
                for timed in self._time_calls(contenders, batch, self.roofs):
                    self.rows += [row for row in timed if row["backend"] == name]

    def _time(self, roofs: Roofs) -> None:
        absent = peers.reason_without_onnxruntime(self.gpu.provider)
        if absent:
            self._refuse(f"onnxruntime: {absent}")
        for batch in self.plan.batches:
            if self._late(f"batch {batch}"):
                continue
            self._tell(f"batch {batch}")
            contenders: dict[str, timing.Contender] = {}
            try:
                contenders = self._contenders(batch, onnxruntime=absent is None)
                for timed in self._time_calls(contenders, batch, roofs):
                    self.rows += timed
                    self._grown()
            except (torch.OutOfMemoryError, OutOfMemory) as error:
                self._refuse(f"batch {batch}: not all timed, out of memory ({_line(error)})")
            except Exception as error:
                self._fail(f"batch {batch}: {_line(error)}")
            contenders.clear()  # and their memory
            self._grown()

    def _time_calls(
        self, contenders: Mapping[str, timing.Contender], batch: int, roofs: Roofs
    ) -> Iterator[list[dict[str, Any]]]:
        """Time every call at one batch size; yield its rows."""
        for what in timing.CALLS:
            if not self._late(f"{what} at batch {batch}"):
                yield timing.time_call(
                    self.gpu, self.source, contenders, what, batch, self.plan.seconds, roofs, self._refuse
                )

    def _time_single_layers(self, batch: int, roofs: Roofs) -> None:
        gpu, source, plan = self.gpu, self.source, self.plan
        for kernels in (None, *self.other_checks):
            name = _name_of(kernels)
            # Serial, or a kernel's time would hold what it waits for the one before.
            with timing.left_out(f"{name}: single layers at batch {batch}", self._refuse):
                ours = Ours(gpu, self._bundle, batch, kernels=kernels, serial=True)
                self.single_layers += timing.own_steps(gpu, source, ours, batch, roofs, name)
                del ours  # and its memory
        self._grown()
        self.single_layers += timing.torch_steps(
            gpu, source, batch, plan.compiled_layers, roofs, self._refuse, self._late
        )
        if plan.cutlass:
            with timing.left_out(f"cutlass at batch {batch}", self._refuse):
                steps = timing.networks(source)["generator"]
                gpu.let_go()  # the peer is a process of its own
                self.single_layers += cutlass.time_upconvolutions(plan.cutlass, "generator", steps, batch, roofs)

    def _contenders(self, batch: int, onnxruntime: bool) -> dict[str, timing.Contender]:
        """Return who takes part, ours first, each as a function from (what, argument, iterations) to a call."""
        gpu, source = self.gpu, self.source
        found: dict[str, timing.Contender] = {timing.OWN: _called(Ours(gpu, self._bundle, batch))}
        found |= {
            "torch": peers.TorchForm(gpu, source).call,
            "torch-graph": peers.TorchForm(gpu, source, graph=True).call,
        }
        if onnxruntime:
            with timing.left_out("onnxruntime", self._refuse):
                found["onnxruntime"] = peers.OnnxRuntimeForm(gpu, source).call
        return found

    def _work(self, what: str) -> Work:
        networks = timing.networks(self.source)
        steps = [step for network in timing.CALLS[what] for step in networks[network]]
        return Work(sum(step.multiply_adds for step in steps), sum(step.weight_bytes for step in steps))

    def _late(self, what: str) -> bool:
        """Tell whether there is no time left for something, which is then left out."""
        late = time.monotonic() >= self.plan.deadline
        if late:
            self._refuse(f"{what}: no time left")
        return late

    def _tell(self, line: str) -> None:
        self.say(f"{self.source.layer}: {line}")

    def _fail(self, reason: str) -> None:
        self.failures.append(reason)
        self._tell(f"FAILED, {reason}")

    def _refuse(self, reason: str) -> None:
        self.left_out.append(reason)
        self._tell(f"left out, {reason}")


def _of(kernels: str | None) -> str:
    return f" of {kernels}" if kernels else ""


def _name_of(kernels: str | None) -> str:
    return f"{timing.OWN}-{kernels}" if kernels else timing.OWN


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def _called(ours: Ours) -> timing.Contender:
    def call(what: str, argument: Tensor, iterations: int = 1) -> Call:
        return ours.call(what, argument, ours.output(what, len(argument)), iterations)

    return call
