"""benchmarks.gpu from end to end; run by test_gpu_command.py, where a GPU is emulated. PyTorch and ONNX Runtime run on
the CPU, on memory that the emulated driver knows; every figure is that of an emulation and means nothing."""

import json
import os
import subprocess
import sys
import time
import weakref
from copy import deepcopy
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from deepsim.benchmarks.float64_error import write
from deepsim.benchmarks.gpu import __main__ as command
from deepsim.benchmarks.gpu import checks, measurement, sanitizer, steps, timing
from deepsim.benchmarks.gpu.ours import Ours
from deepsim.benchmarks.gpu.plan import others_of
from deepsim.export.sources import Source, random_source
from deepsim.runtime.checkout import process_environment
from deepsim.runtime.errors import DeviceError
from tests.benchmarks.emulated_gpu import StandIn
from tests.bundles import NETWORKS, random_weights

PEERS = ("cuda", "torch-graph", "cutlass")


@pytest.fixture
def gpu():
    return StandIn()


@pytest.fixture
def short(monkeypatch):
    """Make everything as short as it can be."""
    values = {"ROUNDS": 1, "LOOP": 2, "LATENCIES": 1, "PROFILED": 2, "WARM_UP": 0, "PRODUCTS": (32,), "COPIED": 1 << 12}
    values["ROOF_SECONDS"] = 1e-6
    for name, value in values.items():
        monkeypatch.setattr(timing, name, value)
    monkeypatch.setattr(checks, "FEW", (1,))
    monkeypatch.setattr(sanitizer, "find", lambda: None)
    monkeypatch.setattr(sanitizer, "BATCHES", (1,))


def tiny_source():
    (encoder, generator), weights = NETWORKS["tiny"], random_weights("tiny")
    return Source(encoder, generator, *weights, np.zeros((0, 227, 227, 3), np.uint8), {})


# Stands in for the compiled peer: every layer takes 20 us.
CUTLASS = """#!/bin/sh
while [ $# -gt 0 ]; do
  printf '{"batch": %d, "height": %d, "inputs": %d, "outputs": %d, ' $1 $2 $3 $4
  printf '"tile": "a", "seconds": 2e-5, "error": 0}\\n'
  shift 4
done
"""


@pytest.fixture
def commanded(short, monkeypatch, tmp_path):
    """Run the command with some options, on the tiny network; return its record and the folder of its results."""
    peer = tmp_path / "cutlass_dgrad"
    peer.write_text(CUTLASS)
    peer.chmod(0o755)
    monkeypatch.setattr(command, "Gpu", StandIn)
    monkeypatch.setattr(command, "random_source", lambda layer: tiny_source())
    monkeypatch.setattr(command, "REPEATS", 2)
    monkeypatch.setattr(command.cutlass, "check_headers", lambda headers, architecture: None)
    monkeypatch.setattr(command.cutlass, "compile_peer", lambda headers, architecture, folder: peer)

    def run(*options):
        folder = tmp_path / "results"
        given = ["--generators", "fc6", "--seconds", "0.001", "--no-compile", "-o", str(folder), *options]
        command.main(given, standalone_mode=False)
        (record,) = folder.glob("*.json")
        return json.loads(record.read_text()), folder

    return run


def test_a_whole_run(commanded, capsys):
    record, folder = commanded("--batches", "1,2", "--cutlass", "headers")
    found = record["generators"]["fc6"]
    told = capsys.readouterr()
    assert found["failures"] == found["left_out"] == [] and "FAILED" not in told.err
    network = found["checks"]["network"]
    assert (
        0
        < network["fp32"]["image"]
        < 1e-5
        < network["fp16"]["image"]
        < 4 * network["torch_fp16"]["image"]
        < network["bf16"]["image"]
        < 0.1
    )
    errors = {(row["network"], row["step"]): row["error"] for row in found["checks"]["steps"]}
    assert len(errors) == 12 and all(0 < error < 2e-3 for error in errors.values())
    assert {(row["what"], row["batch"], row["backend"]) for row in found["rows"]} == {
        (what, batch, backend)
        for what in ("encode", "decode", "reencode")
        for batch in (1, 2)
        for backend in ("cuda", "torch", "torch-graph", "onnxruntime")
    }
    layers = {
        name: {(r["network"], r["step"]) for r in found["single_layers"] if r["backend"] == name} for name in PEERS
    }
    ends = {("encoder", steps.INPUT), ("encoder", steps.OUTPUT), ("generator", steps.INPUT)}
    assert layers["cuda"] == {*errors, *ends} and layers["torch-graph"] == set(errors)
    assert layers["cutlass"] == {("generator", f"deconv{index}") for index in range(6)}
    assert record["left_out"] == ["compute-sanitizer: not found, expected it on PATH or beside nvcc"]
    assert sorted(path.suffix for path in folder.iterdir()) == [".json", ".md", ".svg"]
    assert "worst layer: error over that of PyTorch's fp16" in told.out and str(folder) in told.out


def measured(gpu, plan, source):
    """Measure a generator; return what there was whenever there was more."""
    kept = []
    measurement.measure(gpu, {"fc6": source}, plan, lambda line: None, lambda record: kept.append(deepcopy(record)))
    return [record["generators"]["fc6"] for record in kept]


@pytest.fixture
def hopper(gpu, short, monkeypatch):
    """A GPU that has wgmma and computes nothing; its checks tell which kernels they were asked about.

    It has so few multiprocessors that one image fills it.
    """
    settings = {"ARCHITECTURE": "90", "MULTIPROCESSORS": "1", "IDLE": "1"}
    for name, value in settings.items():
        monkeypatch.setenv(f"DEEPSIM_STAND_IN_{name}", value)
    monkeypatch.setattr(StandIn, "architecture", 90)
    empty = StandIn.empty
    monkeypatch.setattr(StandIn, "empty", lambda *given: empty(*given).zero_())  # results that nobody writes agree
    network = {"fp16": {"image": 1e-4}, "torch_fp16": {"image": 1e-4}}
    asked = {"network_errors": network, "step_errors": [], "contradictions": [], "differing_repeats": 0}
    gpu.asked = []

    def answering(name, answer):
        def check(*given, kernels=None):
            gpu.asked.append((name, "mma" if "mma" in (kernels, given[-1]) else None))
            return answer

        monkeypatch.setattr(checks, name, check)

    for name, answer in asked.items():
        answering(name, answer)
    gpu.checks = list(asked)
    return gpu


OTHERS = ("mma", "serial")
NAMES = ("cuda", "cuda-mma", "cuda-serial")
HOPPER = measurement.Plan((1,), 1e-6, repeats=2, compiled_layers=False)


def test_on_hopper_the_other_kernels_are_checked_and_timed_too(hopper, monkeypatch):
    monkeypatch.setattr(timing, "_torch_times", lambda *given: {})
    first, *others, last = measured(hopper, HOPPER, random_source("fc6"))
    assert hopper.asked == [(name, kernels) for kernels in (None, "mma") for name in hopper.checks]
    assert first["rows"] == [] and last["failures"] == []
    default = next(record for record in others if len(record["rows"]) == 3)
    assert {row["backend"] for row in default["rows"]} == {"cuda"} and default["other_checks"] == {}
    named = {(row["what"], row["backend"]) for row in last["rows"]}
    assert named == {(what, name) for what in ("encode", "decode", "reencode") for name in NAMES}
    rows = {name: [r for r in last["single_layers"] if r["backend"] == name] for name in NAMES}
    assert (
        [row["step"] for row in rows["cuda"]] == [row["step"] for row in rows["cuda-mma"]] != [] == rows["cuda-serial"]
    )


def test_kernels_are_those_that_were_named(hopper, tmp_path, monkeypatch):
    monkeypatch.setenv("DEEPSIM_CUDA_KERNELS", "mma")
    bundle = write(tmp_path / "fc6", random_source("fc6"))
    images = hopper.empty((1, 227, 227, 3), torch.uint8)
    names = {}
    for kernels in ("wgmma", None):
        ours = Ours(hopper, bundle, 1, kernels=kernels)
        ran = hopper.kernels(ours.call("reencode", images, ours.output("reencode", 1)), 1)
        names[kernels] = {kernel.name.split("_")[0] for kernel in ran[0]}
    assert any(name.startswith("wgmma") for name in names["wgmma"])
    assert not any(name.startswith("wgmma") for name in names[None])


def test_kernels_start_early_unless_they_shall_not(hopper, tmp_path, monkeypatch):
    def early_edges(**settings):
        ours = Ours(hopper, bundle, 1, **settings)
        before = hopper.calls("cuGraphAddDependencies_v2")
        for _ in range(2):
            ours.call("reencode", images, ours.output("reencode", 1))()
        return hopper.calls("cuGraphAddDependencies_v2") - before

    bundle = write(tmp_path / "fc6", tiny_source())
    images = hopper.empty((1, 227, 227, 3), torch.uint8)
    assert early_edges() == early_edges(kernels="mma") > 0
    assert early_edges(kernels="serial") == early_edges(serial=True) == early_edges(kernels="mma", serial=True) == 0
    assert "DEEPSIM_CUDA_OVERLAP" not in os.environ
    assert others_of(hopper) == list(OTHERS)
    monkeypatch.setenv("DEEPSIM_CUDA_OVERLAP", "1")
    assert others_of(hopper) == list(OTHERS)
    monkeypatch.setenv("DEEPSIM_STAND_IN_COMPILED_FOR", "80")
    assert others_of(hopper) == ["mma"]
    monkeypatch.delenv("DEEPSIM_STAND_IN_COMPILED_FOR")
    monkeypatch.setenv("DEEPSIM_CUDA_OVERLAP", "0")
    assert early_edges() == 0 and others_of(hopper) == ["mma"]
    monkeypatch.setenv("DEEPSIM_CUDA_KERNELS", "mma")
    assert others_of(hopper) == []


class NarrowIsWrong(Ours):
    """Our side, with wrong results where the tile "narrow" is named."""

    def __init__(self, *given, kernels=None, serial=False):
        super().__init__(*given, kernels=kernels, serial=serial)
        self.wrong = kernels == "narrow"

    def result(self, *given):
        return super().result(*given).add_(int(self.wrong))


def test_every_tile_is_timed_where_that_is_asked(hopper, monkeypatch):
    monkeypatch.setattr(measurement, "Ours", NarrowIsWrong)
    *_, last = measured(hopper, replace(HOPPER, single_layers=False, tiles=True), tiny_source())
    steps_of = {}
    for row in last["tiles"]:
        steps_of.setdefault(row["backend"], []).append(row["step"])
    assert next(iter(steps_of)) == "cuda" and {"large", "skinny", "wgmma_short", "wgmma_tall"} < set(steps_of)
    assert {*steps_of, "narrow"} == {"cuda", *measurement.tiles_of(hopper)}
    assert all(found == steps_of["large"] != [] for found in steps_of.values())
    wrong = "tile narrow at batch 1: differs from ours by 1e+30, expected at most 0.005."
    assert [line for line in last["left_out"] if "tile" in line] == [wrong]
    monkeypatch.setattr(hopper, "architecture", 80)
    assert not any(name.startswith("wgmma") for name in measurement.tiles_of(hopper))


def test_other_kernels_that_are_wrong_leave_the_defaults_figures(hopper, monkeypatch):
    monkeypatch.setattr(checks, "contradictions", lambda *given: ["encode: a gap"] if "mma" in given else [])
    *_, last = measured(hopper, replace(HOPPER, single_layers=False), tiny_source())
    assert last["failures"] == ["mma: encode: a gap"]
    assert {row["backend"] for row in last["rows"]} == {"cuda", "cuda-serial"}


def test_other_kernels_that_break_leave_the_figures_of_every_generator(hopper, monkeypatch):
    def breaking(*given, kernels=None):
        if kernels == "mma":
            raise DeviceError("cuda: an illegal instruction.")
        return []

    monkeypatch.setattr(checks, "step_errors", lambda *given: breaking(kernels=given[-1]))
    kept = []
    plan, sources = replace(HOPPER, single_layers=False), {"fc6": tiny_source(), "fc7": tiny_source()}
    measurement.measure(hopper, sources, plan, lambda line: None, lambda record: kept.append(deepcopy(record)))
    found = kept[-1]["generators"]
    assert [found[name]["failures"] for name in sources] == [["mma: cuda: an illegal instruction."]] * 2
    assert all({row["backend"] for row in found[name]["rows"]} == {"cuda", "cuda-serial"} for name in sources)


def test_compute_sanitizer_comes_last_and_its_findings_are_failures(hopper, monkeypatch):
    asked = []

    def findings(path, bundle, tool, refuse, kernels, limit):
        asked.append((path, tool, kernels))
        return ["where", "one hazard"] if tool == "racecheck" else []

    monkeypatch.setattr(sanitizer, "find", lambda: "sanitizer")
    monkeypatch.setattr(sanitizer, "findings", findings)
    *_, last = measured(hopper, replace(HOPPER, single_layers=False), tiny_source())
    assert asked == [*(("sanitizer", tool, None) for tool in sanitizer.TOOLS), ("sanitizer", "memcheck", "mma")]
    assert last["failures"] == ["compute-sanitizer, racecheck: one hazard"]
    assert last["checks"]["sanitizer"]["racecheck"] == ["where", "one hazard"]
    assert last["other_checks"]["mma"]["sanitizer"] == {"memcheck": []}
    assert {row["backend"] for row in last["rows"]} == set(NAMES)


def test_what_has_not_begun_at_the_deadline_is_left_out(hopper, monkeypatch):
    monkeypatch.setattr(sanitizer, "find", lambda: "sanitizer")
    clock = iter([0.0])  # of the first question, before the checks; all others are late
    monkeypatch.setattr(measurement, "time", SimpleNamespace(monotonic=lambda: next(clock, 10.0)))
    *_, last = measured(hopper, replace(HOPPER, deadline=5.0, compiled=(1,), tiles=True), tiny_source())
    tiles = [f"tile {name} at batch 1" for name in ("cuda", *measurement.tiles_of(hopper))]
    named = ["batch 1", *OTHERS, "torch-compile-graph at batch 1", "single layers at batch 1", *tiles]
    named += [f"compute-sanitizer, {tool}" for tool in sanitizer.TOOLS]
    assert [line for line in last["left_out"] if "onnx" not in line] == [f"{name}: no time left" for name in named]
    assert last["checks"]["network"] and last["rows"] == last["failures"] == last["tiles"] == []


def test_nothing_is_checked_after_the_deadline(hopper):
    *_, last = measured(hopper, replace(HOPPER, deadline=time.monotonic()), tiny_source())
    assert last["left_out"] == ["checks: no time left"] and last["checks"] == {} and hopper.asked == []


def test_kernels_that_hang_are_not_called_in_this_process(hopper, monkeypatch):
    monkeypatch.setattr(sanitizer, "trial", lambda bundle, batches, kernels: "calls that do not end, after 120 s")
    *_, last = measured(hopper, HOPPER, tiny_source())
    assert last["failures"] == ["calls that do not end, after 120 s"]
    assert last["checks"] == {} and last["rows"] == [] and hopper.asked == []


def test_a_wrong_layer_is_found_and_nothing_timed(gpu, short, monkeypatch):
    whole = checks.write_beginning

    def wrong(path, source, layers):
        weights = {**source.generator_weights}
        weights["conv5_1.weight"] = 1.01 * weights["conv5_1.weight"]
        return whole(path, replace(source, generator_weights=weights), layers)

    monkeypatch.setattr(checks, "write_beginning", wrong)
    *_, found = measured(gpu, measurement.Plan((1,), 1e-6, repeats=2), tiny_source())
    assert [failure.split(":")[0] for failure in found["failures"]] == ["conv5_1 at batch 1", "image of the network"]
    assert found["failures"][0].startswith("conv5_1 at batch 1: error 0.0")
    assert found["rows"] == found["single_layers"] == []


@pytest.mark.parametrize("named_by", ["environment", "argument"])
def test_fp32_is_left_out_where_kernels_for_16_bits_are_named(gpu, monkeypatch, tmp_path, named_by):
    if named_by == "environment":
        monkeypatch.setenv("DEEPSIM_CUDA_KERNELS", "mma")
    source, kernels = tiny_source(), "mma" if named_by == "argument" else None
    bundle = write(tmp_path / "whole", source)
    found = checks.network_errors(gpu, source, bundle, tmp_path, photos=1, kernels=kernels)
    assert list(found) == ["fp16", "bf16", "torch_fp16"]


def test_a_call_keeps_the_memory_that_it_reads(gpu, tmp_path):
    ours = Ours(gpu, write(tmp_path / "tiny", tiny_source()), 1)
    argument = gpu.empty((1, 227, 227, 3), torch.uint8)
    alive = weakref.ref(argument)
    call = ours.call("encode", argument, ours.output("encode", 1))
    del argument
    assert alive() is not None
    del call
    assert alive() is None


@pytest.mark.parametrize("architecture", ["80", "90"])
def test_a_result_of_the_call_before_is_noticed(gpu, monkeypatch, tmp_path, architecture):
    """As it is where a kernel reads what the one before has not written yet."""
    monkeypatch.setenv("DEEPSIM_STAND_IN_ARCHITECTURE", architecture)
    bundle = write(tmp_path / "tiny", tiny_source())
    assert checks.differing_repeats(gpu, bundle, 1, 4) == 0
    right = Ours.call

    def stale(ours, what, argument, out, iterations=1):
        call = right(ours, what, argument, out, iterations)

        def called():
            kept.append(call().clone())
            return kept[-2] if len(kept) > 5 else kept[-1]

        return called

    kept = []
    monkeypatch.setattr(Ours, "call", stale)
    assert checks.differing_repeats(gpu, bundle, 1, 6) == 3


def test_the_program_of_trials_runs(gpu, monkeypatch, tmp_path):
    bundle = write(tmp_path / "tiny", tiny_source())
    assert sanitizer.trial(bundle, (1, 2)) is None
    program = "import sys, deepsim.benchmarks.gpu.sanitizer; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, env=process_environment())
    monkeypatch.setenv("DEEPSIM_STAND_IN_FAILS", "cuLaunchKernel 20 700")
    assert "cuda: could not" in sanitizer.trial(bundle, (1, 2))


@pytest.mark.parametrize("layer", ["fc6", "norm1"])
def test_kernels_of_the_real_networks_are_attributed(gpu, monkeypatch, tmp_path, layer):
    """What kernels compute is left out here; which ones run is not."""
    monkeypatch.setenv("DEEPSIM_STAND_IN_IDLE", "1")
    monkeypatch.setenv("DEEPSIM_STAND_IN_MULTIPROCESSORS", "132")
    source = random_source(layer)
    bundle = write(tmp_path / layer, source)
    for batch in (1, 64):  # of 64 images, what is large runs group by group
        ours = Ours(gpu, bundle, batch)
        arguments = {"encoder": ("encode", gpu.empty((batch, 227, 227, 3), torch.uint8))}
        arguments["generator"] = ("decode", gpu.empty((batch, *source.generator_table.input_shape), torch.float32))
        for network, parts in timing.networks(source).items():
            what, argument = arguments[network]
            call, places = ours.call(what, argument, ours.output(what, batch)), ours.steps_of_kernels(what, batch)
            found = timing.by_step(gpu.kernels(call, 2), places, parts)
            launched = {name: round(seconds * 1e6) for name, seconds in found.items()}
            for part in parts:
                strided = part.layers[-1].stride == 2 and part.upconvolution is None and network == "generator"
                count = launched[part.name]
                if batch == 1 or part.kind == "fc":
                    assert count == 1 + strided, part.name
                else:
                    assert count // (1 + strided) in (1, 2, 4, 8, 16), part.name
            ends = {steps.INPUT} | ({steps.OUTPUT} if network == "encoder" else set())
            assert set(found) - {part.name for part in parts} == ends
            largest = parts[-1 if network == "generator" else 0].name
            assert batch == 1 or launched[largest] >= 2
