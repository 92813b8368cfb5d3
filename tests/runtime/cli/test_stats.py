"""Statistics of features over photographs: figures, files of others' tools, and bundles that hold them."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io

from deepsim.runtime.bundle import Bundle
from deepsim.runtime.features.statistics import Gathering, read_statistics
from deepsim.runtime.features.units import read_bounds
from deepsim.runtime.images import save_png
from deepsim.runtime.inverter import Inverter
from tests.bundles import photographs, write_kind

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def many(tmp_path):
    for number, photo in enumerate(photographs(7)):
        save_png(photo, tmp_path / "many" / f"p{number}.png")
    return tmp_path / "many"


@pytest.mark.parametrize("name", ["tiny", "tiny-rgb"])
def test_the_files_hold_what_numpy_computes(deepsim, bundle_of, inverter_of, many, tmp_path, name):
    out = tmp_path / "out"
    said = deepsim("stats", bundle_of(name), many, "-o", out, "--max-batch", 3, "--k", "1,2.5")
    assert "statistics of 7 photographs" in said.stderr and said.stdout == ""
    inverter = inverter_of(name, "cpu")
    f, layer = inverter.encode(photographs(7)).astype(np.float64), inverter.layer
    mean, sd = f.mean(axis=0), f.std(axis=0, ddof=1)
    known = read_statistics([out / "statistics.npz"], inverter.feature_shape, layer)
    assert known.count == 7
    for found, wanted in ((known.mean, mean), (known.sd, sd), (known.minimum, f.min(0)), (known.maximum, f.max(0))):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-4)
    within = (f if f.ndim > 2 else f[:, None]).reshape(7, f.shape[1] if f.ndim > 2 else 1, -1).std(axis=2, ddof=1)
    encoder = inverter.bundle.manifest.encoder_name
    spread = scipy.io.loadmat(out / f"estimated_cnn_feat_std_{encoder}_ImgSize_227x227_chwise_dof1.mat")[layer]
    np.testing.assert_allclose(spread, within.mean(axis=0)[None], rtol=1e-4)
    scalar = scipy.io.loadmat(out / f"estimated_{encoder}_cnn_feat_std.mat")[layer]
    np.testing.assert_allclose(scalar, [[within.mean()]], rtol=1e-4)
    for variable, wanted in (("y_mean", mean), ("y_norm", sd)):
        with h5py.File(out / f"{variable}.mat") as file:
            np.testing.assert_allclose(np.asarray(file[variable]).T, wanted[None], rtol=1e-4, atol=1e-4)
            assert file.userblock_size == 512 and (out / f"{variable}.mat").read_bytes()[124:128] == b"\0\x02IM"
    for k in ("1", "2.5"):
        text = (out / f"act_range/{k}x/{layer}.txt").read_text()
        assert text.endswith(" ") and "\n" not in text
        bounds = np.loadtxt(out / f"act_range/{k}x/{layer}.txt", delimiter=" ", usecols=np.arange(mean.size))  # as icnn
        assert (bounds == np.round(bounds)).all()
        np.testing.assert_allclose(bounds, np.maximum((mean + float(k) * sd).ravel(), 0), rtol=0, atol=1.001)
        assert (bounds >= (mean + float(k) * sd).ravel() - 1e-3).all()
        read_bounds(out / f"act_range/{k}x/{layer}.txt", inverter.feature_shape)
    np.testing.assert_allclose(read_bounds(out / "statistics.npz", mean.shape).upper, mean + 2.5 * sd, rtol=1e-4)


def test_bounds_per_channel(deepsim, bundle_of, inverter_of, many, tmp_path):
    deepsim("stats", bundle_of("tiny-rgb"), many, "-o", tmp_path / "out", "--k", "3", "--per-channel")
    f = inverter_of("tiny-rgb", "cpu").encode(photographs(7)).astype(np.float64).transpose(1, 0, 2, 3).reshape(4, -1)
    bounds = np.array((tmp_path / "out/act_range/3x/conv1.txt").read_text().split(), float)
    np.testing.assert_allclose(bounds, f.mean(axis=1) + 3 * f.std(axis=1), atol=1.5)  # ddof matters less than rounding


def test_a_bundle_that_holds_its_statistics(deepsim, bundle_of, many, tmp_path):
    bundle = shutil.copytree(bundle_of("tiny"), tmp_path / "b.deepsim")
    (bundle / "notes.txt").write_text("mine")
    before = {path.name: path.read_bytes() for path in bundle.iterdir()}
    codes = tmp_path / "f.npy"
    np.save(codes, np.full((9, 20), 1000, np.float32))
    decode = ("decode", bundle, codes, "-o", tmp_path / "images", "--overwrite", "--axes", "NC")
    assert "warning" not in deepsim(*decode).stderr
    for _ in range(2):  # again: replaced
        deepsim("stats", bundle, many, "--into-bundle")
    after = {path.name: path.read_bytes() for path in bundle.iterdir()}
    assert set(after) == {*before, "statistics.npz"}
    assert all(after[name] == before[name] for name in before if name != "manifest.json")
    opened = Bundle.open(bundle)
    assert opened.read("statistics.npz") == after["statistics.npz"]
    assert json.loads(after["manifest.json"])["schema"] == json.loads(before["manifest.json"])["schema"]
    with Inverter(bundle, "cpu") as native:  # the C++ reader
        np.testing.assert_array_equal(
            native.decode(np.ones((1, 20))), Inverter(bundle_of("tiny")).decode(np.ones((1, 20)))
        )
    assert "files_checked" in deepsim("info", bundle, "--check", "--json").stdout
    said = deepsim(*decode).stderr
    assert "warning: " in said and "values up to 1e+03, recorded were up to" in said
    (bundle / "statistics.npz").write_bytes(b"changed")
    assert "statistics.npz" in deepsim(*decode, code=3).stderr


def test_a_killed_run_leaves_what_was_there(deepsim, bundle_of, many, tmp_path, monkeypatch):
    bundle, out = shutil.copytree(bundle_of("tiny"), tmp_path / "b.deepsim"), tmp_path / "out"
    command = ("stats", bundle, many, "-o", out, "--into-bundle", "--max-batch", 1, "--overwrite")
    deepsim(*command)

    def content():
        return {path: path.read_bytes() for folder in (bundle, out) for path in folder.rglob("*") if path.is_file()}

    before, add = content(), Gathering.add

    def killed(self, features):
        if self.count == 5:
            raise KeyboardInterrupt
        add(self, features)

    with monkeypatch.context() as patch:
        patch.setattr(Gathering, "add", killed)
        deepsim(*command, code=130)
    assert content() == before and sorted(path.name for path in tmp_path.glob(".*")) == []
    program = "import runtime; from deepsim.runtime.cli import main; main()"
    words = [sys.executable, "-c", program, *map(str, command)]
    with subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, env=os.environ) as process:
        process.stderr.readline()
        process.kill()
    assert content() == before


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ((), 2, "neither --output nor --into-bundle"),
        (("-o", "out", "--k", "1,x"), 2, "--k 1,x"),
        (("-o", "out", "--k", "-1"), 2, "from 0 to 1000"),
        (("-o", "many"), 2, "exists"),
        (("-o", "many", "--overwrite"), 2, "no folder of statistics"),
    ],
)
def test_what_is_refused(deepsim, bundle_of, many, tmp_path, monkeypatch, arguments, code, words):
    monkeypatch.chdir(tmp_path)
    assert words in deepsim("stats", bundle_of("tiny"), "many", *arguments, code=code).stderr
    assert len(list(many.iterdir())) == 7 and sorted(path.name for path in tmp_path.iterdir()) == ["many"]


def test_unusable_photographs(deepsim, bundle_of, many, tmp_path):
    (many / "p3.png").write_bytes(b"damaged")
    command = ("stats", bundle_of("tiny"), many, "-o", tmp_path / "out")
    said = deepsim(*command, code=3).stderr
    assert "p3.png: not an image" in said and "leave it out with --on-error skip" in said and "--resume" not in said
    assert not (tmp_path / "out").exists()
    assert "6 photographs, 1 left out" in deepsim(*command, "--on-error", "skip").stderr
    for path in list(many.iterdir())[1:]:
        path.unlink()
    assert "expected 2 or more" in deepsim(*command, "--overwrite", "--on-error", "skip", code=3).stderr


def test_bundles_with_one_network_only(deepsim, many, tmp_path):
    encodes, decodes = (write_kind(tmp_path, kind) for kind in ("table-alone", "none"))
    assert "Next: deepsim encode" in deepsim("stats", encodes, many, "-o", tmp_path / "out", "--into-bundle").stderr
    assert deepsim("stats", decodes, many, "-o", tmp_path / "no", code=2).stderr.splitlines()[-1].startswith("Error: ")
    np.save(tmp_path / "f.npy", np.ones((2, 4, 8, 8), np.float32))
    for options in ((), ("--raw",)):
        command = ("decode", encodes, tmp_path / "f.npy", *options, "-o", tmp_path / ("r.npy" if options else "images"))
        assert deepsim(*command, code=2).stderr.splitlines()[-1].startswith("Error: ")
    assert not (tmp_path / "images").exists() and not (tmp_path / "r.npy").exists() and not list(tmp_path.glob(".*"))
