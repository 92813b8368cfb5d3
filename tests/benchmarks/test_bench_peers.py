"""The peers of the benchmark compute what the backends compute, and the arithmetic of ratios and roofs."""

import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch

from deepsim import benchmarks
from deepsim.benchmarks import contenders, memory, work
from deepsim.benchmarks.rewrite import stack_phases, without_transposed_convolutions
from deepsim.benchmarks.timing import Inputs
from deepsim.runtime.bundle import Bundle
from deepsim.runtime.errors import DeviceError
from deepsim.runtime.generators import generator_spec
from deepsim.runtime.networks import CAFFENET

FAST = ("cpu", "cpu-half", "onnxruntime", "onnxruntime-2x2", "openvino", "torch-channels-last")
COMPILED = ("cpu", "torch-compile", "torch-compile-frozen")


@pytest.mark.parametrize("names", [FAST, pytest.param(COMPILED, marks=pytest.mark.slow)])
@pytest.mark.parametrize("full", [False, True])
def test_every_contender_agrees_at_every_batch(bundle_of, names, full):
    bundle = Bundle.open(bundle_of("tiny"))
    opened = {name: contenders.open_contender(name, bundle, "cpu", 3) for name in names}
    rows = benchmarks.compare(opened, Inputs(227), (1, 3), 0.01, None, contenders.tolerances(), full)
    assert {row["backend"] for row in rows} == set(names) and len(rows) == 6 * len(names)


@pytest.mark.parametrize("size", [(1, 1), (3, 5)])
def test_stacked_phases_are_the_transposed_convolution(size):
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(2, 5, *size, generator=generator, dtype=torch.float64)
    weight = torch.randn(5, 3, 4, 4, generator=generator)
    wanted = torch.nn.functional.conv_transpose2d(x, weight.double(), stride=2, padding=1)
    phases = torch.nn.functional.conv2d(x, torch.from_numpy(stack_phases(weight.numpy())).double(), padding=1)
    n, _, rows, columns = phases.shape
    shuffled = phases.reshape(n, 2, 2, 3, rows, columns).permute(0, 3, 4, 1, 5, 2).reshape(n, 3, 2 * rows, 2 * columns)
    np.testing.assert_allclose(shuffled[:, :, 1:-1, 1:-1], wanted, atol=1e-12)


def test_rewritten_graph_has_no_transposed_convolution(bundle_of):
    graph = Bundle.open(bundle_of("tiny")).read("generator.onnx")
    before, after = (
        [node.op_type for node in onnx.load_model_from_string(data).graph.node]
        for data in (graph, without_transposed_convolutions(graph))
    )
    assert before.count("ConvTranspose") == 6 and "ConvTranspose" not in after
    assert after.count("DepthToSpace") == 6


def test_work_is_that_of_the_published_networks():
    generator = generator_spec("fc6")
    found = work._count(generator.layers, generator.input_shape)
    assert round(found.multiply_adds / 1e6) == 1007 and round(found.weight_bytes / 2e6) == 112
    assert round(work._count(CAFFENET.layers, CAFFENET.input_shape).multiply_adds / 1e6) == 724


def test_ratios_and_shares_of_the_roofs():
    figures = {"cpu": 300.0, "torch": 100.0, "openvino": 200.0}
    rows = [
        {"what": "decode", "batch": 2, "backend": name, "images_per_second": rate} for name, rate in figures.items()
    ]
    rows.append({"what": "decode", "batch": 4, "backend": "cpu", "images_per_second": 400.0})
    work.rate(rows, {"cpu"}, {"decode": work.Work(10**9, 2 * 10**8)}, work.Roofs(600, 60))
    assert [row["ratio"] for row in rows] == [1.5, 0.5, 1.0, None]
    assert rows[0]["multiply_add_share"] == pytest.approx(0.5) and rows[0]["memory_share"] == pytest.approx(0.5)


def test_memory_of_what_cannot_load(tmp_path):
    with pytest.raises(DeviceError, match=r"cpu: no memory measured \(.*bundle"):
        memory.measure_memory(tmp_path / "bundle", "cpu", 1)


def test_restricting_instruction_sets(monkeypatch):
    monkeypatch.setattr(contenders.os, "environ", {})
    with pytest.raises(DeviceError, match="instruction set avx2: torch is loaded already"):
        contenders.restrict("avx2")
    contenders.restrict("avx512")
    assert contenders.os.environ == {}
    for name in ("torch", "openvino"):
        monkeypatch.delitem(contenders.sys.modules, name, raising=False)
    contenders.restrict("avx2")
    assert contenders.os.environ["DEEPSIM_INSTRUCTION_SET"] == "avx2"


def test_onnxruntime_takes_part_under_a_restriction_only_as_a_copy_that_keeps_to_it(monkeypatch, tmp_path):
    assert contenders.unrestricted("avx512") == {}
    assert set(contenders.unrestricted("avx2")) == {"onnxruntime", "onnxruntime-2x2"}
    copied = tmp_path / "onnxruntime"
    copied.mkdir()
    (copied / "__init__.py").touch()
    (copied / contenders.AVX2_ONLY).touch()
    monkeypatch.setattr(contenders, "find_spec", lambda name: SimpleNamespace(origin=str(copied / "__init__.py")))
    assert contenders.unrestricted("avx2") == {}


@pytest.mark.slow
def test_torch_compiled_is_right_in_a_restricted_run(bundle_of):
    """In a process of its own: the restriction has to come before PyTorch. Batch 1 is where widths once disagreed."""
    chosen = [f"--backend={name}" for name in ("cpu", "torch-compile")]
    start = "from deepsim.runtime.cli import main; main()"
    command = [sys.executable, "-c", start, "bench", str(bundle_of("tiny")), *chosen, "--batches=1"]
    done = subprocess.run(
        [*command, "--instruction-set=avx2", "--seconds=0.01", "--json"], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {row["backend"] for row in found["rows"] if row["what"] == "decode"} == {"cpu", "torch-compile"}
    assert found["left_out"] == {} and found["instruction_set"] == "avx2"
