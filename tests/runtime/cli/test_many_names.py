"""Hundreds of names through encode and decode, killed on the way: complete, in order, and equal to one run."""

import os
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deepsim.runtime.dataset import numbered
from deepsim.runtime.features import read_features
from deepsim.runtime.file_names import png_paths
from deepsim.runtime.images import find_images, read_image
from deepsim.runtime.partial import PartialFeatures
from tests.bundles import photographs

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = "import runtime; from deepsim.runtime.cli import main; main(prog_name='deepsim')"
NAMES = ("IMG_{}.png", "photo {}.PNG", "Größe, 写真 {}.png", "same.png")  # the last in every folder
COUNT = 300


def link_photographs(folder, count):
    """Make ``count`` names of 23 small photographs in nested folders."""
    originals = [folder.parent / f"original{index}" for index in range(23)]
    for path, photo in zip(originals, photographs(23), strict=True):
        Image.fromarray(photo[::7, ::7]).save(path, format="PNG")
    for index in range(count):
        path = folder / f"part {index // 100}" / f"{index // 4:03d}" / NAMES[index % 4].format(index)
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(originals[index * 7 % 23], path)
    return folder


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    return link_photographs(tmp_path_factory.mktemp("many") / "photos", COUNT)


@pytest.fixture(scope="module")
def features(bundle_of, many, tmp_path_factory):
    """Features of one uninterrupted run."""
    path = tmp_path_factory.mktemp("whole") / "f.npy"
    run("encode", bundle_of("tiny"), many, "-o", path)
    return path


@pytest.fixture
def fewer(bundle_of, many, tmp_path):
    """Features of a third of them, as images take longer."""
    run("encode", bundle_of("tiny"), many / "part 0", "-o", tmp_path / "f.npy")
    return tmp_path / "f.npy"


def start(command, *arguments):
    words = [sys.executable, "-c", PROGRAM, command, *map(str, arguments), "--backend", "cpu", "--max-batch", "4"]
    return subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def run(*words):
    process = start(*words)
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 0, said


def run_killed(progress, count, *words):
    """Run a command with --resume: killed at three places of ``count`` by its ``progress``, then to its end."""
    for mark in (count // 8, count // 3, count * 2 // 3):
        with start(*words, "--resume") as process:
            while progress() < mark and process.poll() is None:
                time.sleep(0.001)
            process.kill()
            said = process.communicate()[1]
        assert process.returncode == -signal.SIGKILL and mark <= progress() < count, said
    run(*words, "--resume")


@pytest.mark.parametrize("suffix", [".npy", ".h5"])
def test_encode_killed_three_times_gives_what_one_run_does(bundle_of, many, features, tmp_path, suffix):
    output = tmp_path / f"f{suffix}"
    lines = tmp_path / f".f{suffix}.partial/rows.jsonl"

    def progress():
        return lines.read_bytes().count(b"\n") if lines.exists() else 0

    run_killed(progress, COUNT, "encode", bundle_of("tiny"), many, "-o", output)
    found, wanted = read_features(output), read_features(features)
    np.testing.assert_array_equal(found.values, wanted.values)
    assert (found.names, found.index) == (wanted.names, wanted.index)
    assert not list(tmp_path.glob(".*"))
    if suffix == ".npy":
        for beside in ("", ".names.csv"):
            assert Path(f"{output}{beside}").read_bytes() == Path(f"{features}{beside}").read_bytes()


def test_rows_are_those_of_their_names(many, features, tiny):
    found = read_features(features)
    assert found.names == tuple(map(str, find_images([many]))) and len(set(found.names)) == COUNT
    content = {name: Path(name).stat().st_ino for name in found.names}
    of_content = {content[name]: tiny.encode(name)[0] for name in found.names[:100]}
    assert len(of_content) == len({row.tobytes() for row in of_content.values()}) == 23
    np.testing.assert_allclose(found.values, [of_content[content[name]] for name in found.names], rtol=1e-5, atol=1e-6)


def test_decode_killed_three_times_gives_what_one_run_does(bundle_of, fewer, tiny, tmp_path):
    folder, whole, found = tmp_path / "killed", tmp_path / "whole", read_features(fewer)
    count = len(found.values)
    run_killed(lambda: len(list(folder.glob("*.png"))), count, "decode", bundle_of("tiny"), fewer, "-o", folder)
    run("decode", bundle_of("tiny"), fewer, "-o", whole)
    named = png_paths(whole, found.names)
    assert set(whole.iterdir()) == set(named) and len(set(named)) == count == 100
    written = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert written == {path.name: path.read_bytes() for path in named}
    for row in range(0, count, 17):
        np.testing.assert_array_equal(read_image(named[row]), tiny.decode(found.values[row : row + 1])[0])


def bytes_for_names(output, paths):
    """Make features of these paths, computing nothing; return the bytes taken before they are written, and at most."""
    rows = np.zeros((20, 5), np.float32)
    tracemalloc.start()
    try:
        with PartialFeatures.open(output, (5,), {}, False, True) as partial:
            listed = list(numbered(paths))
            assert not any(partial.has(photograph) for photograph in listed)
            for begin in range(0, len(listed), len(rows)):
                partial.add(listed[begin : begin + len(rows)], rows)
            kept = tracemalloc.get_traced_memory()[0]
            assert partial.publish(listed) == len(paths)
            return np.array([kept, tracemalloc.get_traced_memory()[1]])
    finally:
        tracemalloc.stop()


def test_a_name_takes_little_memory(tmp_path):
    """Whatever the features are: some bytes more than the name, and some more while the names are written."""
    paths = [str(path) for path in find_images([link_photographs(tmp_path / "photos", 2200)])]
    bytes_for_names(tmp_path / "first.npy", paths[:20])  # what is imported and kept for all
    few, more = (bytes_for_names(tmp_path / "f.npy", paths[:count]) for count in (200, 2200))
    kept, most = (more - few) / 2000
    assert kept < 200 and most < 350, (kept, most)
