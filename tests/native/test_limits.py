"""Under limits on processes and on memory a command is done, or ends with exit code 4 and one line that says why."""

import os
import re
import resource
import subprocess
import sys
from pathlib import Path
from shutil import which

import numpy as np
import pytest
from PIL import Image

from tests.bundles import photographs, write_bundle

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = "import runtime; from deepsim.runtime.cli import main; main(prog_name='deepsim')"
COMMANDS = ("encode", "decode", "reconstruct", "doctor")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A folder with a bundle, two photographs and features of them."""
    folder = tmp_path_factory.mktemp("inputs")
    write_bundle(folder)
    (folder / "photos").mkdir()
    for index, photo in enumerate(photographs(2)):
        Image.fromarray(photo).save(folder / "photos" / f"{index}.png")
    np.save(folder / "features.npy", np.ones((2, 20), np.float32))
    return folder


@pytest.fixture(scope="module")
def few_threads(tmp_path_factory):
    """The library to preload, so that threads beyond FEW_THREADS are refused."""
    compiler = which("cc") or which("gcc") or which("clang")
    if compiler is None:
        pytest.skip("no C compiler here")
    built = tmp_path_factory.mktemp("preload") / "few_threads.so"
    source = ROOT / "tests/native/few_threads.c"
    subprocess.run([compiler, "-shared", "-fPIC", source, "-o", built, "-ldl", "-lpthread"], check=True)
    return built


def run(command, inputs, memory=None, **environment):
    """Run a command under limits; return its exit code and what it wrote to stderr but what it made of which bundle."""
    bundle, output = inputs / "tiny.deepsim", ["--overwrite", "-o"]
    arguments = {
        "encode": [bundle, inputs / "photos", *output, inputs / "encoded.npy"],
        "decode": [bundle, inputs / "features.npy", *output, inputs / "decoded"],
        "reconstruct": [bundle, inputs / "photos", *output, inputs / "reconstructed"],
        "doctor": [],
    }[command]

    def limit():
        if memory is not None:
            resource.setrlimit(resource.RLIMIT_AS, (memory, memory))

    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, command, *arguments],
        **{"cwd": ROOT, "env": {**os.environ, **environment}, "preexec_fn": limit, "capture_output": True},
        **{"text": True, "timeout": 60},
    )
    usual = re.compile(rf"^({re.escape(str(inputs))}/.*|Next: .*)?$")
    return done.returncode, [line for line in done.stderr.splitlines() if not usual.match(line)]


@pytest.mark.parametrize("command", COMMANDS)
def test_without_more_threads_commands_use_fewer_or_say_so(inputs, few_threads, command):
    cpus = len(os.sched_getaffinity(0))
    for threads in (0, 1, 3):
        code, lines = run(command, inputs, LD_PRELOAD=str(few_threads), FEW_THREADS=str(threads))
        assert code == 0, lines
        notes = [line for line in lines if line.startswith(f"threads: {threads + 1} of {cpus} can run (")]
        alone = [line for line in lines if line.startswith("threads: none more can run (")]
        assert len(notes) <= 1 and len(alone) <= 1 and len(notes + alone) == len(lines), lines
        assert notes or cpus <= threads + 1 or command == "doctor", lines
        assert alone or threads > 1 or command in ("decode", "doctor"), lines  # which do not read ahead


def test_a_number_of_threads_that_was_asked_for_is_had_or_refused(inputs, few_threads):
    environment = {"LD_PRELOAD": str(few_threads), "DEEPSIM_NUM_THREADS": "3"}
    code, lines = run("encode", inputs, FEW_THREADS="1", **environment)
    assert code == 4 and len(lines) == 1, lines
    assert lines[0].startswith("Error: threads: 2 of 3 can run (Resource temporarily unavailable), expected as many")
    assert run("encode", inputs, FEW_THREADS="4", **environment) == (0, [])  # two more read ahead


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.slow
def test_without_more_memory_commands_end_with_one_line(inputs, command):
    found = {}
    for mebibytes in (*range(100, 200, 11), 260, 1000):
        code, lines = run(command, inputs, memory=mebibytes << 20, DEEPSIM_NUM_THREADS="2")
        errors = [line for line in lines if line.startswith("Error: ")]
        notes = [line for line in lines if line.startswith("threads: ")]  # their stacks need memory too
        assert (code, len(errors)) in ((0, 0), (4, 1)), (mebibytes, lines)
        assert len(errors + notes) == len(lines) and len(notes) <= 2, (mebibytes, lines)
        found[mebibytes] = code
    assert found[100] == 4 and found[1000] == 0, found
