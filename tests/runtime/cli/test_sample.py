"""Samples of a prior: images, codes and a sheet, the same whatever was interrupted."""

import numpy as np
import pytest

from deepsim.runtime.cli.bulk import Pictures
from deepsim.runtime.errors import DeviceError
from deepsim.runtime.features import read_features
from deepsim.runtime.images import read_image
from deepsim.runtime.inverter import Inverter
from deepsim.runtime.prior import draw_codes
from tests.bundles import write_kind

SHAPE = (4, 8, 8)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    pytest.importorskip("onnx")
    return write_kind(tmp_path_factory.mktemp("bundles"), "none", prior="standard normal")


@pytest.fixture(scope="module")
def inverter(bundle):
    with Inverter(bundle, "cpu") as opened:
        yield opened


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_images_codes_and_a_sheet(deepsim, bundle, inverter, tmp_path):
    said = deepsim("sample", bundle, "-o", tmp_path, "--count", 11, "--seed", 5, "--grid", "--max-batch", 4).stderr
    codes = draw_codes(SHAPE, range(11), seed=5)
    wanted = inverter.decode(codes)
    for number, image in enumerate(wanted):
        np.testing.assert_array_equal(read_image(tmp_path / f"sample-{number:06d}.png"), image)
    found = read_features(tmp_path / "codes.npy")
    np.testing.assert_array_equal(found.values, codes)
    assert found.names == tuple(f"sample-{number:06d}" for number in range(11))
    sheet = read_image(tmp_path / "grid.png")
    assert sheet.shape == (2 * 64, 8 * 64, 3) and not sheet[64:, 3 * 64 :].any()
    np.testing.assert_array_equal(sheet[:64, 64:128], wanted[1])
    np.testing.assert_array_equal(sheet[64:, 128:192], wanted[10])
    assert "11 images" in said and f"Next: deepsim interpolate {bundle} {tmp_path}/codes.npy@0" in said
    assert len(list(tmp_path.iterdir())) == 11 + 3


def test_more_samples_begin_with_the_same(deepsim, bundle, tmp_path):
    deepsim("sample", bundle, "-o", tmp_path / "a", "--count", 2, "--temperature", 0.5)
    deepsim("sample", bundle, "-o", tmp_path / "b", "--count", 5, "--temperature", 0.5, "--max-batch", 3)
    for number in (0, 1):
        first, second = (read_image(tmp_path / folder / f"sample-{number:06d}.png") for folder in "ab")
        np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(np.load(tmp_path / "b/codes.npy"), draw_codes(SHAPE, range(5), 0, 0.5))


def test_a_run_that_stopped_goes_on(deepsim, bundle, tmp_path, monkeypatch):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    deepsim("sample", bundle, "-o", whole, "--count", 9, "--grid")
    save = Pictures.save

    def full(self, number, pixels):
        if number == 5:
            raise DeviceError("no space left")
        save(self, number, pixels)

    command = ("sample", bundle, "-o", broken, "--count", 9, "--grid", "--max-batch", 2)
    with monkeypatch.context() as patch:
        patch.setattr(Pictures, "save", full)
        assert "no space left" in deepsim(*command, code=4).stderr
    assert "--resume to go on" in deepsim(*command, code=2).stderr
    kept = (broken / "sample-000003.png").stat().st_mtime_ns
    assert "of them before" in deepsim(*command, "--resume").stderr
    assert contents(broken) == contents(whole) and (broken / "sample-000003.png").stat().st_mtime_ns == kept
    assert "9 images, 9 of them before" in deepsim(*command, "--resume").stderr
    more = deepsim("sample", bundle, "-o", broken, "--count", 10, "--resume").stderr
    assert "10 images, 9 of them before" in more and len(np.load(broken / "codes.npy")) == 10
    deepsim(*command, "--resume")  # of fewer again: what is there stays
    assert len(np.load(broken / "codes.npy")) == 10


@pytest.mark.parametrize(
    ("name", "change"),
    [("codes.npy", ()), ("grid.png", ("--grid",)), ("sample-000001.png", ())],
)
def test_what_was_made_otherwise_is_kept(deepsim, bundle, tmp_path, name, change):
    (tmp_path / name).write_bytes(b"mine")
    if name == "codes.npy":
        np.save(tmp_path / name, np.ones((2, *SHAPE), np.float32))
    mine = (tmp_path / name).read_bytes()
    for option in ((), ("--resume",)):
        said = deepsim("sample", bundle, "-o", tmp_path, "--count", 2, *change, *option, code=2).stderr
        assert name in said and "exists already" in said
        assert (tmp_path / name).read_bytes() == mine
    deepsim("sample", bundle, "-o", tmp_path, "--count", 2, *change, "--overwrite")
    assert (tmp_path / name).read_bytes() != mine


def test_other_draws_are_not_gone_on_with(deepsim, bundle, tmp_path):
    deepsim("sample", bundle, "-o", tmp_path, "--count", 2, "--seed", 1)
    before = contents(tmp_path)
    for change in (("--seed", 2), ("--seed", 1, "--temperature", 2)):
        said = deepsim("sample", bundle, "-o", tmp_path, "--count", 2, *change, "--resume", code=2).stderr
        assert "codes.npy: exists already, drawn by something else" in said
    assert contents(tmp_path) == before


def test_a_bundle_without_a_prior_is_one_line(deepsim, tmp_path):
    plain = write_kind(tmp_path, "none")
    said = deepsim("sample", plain, "-o", tmp_path / "out", code=2).stderr.splitlines()[-1]
    assert f"{plain}: no prior, so nothing says how codes of conv1 are distributed; expected the bundle of a" in said
    assert not (tmp_path / "out").exists()
    alone = write_kind(tmp_path, "table-alone")
    assert "no prior" in deepsim("sample", alone, "-o", tmp_path / "out", code=2).stderr


def test_info_says_that_codes_can_be_drawn(deepsim, bundle, tmp_path):
    assert "prior        standard normal: codes can be drawn (deepsim sample)" in deepsim("info", bundle).stdout
    assert "prior " not in deepsim("info", write_kind(tmp_path, "none")).stdout


def test_samples_are_decoded_again_and_interpolated(deepsim, bundle, inverter, tmp_path):
    deepsim("sample", bundle, "-o", tmp_path / "s", "--count", 4)
    codes = tmp_path / "s/codes.npy"
    deepsim("decode", bundle, codes, "-o", tmp_path / "again")
    assert contents(tmp_path / "again").keys() == {f"sample-{number:06d}.png" for number in range(4)}
    deepsim("interpolate", bundle, f"{codes}@0", f"{codes}@3", "-o", tmp_path / "strip.png", "--steps", 3)
    first, *_, last = draw_codes(SHAPE, range(4))
    wanted = inverter.interpolate(first, last, steps=3)
    np.testing.assert_array_equal(read_image(tmp_path / "strip.png"), np.concatenate(list(wanted), axis=1))


@pytest.mark.parametrize(
    ("end", "code", "words"),
    [
        ("codes.npy@9", 3, "codes.npy: 3 rows, expected one of 0 to 2"),
        ("codes.npy", 2, "codes.npy: 3 rows, expected the number of one, such as "),
        ("codes.npy@x", 2, "codes.npy@x: row 'x', expected a whole number"),
        ("none.npy@0", 3, "none.npy: no such file"),
    ],
)
def test_a_row_that_is_not_there(deepsim, bundle, tmp_path, monkeypatch, end, code, words):
    monkeypatch.chdir(tmp_path)
    np.save("codes.npy", np.zeros((3, *SHAPE), np.float32))
    assert words in deepsim("interpolate", bundle, "codes.npy@0", end, "-o", "s.png", code=code).stderr
