"""A build of the native library that cannot succeed ends with one line that names the cause."""

import os
import subprocess
import sys
from pathlib import Path
from shutil import which

import pytest

from tests.native.test_native import ROOT, cmake

OLD_CMAKE = "echo cmake version 3.18.4"
NO_CXX_17 = 'for a; do case $a in -std=*17) echo "unknown option $a" >&2; exit 1;; esac; done; exec c++ "$@"'
FAILS = 'case "$*" in *.cpp.o*) echo "{}" >&2; exit 1;; esac; exec c++ "$@"'
NO_ROOM = FAILS.format("fatal error: error writing to x.s: No space left on device")
NO_MEMORY = FAILS.format("c++: fatal error: Killed signal terminated program cc1plus")


def program(path, script):
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def only(folder, *programs):
    """Return a PATH that has only these programs."""
    folder.mkdir()
    for name in programs:
        (folder / name).symlink_to(cmake() if name == "cmake" else which(name))
    return str(folder)


def build(tmp_path, **variables):
    """Build the library with these variables of the environment; return the exit code and the last line."""
    folders = ["--build-temp", tmp_path / "temporary", "--build-lib", tmp_path / "made"]
    done = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", *folders],
        cwd=ROOT,
        env={**os.environ, "CMAKE_ARGS": "-DDEEPSIM_CUDA=OFF", "CMAKE_BUILD_PARALLEL_LEVEL": "1", **variables},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr.splitlines()[-1]


CASES = {
    "no cmake": (
        lambda here: {"PATH": only(here / "bin")},
        "cmake: not found, expected CMake 3.21 or newer. Run: pip install cmake",
    ),
    "old cmake": (
        lambda here: {"PATH": str(Path(program(here / "bin/cmake", OLD_CMAKE)).parent)},
        "bin/cmake, expected CMake 3.21 or newer. Run: pip install cmake",
    ),
    "no compiler": (lambda here: {"PATH": only(here / "bin", "cmake", "make", "uname")}, "no C++ compiler found."),
    "no such compiler": (lambda here: {"CXX": str(here / "none")}, "none, which the variable CXX names."),
    "broken compiler": (lambda here: {"CXX": program(here / "c++", "exit 1")}, "c++ compiles no empty program."),
    "old compiler": (
        lambda here: {"CXX": program(here / "c++", NO_CXX_17)},
        "does not compile C++17, expected one that",
    ),
    "no make": (
        lambda here: {"PATH": only(here / "bin", "cmake", "c++", "uname")},
        "neither make nor ninja found. Install one.",
    ),
    "no room": (lambda here: {"CXX": program(here / "c++", NO_ROOM)}, "no room left on the disk of"),
    "no memory": (
        lambda here: {"CXX": program(here / "c++", NO_MEMORY)},
        "the compiler ran out of memory. Set CMAKE_BUILD_PARALLEL_LEVEL=1",
    ),
    "no words": (lambda here: {"CMAKE_ARGS": "'-D"}, "CMAKE_ARGS: '-D: No closing quotation"),
    "no such setting": (lambda here: {"CMAKE_ARGS": "-DDEEPSIM_CUDA=no"}, "DEEPSIM_CUDA: no, expected AUTO"),
}


@pytest.mark.parametrize("name", CASES)
def test_the_cause_is_the_last_line(tmp_path, name):
    variables, told = CASES[name]
    code, line = build(tmp_path, **variables(tmp_path))
    assert code == 1
    assert told in line


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "temporary").write_text("a file")
    code, line = build(tmp_path)
    assert code == 1 and str(tmp_path / "temporary") in line


def test_setuptools_that_cannot_read_the_project_are_refused(tmp_path):
    (tmp_path / "setuptools.py").write_text('__version__ = "65.5.0"\n')
    done = subprocess.run(
        [sys.executable, ROOT / "setup.py"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr == "setuptools: 65.5.0 found, expected 77 or newer. Run: pip install --upgrade setuptools\n"


def test_pip_shows_the_line_and_exits_with_one(tmp_path, source):
    cmake_folder = Path(program(tmp_path / "bin/cmake", OLD_CMAKE)).parent
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "--no-index", source],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{cmake_folder}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert f"cmake: 3.18.4 at {cmake_folder}/cmake, expected CMake 3.21 or newer." in done.stdout + done.stderr
