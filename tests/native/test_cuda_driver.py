"""Our declarations of NVIDIA's driver API, against its own header: the library is built without it."""

import subprocess
from pathlib import Path
from shutil import which

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEADER = "runtime/native/src/cuda/driver.h"
CHECK = "tests/native/cuda/driver_declarations.cpp"

pytestmark = pytest.mark.skipif(which("nvcc") is None, reason="no nvcc here, whose toolkit has cuda.h")


def compiles(folder, header):
    """Compile the check beside a header of this text; return whether it does, and what was said."""
    for path, text in ((HEADER, header), (CHECK, (ROOT / CHECK).read_text())):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    command = ["nvcc", "-std=c++17", "-c", "-o", folder / "unused.o", folder / CHECK]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode == 0, done.stdout + done.stderr


def test_they_are_those_of_cuda_h(tmp_path):
    assert compiles(tmp_path, (ROOT / HEADER).read_text()) == (True, "")


@pytest.mark.parametrize(
    ("ours", "other"),
    [
        ("(Stream*, unsigned)", "(Stream, unsigned)"),
        ("(Address*, std::size_t)", "(Address*, unsigned)"),
        ("(Stream, Event, unsigned)", "(Stream, Event)"),
        ("(std::size_t*, std::size_t*)", "(std::size_t*, int*)"),
        ("kSharedOptin = 97", "kSharedOptin = 96"),
        ("int memory_type = 2", "long memory_type = 2"),
        ("RowEnd from, to;", "RowEnd to, from;"),
        ("block_x = 1, block_y = 1", "block_y = 1, block_x = 1"),
        ("pinned_free, cuMemFreeHost", "pinned_free, cuMemAlloc_v2"),
    ],
)
def test_one_that_differs_is_noticed(tmp_path, ours, other):
    header = (ROOT / HEADER).read_text()
    assert ours in header
    compiled, said = compiles(tmp_path, header.replace(ours, other, 1))
    assert not compiled and "static assertion failed" in said
