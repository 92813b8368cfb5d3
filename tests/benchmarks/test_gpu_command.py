"""python -m deepsim.benchmarks.gpu: what fails early, its exit codes, and a whole run where a GPU is emulated."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from shutil import which

import pytest
import torch

from deepsim.benchmarks.gpu import __main__ as command
from deepsim.benchmarks.gpu import checks, cutlass, device, sanitizer, timing
from deepsim.runtime.checkout import process_environment
from deepsim.runtime.errors import DeviceError, NumericError, UsageError

ROOT = Path(__file__).resolve().parents[2]


def run_command(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "deepsim.benchmarks.gpu", *arguments],
        **{"capture_output": True, "text": True, "timeout": 300, "cwd": ROOT},
        env={**process_environment(), "CUDA_VISIBLE_DEVICES": "", **environment},
    )


def test_without_a_gpu_it_is_one_line_and_exit_code_4():
    done = run_command("--quick")
    assert done.returncode == 4 and done.stdout == ""
    assert done.stderr.startswith("Error: gpu: PyTorch sees none, expected") and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--batches", "1,2000"], "--batches 1,2000: expected sizes from 1 to 1024"),
        (["--generators", "fc6,fc9"], "no 'fc9', expected of norm1, norm2"),
    ],
)
def test_options_that_make_no_sense_are_refused_first(arguments, words):
    done = run_command(*arguments)
    assert done.returncode == 2 and words in done.stderr and len(done.stderr.splitlines()) == 1


def test_options_are_read_as_they_are_meant():
    assert command.sizes_of("64, 1,8,8") == (1, 8, 64)
    assert command.layers_of("pool5,fc6,pool5") == ("pool5", "fc6")
    for text in ("", "0", "x", "1,,2"):
        with pytest.raises(UsageError, match="--batches"):
            command.sizes_of(text)


def test_photographs_are_an_encoders_input():
    drawn, others = checks.photographs(9, seed=5), checks.photographs(2, seed=6)
    assert drawn.shape == (9, 227, 227, 3) and len({image.tobytes() for image in (*drawn, *others)}) == 8 + 2


def test_a_library_without_kernels_is_exit_code_4(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(device.cuda, "reason_unavailable", lambda name: "the library was built without CUDA kernels.")
    with pytest.raises(
        DeviceError, match=r"^gpu: the backend cuda cannot run \(the library was built .* kernels\)\. See"
    ):
        device.Gpu()
    assert DeviceError.exit_code == 4


def test_a_folder_that_cannot_be_written_is_refused_first(tmp_path, monkeypatch):
    command.check_folder(tmp_path / "new" / "folder")
    assert (tmp_path / "new" / "folder").is_dir()
    monkeypatch.setattr(command.os, "access", lambda path, mode: False)
    with pytest.raises(DeviceError, match="no permission to write"):
        command.check_folder(tmp_path)


def test_a_failed_check_is_exit_code_5_and_a_missed_speed_is_none(tmp_path, capsys):
    found = {"checks": {}, "failures": [], "rows": [], "single_layers": [], "tiles": [], "left_out": []}
    command.finish({"generators": {"fc6": found}}, [])
    assert "not measured" in capsys.readouterr().out
    wrong = {**found, "failures": ["deconv3 at batch 1: error 0.1", "another"]}
    with pytest.raises(NumericError, match=r"^checks: fc6, deconv3 at batch 1: error 0.1 \(and 1 more, above\)"):
        command.finish({"generators": {"fc6": wrong}}, [])
    assert NumericError.exit_code == 5


SANITIZER = """#!/bin/sh
case "$2" in
  memcheck) echo "========= ERROR SUMMARY: 0 errors";;
  racecheck) echo "========= a hazard"; echo "========= RACECHECK SUMMARY: 1 hazard displayed" >&2; exit 4;;
  initcheck) echo "========= Unable to find the injection library"; exit 255;;
  synccheck) sleep 60 & wait;;
esac
"""


@pytest.fixture
def stand_in(tmp_path):
    script = tmp_path / "compute-sanitizer"
    script.write_text(SANITIZER)
    script.chmod(0o755)
    return str(script)


def test_compute_sanitizers_findings_are_told_apart_from_tools_that_do_not_run(tmp_path, stand_in):
    refused = []
    found = {
        tool: sanitizer.findings(stand_in, tmp_path / "bundle", tool, refused.append, limit_s=1)
        for tool in (*sanitizer.TOOLS, "other")
    }
    assert found == {
        "memcheck": [],
        "racecheck": ["========= a hazard", "========= RACECHECK SUMMARY: 1 hazard displayed"],
        **dict.fromkeys(("initcheck", "synccheck", "other")),
    }
    assert refused == [
        "compute-sanitizer, initcheck: did not run (Unable to find the injection library)",
        "compute-sanitizer, synccheck: not done after 1 s",
        "compute-sanitizer, other: did not run (exit code 0)",
    ]


def test_a_process_of_its_own_that_breaks_or_hangs_is_told_of(tmp_path, monkeypatch):
    assert "bundle" in sanitizer.trial(tmp_path / "bundle", (1,))
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\nsleep 60 & wait\n")
    script.chmod(0o755)
    monkeypatch.setattr(sanitizer.sys, "executable", str(script))
    begun = time.monotonic()
    assert sanitizer.trial(tmp_path / "bundle", (1,), limit_s=1) == "calls that do not end, after 1 s"
    assert time.monotonic() - begun < 30  # nobody waits for what it started


def test_a_peer_that_fails_is_left_out_and_the_others_are_timed():
    class Still:
        def seconds(self, call, count):
            call()
            return 1e-3

        def synchronize(self):
            pass

    refused, calls = [], {"ours": 0, "cold": 0, "late": 0}

    def calling(name, last):
        def call():
            calls[name] += 1
            if calls[name] > last:
                raise MemoryError("gone")

        return call

    made = {name: calling(name, last) for name, last in (("ours", 1000), ("cold", 0), ("late", timing.WARM_UP + 3))}
    found = timing.median_seconds(Still(), made, 0.0, lambda name: timing.left_out(name, refused.append))
    assert found == {"ours": 1e-3} and refused == ["cold: MemoryError: gone", "late: MemoryError: gone"]
    with pytest.raises(MemoryError):
        timing.median_seconds(Still(), {"ours": calling("late", 0)}, 0.0)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", [80, 90])
def test_the_peer_of_cutlass_compiles(tmp_path, architecture):
    headers = os.environ.get("CUTLASS_PATH")
    if not headers or which("nvcc") is None:
        pytest.skip("no nvcc, or no CUTLASS (CUTLASS_PATH)")
    cutlass.check_headers(Path(headers), architecture)
    assert cutlass.compile_peer(Path(headers), architecture, tmp_path).is_file()


@pytest.mark.slow
@pytest.mark.parametrize("part", ["whole_run", "not whole_run"])
def test_it_runs_where_a_gpu_is_emulated(emulated, part):
    file = Path(__file__).with_name("gpu_on_an_emulated_gpu.py")
    options = ["-q", "-p", "no:cacheprovider", "--show-capture=no", "--durations=5", "-k", part]
    command_line = [sys.executable, "-m", "pytest", *options, str(file)]
    done = subprocess.run(command_line, capture_output=True, text=True, timeout=1200, env=emulated, cwd=ROOT)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    # None skipped, none expected to fail.
    assert re.search(r"^\d+ passed, \d+ deselected in ", done.stdout, re.MULTILINE), done.stdout
