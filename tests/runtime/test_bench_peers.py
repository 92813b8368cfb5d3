"""The peers of the benchmark compute what the backends compute, and the arithmetic of ratios and roofs."""

import numpy as np
import onnx
import pytest
import torch

from deepsim.runtime import bench
from deepsim.runtime.bench import contenders, memory, work
from deepsim.runtime.bench.rewrite import stack_phases, without_transposed_convolutions
from deepsim.runtime.bundle import Bundle
from deepsim.runtime.errors import DeviceError
from deepsim.runtime.networks import CAFFENET, generator_spec

FAST = ("cpu", "cpu-half", "onnxruntime", "onnxruntime-2x2", "openvino", "torch-channels-last")


@pytest.mark.parametrize("names", [FAST, pytest.param(("cpu", "torch-compile"), marks=pytest.mark.slow)])
@pytest.mark.parametrize("full", [False, True])
def test_every_contender_agrees_at_every_batch(bundle_of, names, full):
    bundle = Bundle.open(bundle_of("tiny"))
    opened = {name: contenders.open_contender(name, bundle, "cpu", 3) for name in names}
    rows = bench.compare(opened, (1, 3), 0.01, None, contenders.tolerances(), full)
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
