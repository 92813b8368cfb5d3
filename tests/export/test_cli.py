"""The command: exit codes, what goes to stdout, what needs which package."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from deepsim.export.cli import main
from deepsim.runtime.bundle import Bundle

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_exports_a_run(run_folder, tmp_path):
    target = tmp_path / "out.deepsim"
    result = run(run_folder, "--engine", "onnx", "-o", target)
    assert result.exit_code == 0, result.output
    assert "generator_fp32" in result.stdout and "generator.onnx" in result.stdout
    assert f"deepsim reconstruct {target} PHOTO" in result.stderr
    assert Bundle.open(target).manifest.provenance["step"] == 20


def test_json(run_folder, tmp_path):
    result = run(run_folder, "--engine", "onnx", "-o", tmp_path / "out.deepsim", "--json")
    record = json.loads(result.stdout)
    assert record["layer"] == "norm1" and record["files"]["encoder.onnx"] > 1000
    assert record["verification"]["encoder_fp32"]["figures"]["relative_error"] < 1e-4


def test_without_source_the_newest_run_is_taken(run_folder, monkeypatch):
    monkeypatch.chdir(run_folder.parent.parent)
    result = run("--engine", "onnx")
    assert result.exit_code == 0, result.output
    assert "newest run, runs/tiny" in result.stderr
    assert Bundle.open("norm1.deepsim").manifest.name == "norm1"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "no training run"),
        (["--random"], 2, "--layer"),
        (["--random", "--layer", "conv9"], 2, "conv9"),
        (["--random", "--layer", "norm1", "--generator", "dosovitskiy2015"], 2, "layer norm1: features of shape"),
        (["run", "--generator", "dosovitskiy2015"], 2, "--generator: dosovitskiy2015, but a run has its own"),
        (["--random", "--layer", "fc6", "--encoder", "vgg"], 2, "vgg"),
        (["run", "--random", "--layer", "fc6"], 2, "SOURCE and --random"),
        (["run", "--layer", "fc6"], 2, "--layer: fc6"),
        (["missing"], 3, "missing"),
        (["--max-batch", "0", "missing"], 2, "--max-batch: 0"),
    ],
)
def test_what_cannot_be_exported(arguments, code, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.exit_code == code and message in result.stderr
    assert result.stderr.startswith("Error: ") and len(result.stderr.splitlines()) == 1


def test_missing_package_is_one_line(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnx" else found(name))
    result = run("missing")
    assert result.exit_code == 4
    assert result.stderr == (
        "Error: onnx: not installed, this needs deepsim[export]. Run: pip install 'deepsim[export]'\n"
    )


def test_help_needs_nothing_but_the_base_install():
    code = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
for name in ("torch", "onnx", "onnxruntime", "safetensors", "tensorrt_rtx"):
    sys.modules[name] = None
import runtime
from deepsim.export.cli import main
main(["--help"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "deepsim-export --engine fp16" in done.stdout
