"""What an engineer does: install the library into a prefix, build the examples from there, run them."""

import subprocess

import numpy as np
import pytest

from deepsim.runtime.images import read_image, save_png
from deepsim.runtime.inverter import Inverter
from tests.bundles import photographs, write_bundle
from tests.native.test_installation import BUILD, install
from tests.native.test_native import ROOT, cmake


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    """The folder of the built examples; the library is only in its prefix."""
    folder = tmp_path_factory.mktemp("installed")
    prefix, programs = folder / "prefix", folder / "examples"
    install(prefix=prefix)
    for command in (
        [cmake(), "-S", ROOT / "examples/cpp", "-B", programs, f"-DCMAKE_PREFIX_PATH={prefix}"],
        [cmake(), "--build", programs],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return programs


def run(program, *arguments):
    return subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_cpp_pixels_equal_pythons(examples, tmp_path):
    bundle = write_bundle(tmp_path, "norm2")
    photo = photographs(1, seed=12)
    save_png(photo[0], tmp_path / "photo.png")
    wanted = Inverter(bundle, "cpu").reconstruct(photo)[0]
    assert wanted.std() > 10
    for name in ("result.png", "result.ppm"):
        done = run(examples / "reconstruct", bundle, tmp_path / "photo.png", tmp_path / name)
        assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(read_image(tmp_path / "result.png"), wanted)
    header, _, pixels = (tmp_path / "result.ppm").read_bytes().partition(b"255\n")
    assert header == b"P6\n227 227\n" and pixels == wanted.tobytes()


@pytest.mark.slow
def test_errors_are_one_line_with_their_code(examples, tmp_path):
    bundle = write_bundle(tmp_path, "tiny")
    save_png(photographs(1)[0][:100], tmp_path / "small.png")
    for arguments, code, hint in (
        ((tmp_path / "none.deepsim", tmp_path / "small.png", tmp_path / "r.png"), 3, "not found, expected a bundle"),
        ((bundle, tmp_path / "small.png", tmp_path / "r.png"), 3, "227x100 pixels, expected at least 227x227"),
        ((bundle, bundle / "README.md", tmp_path / "r.png"), 3, "not a readable PNG"),
        ((bundle,), 2, "Usage:"),
    ):
        done = run(examples / "reconstruct", *arguments)
        assert done.returncode == code and hint in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_threads_share_an_inverter(examples, tmp_path):
    done = run(examples / "shared", write_bundle(tmp_path, "tiny"), 16, 1000)
    assert (done.returncode, done.stdout) == (0, "16 threads x 1000 calls: 0 results differ\n"), done.stderr


@pytest.mark.slow
def test_only_the_c_abi_is_visible(examples):
    library = BUILD / "libdeepsim.so"
    listed = subprocess.run(["nm", "-D", "--defined-only", library], capture_output=True, text=True, check=True).stdout
    names = [line.split()[-1] for line in listed.splitlines()]
    assert "deepsim_open" in names and all(name.startswith("deepsim_") for name in names)
