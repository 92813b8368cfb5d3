import numpy as np
import pytest

from deepsim import benchmarks
from deepsim.benchmarks import timing
from deepsim.benchmarks.timing import Inputs
from deepsim.runtime import machine
from deepsim.runtime.errors import NumericError, UsageError


def test_measure_gives_a_row_per_work_and_batch(tiny):
    seen = []
    rows = benchmarks.measure(tiny, batches=(1, 2), seconds=0.01, progress=seen.append)
    assert [(row["what"], row["batch"]) for row in rows] == [
        (what, batch) for what in ("encode", "decode", "reencode") for batch in (1, 2)
    ]
    for row in rows:
        assert set(row) == {"what", "batch", "images_per_second", "p50_ms", "p95_ms", "p99_ms", "repeats"}
        assert 0 < row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"] and row["repeats"] >= 5
    assert len(seen) == 30 and seen[0] == "encode x 1"


def test_figures_follow_from_the_latencies():
    rounds = [[0.010] * 4, [0.020] * 2, [0.040]]  # seconds; per round 100, 50 and 25 calls per second
    row = timing._row(rounds, images=8)
    assert row["images_per_second"] == pytest.approx(50 * 8)
    assert (row["p50_ms"], row["repeats"]) == (pytest.approx(10), 7)
    assert row["p99_ms"] == pytest.approx(np.percentile([10, 10, 10, 10, 20, 20, 40], 99))


def test_compare_alternates_between_backends(inverter_of):
    both = {name: inverter_of("tiny", name) for name in ("onnxruntime", "torch")}
    seen = []
    rows = benchmarks.compare(both, Inputs(227), (1,), 0.01, seen.append)
    assert [row["backend"] for row in rows] == ["onnxruntime", "torch"] * 3
    assert seen[:4] == ["encode x 1 onnxruntime", "encode x 1 torch"] * 2


def test_contenders_agree_and_a_wrong_one_is_not_timed(inverter_of):
    both = {name: inverter_of("tiny", name) for name in ("onnxruntime", "torch")}
    rows = benchmarks.compare(both, Inputs(227), (2,), 0.01)
    assert rows[0]["agreement"] == {"features": 0} and rows[2]["agreement"] == {"grey_levels": 0, "different": 0}
    assert 0 < rows[1]["agreement"]["features"] < 1e-5 and rows[3]["agreement"]["grey_levels"] <= 1

    class Wrong:
        encode, reencode = both["torch"].encode, both["torch"].reencode

        def decode(self, features, full):
            return both["torch"].decode(features * np.float32(1.05), full)

    seen = []
    with pytest.raises(
        NumericError, match=r"wrong: differs from onnxruntime by \d+ \(grey levels\), expected at most 1"
    ):
        benchmarks.compare({"onnxruntime": both["onnxruntime"], "wrong": Wrong()}, Inputs(227), (2,), 0.01, seen.append)
    assert not any(label.startswith("decode") for label in seen)
    refused = {}
    rows = benchmarks.compare(
        {"onnxruntime": both["onnxruntime"], "wrong": Wrong()}, Inputs(227), (2,), 0.01, refuse=refused.__setitem__
    )
    assert [row["backend"] for row in rows if row["what"] == "decode"] == ["onnxruntime"]
    assert [row["backend"] for row in rows if row["what"] != "decode"] == ["onnxruntime", "wrong"] * 2
    assert isinstance(refused["wrong"], NumericError) and list(refused) == ["wrong"]
    lenient = {"wrong": benchmarks.Tolerance(grey_levels=255, different=1)}
    opened = {"onnxruntime": both["onnxruntime"], "wrong": Wrong()}
    assert benchmarks.compare(opened, Inputs(227), (2,), 0.01, tolerances=lenient)


def test_batches_are_checked(tiny):
    with pytest.raises(UsageError, match="batch"):
        benchmarks.measure(tiny, batches=(0,))


def test_environment_and_versions():
    found = machine.environment()
    assert found["cpus"] >= 1 and found["cpu"] and found["versions"]["numpy"] == np.__version__
    assert machine.versions(["no-such-distribution"]) == {"no-such-distribution": None}
