import json

import pytest
from click.testing import CliRunner

from deepsim.runtime.cli import bench, main
from deepsim.runtime.errors import NumericError


@pytest.fixture
def quick(bundle_of):
    def run(*arguments):
        return CliRunner().invoke(main, ["bench", str(bundle_of("tiny")), "--seconds", "0.01", *arguments])

    return run


def test_table_json_and_file(quick, tmp_path):
    common = ("--backend", "onnxruntime", "--batches", "2,1")
    table = quick(*common, "-o", str(tmp_path / "b.json"))
    assert table.exit_code == 0
    lines = table.stdout.splitlines()
    assert lines[0].split() == [
        "backend",
        "what",
        "batch",
        "images_per_second",
        "p50_ms",
        "p95_ms",
        "p99_ms",
        "repeats",
    ]
    assert [line.split()[:3] for line in lines[1:3]] == [["onnxruntime", "encode", "1"], ["onnxruntime", "encode", "2"]]
    written = json.loads((tmp_path / "b.json").read_text())
    assert len(written["rows"]) == 6 and written["layer"] == "fc6" and written["devices"] == {"onnxruntime": "cpu"}
    assert written["environment"]["versions"]["onnxruntime"] and written["environment"]["cpu"]
    assert len(json.loads(quick(*common, "--json").stdout)["rows"]) == 6
    assert quick(*common, "-o", str(tmp_path / "b.json")).exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--batches", "0"), 2),
        (("--batches", "1,x"), 2),
        (("--backend", "cuda"), 4),
        (("--backend", "none"), 2),
        (("--device", "999"), 4),
    ],
)
def test_exit_codes(quick, arguments, code):
    assert quick(*arguments).exit_code == code


def test_backends_that_disagree_are_not_timed(quick, monkeypatch):
    def disagree(inverters):
        raise NumericError("torch: differs from onnxruntime. Export the bundle again.")

    monkeypatch.setattr(bench, "verify", disagree)
    monkeypatch.setattr(bench, "compare", None)
    assert quick("--backend", "onnxruntime").exit_code == 5
