"""Bad photographs, killed runs, what exists already, and outputs that are inputs."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deepsim.runtime.features import read_features
from deepsim.runtime.images import read_image, save_png
from deepsim.runtime.inverter import Inverter
from tests.bundles import photographs


@pytest.fixture
def many(photos):
    """Five photographs, of which the fourth is cut off."""
    for index, photo in enumerate(photographs(5, seed=1)):
        save_png(photo, photos / f"p{index}.png")
    whole = (photos / "p3.png").read_bytes()
    (photos / "p3.png").write_bytes(whole[:100])
    return photos, whole


COMMANDS = [
    ("encode", "f.npz", ()),
    ("encode", "f.npy", ()),
    ("reconstruct", "out", ("--side-by-side",)),
    ("reencode", "out", ("--iterations", 2, "--keep", "1,2")),
]


@pytest.mark.parametrize(("command", "output", "options"), COMMANDS)
def test_what_was_done_before_a_bad_photograph_stays(deepsim, bundle_of, many, tmp_path, command, output, options):
    photos, whole = many
    start = (command, bundle_of("tiny"), photos, "-o", tmp_path / output, *options, "--max-batch", 2)
    stopped = deepsim(*start, code=3).stderr
    assert "p3.png: unreadable" in stopped and "3 of 5 are done" in stopped and "--resume" in stopped
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*")}
    assert sorted(path.name for path in kept) == (["p0.png", "p1.png", "p2.png"] if output == "out" else [])
    assert "--resume" in deepsim(*start, code=2).stderr  # neither replaced nor gone on with unless told
    (photos / "p3.png").write_bytes(whole)
    went_on = deepsim(*start, "--resume").stderr
    assert "5 photographs" in went_on or ("5 " in went_on and "3 of them before" in went_on)
    assert all(path.stat().st_mtime_ns == before for path, before in kept.items())
    again = (command, bundle_of("tiny"), photos, "-o", tmp_path / "again" / output, *options, "--max-batch", 2)
    deepsim(*again)
    if output == "out":
        for path in (tmp_path / "out").iterdir():
            assert path.read_bytes() == (tmp_path / "again/out" / path.name).read_bytes()
        assert len(list((tmp_path / "out").iterdir())) == 5
    else:
        found, wanted = read_features(tmp_path / output), read_features(tmp_path / "again" / output)
        np.testing.assert_array_equal(found.values, wanted.values)
        assert found.names == wanted.names and found.index == (0, 1, 2, 3, 4)
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(("command", "output", "options"), COMMANDS)
def test_bad_photographs_are_left_out(deepsim, bundle_of, many, tmp_path, caplog, command, output, options):
    photos, _ = many
    start = (command, bundle_of("tiny"), photos, "-o", tmp_path / output, *options)
    assert "4 " in (said := deepsim(*start, "--on-error", "skip").stderr) and "1 left out" in said
    assert any("p3.png: unreadable" in message for message in caplog.messages)
    if output == "out":
        assert sorted(path.stem for path in (tmp_path / "out").iterdir()) == ["p0", "p1", "p2", "p4"]
    else:
        found = read_features(tmp_path / output)
        assert found.index == (0, 1, 2, 4) and found.names[3].endswith("p4.png") and len(found.values) == 4
    for path in photos.iterdir():
        path.write_bytes(b"no image")
    command = (command, bundle_of("tiny"), photos, "-o", tmp_path / "none" / output, *options, "--on-error", "skip")
    assert "all 5 left out" in deepsim(*command, code=3).stderr


def test_rows_that_are_not_finite(deepsim, tiny, bundle_of, tmp_path):
    values = np.random.default_rng(0).standard_normal((5, 20)).astype(np.float32)
    values[3, 7] = np.nan
    np.save(tmp_path / "f.npy", values)
    command = ("decode", bundle_of("tiny"), tmp_path / "f.npy", "-o", tmp_path / "images", "--max-batch", 2)
    stopped = deepsim(*command, code=3).stderr
    assert "f.npy, row 3: NaN" in stopped and "3 of 5 are done" in stopped
    assert sorted(path.stem for path in (tmp_path / "images").iterdir()) == ["000000", "000001", "000002"]
    skipped = deepsim(*command, "--on-error", "skip", "--resume").stderr
    assert "4 images, 3 of them before, 1 left out" in skipped
    np.testing.assert_array_equal(read_image(tmp_path / "images/000004.png"), tiny.decode(values[4:])[0])


def test_going_on_with_something_else_is_refused(deepsim, bundle_of, photos, tmp_path):
    command = ("reconstruct", bundle_of("tiny"), photos, "-o", tmp_path / "out", "--resume")
    deepsim(*command)
    assert "3 images, 3 of them before" in deepsim(*command).stderr
    assert "made from something else" in deepsim(*command, "--side-by-side", code=2).stderr
    other = ("reconstruct", bundle_of("tiny-rgb"), photos, "-o", tmp_path / "out", "--resume")
    assert "(and 2 more): exists already, made from something else" in deepsim(*other, code=2).stderr
    save_png(photographs(1, seed=9)[0], photos / "p1.png")
    assert "p1.png: exists already, made from" in deepsim(*command, code=2).stderr
    assert "3 images, 2 of them before" in deepsim(*command, "--overwrite").stderr

    (photos / "p2.png").write_bytes(b"")
    encode = ("encode", bundle_of("tiny"), photos, "-o", tmp_path / "f.npy")
    deepsim(*encode, code=3)
    other = ("encode", bundle_of("tiny-rgb"), photos, "-o", tmp_path / "f.npy", "--resume", "--on-error", "skip")
    assert "rows of bundle" in deepsim(*other, code=2).stderr
    deepsim(*other, "--overwrite", code=2)  # asks for both: goes on with another bundle's rows
    deepsim(*encode, "--overwrite", "--on-error", "skip")
    assert read_features(tmp_path / "f.npy").index == (0, 1)


def test_features_of_a_killed_run_are_not_computed_again(deepsim, bundle_of, photos, tmp_path, monkeypatch):
    seen = []

    def killed(self, pixels):
        seen.append(len(pixels))
        if len(seen) == 2:
            raise KeyboardInterrupt
        return encode(self, pixels)

    encode = Inverter.encode
    monkeypatch.setattr(Inverter, "encode", killed)
    command = ("encode", bundle_of("tiny"), photos, "-o", tmp_path / "f.npy", "--max-batch", 1, "--resume")
    deepsim(*command, code=130)
    folder = tmp_path / ".f.npy.partial"
    with (folder / "rows.f32").open("ab") as rows, (folder / "rows.jsonl").open("ab") as lines:
        rows.write(b"half a row")
        lines.write(b'["half a li')
    deepsim(*command)
    assert seen == [1, 1, 1, 1]
    monkeypatch.undo()
    deepsim("encode", bundle_of("tiny"), photos, "-o", tmp_path / "whole.npy", "--max-batch", 1)
    assert (tmp_path / "f.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()


@pytest.mark.parametrize("command", ["reconstruct", "reencode"])
def test_photographs_are_never_replaced_by_their_images(deepsim, bundle_of, photos, tmp_path, command):
    before = {path.name: path.read_bytes() for path in photos.iterdir()}
    (tmp_path / "link").symlink_to(photos)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/p1.png").symlink_to(photos / "p1.png")
    (tmp_path / "hard").mkdir()
    (tmp_path / "hard/p1.png").hardlink_to(photos / "p1.png")
    for output in (photos, tmp_path / "link", photos / ".." / "photos", tmp_path / "out", tmp_path / "hard"):
        for options in ((), ("--overwrite",), ("--resume",), ("--overwrite", "--resume")):
            said = deepsim(command, bundle_of("tiny"), photos, "-o", output, *options, code=2).stderr
            assert "is the input" in said
    assert {path.name: path.read_bytes() for path in photos.iterdir()} == before
    strip = ("interpolate", bundle_of("tiny"), photos / "p0.png", photos / "p1.png", "--overwrite", "-o")
    assert "is the input" in deepsim(*strip, photos / "p1.png", code=2).stderr
    inside = (command, bundle_of("tiny"), photos, "-o", bundle_of("tiny") / "engines", "--overwrite")
    assert "in the bundle" in deepsim(*inside, code=2).stderr


def test_images_among_the_photographs_are_not_taken_for_some(deepsim, bundle_of, photos, tmp_path):
    command = ("reconstruct", bundle_of("tiny"), photos, "-o", photos / "out")
    assert "3 images" in deepsim(*command).stderr
    assert "3 images, 3 of them before" in deepsim(*command, "--resume").stderr


def test_links_to_files_of_the_bundle_are_never_written_through(deepsim, bundle_of, photos, tmp_path):
    bundle = shutil.copytree(bundle_of("tiny"), tmp_path / "b.deepsim")
    before = {path: path.read_bytes() for path in bundle.iterdir()}
    (tmp_path / "m.npy").symlink_to(bundle / "manifest.json")
    (tmp_path / "s.png").symlink_to(bundle / "README.md")
    (tmp_path / "o").mkdir()
    (tmp_path / "o/p0.png").hardlink_to(bundle / "README.md")
    pair = (photos / "p0.png", photos / "p1.png")
    for command in (
        ("encode", bundle, photos, "-o", tmp_path / "m.npy", "--overwrite"),
        ("interpolate", bundle, *pair, "-o", tmp_path / "s.png", "--overwrite"),
        ("reconstruct", bundle, photos, "-o", tmp_path / "o", "--overwrite"),
    ):
        deepsim(*command, code=2)
    assert {path: path.read_bytes() for path in bundle.iterdir()} == before


def test_the_names_of_decoded_features_are_never_replaced(deepsim, bundle_of, photos, tmp_path):
    deepsim("encode", bundle_of("tiny"), photos, "-o", tmp_path / "f.npy")
    names = (tmp_path / "f.npy.names.csv").read_bytes()
    (tmp_path / "o").mkdir()
    (tmp_path / "o/p0.png").symlink_to(tmp_path / "f.npy.names.csv")
    deepsim("decode", bundle_of("tiny"), tmp_path / "f.npy", "-o", tmp_path / "o", "--overwrite", code=2)
    assert (tmp_path / "f.npy.names.csv").read_bytes() == names


def test_photographs_that_change_while_they_are_encoded(deepsim, bundle_of, photos, tmp_path, monkeypatch):
    encode, first = Inverter.encode, []

    def change(self, pixels):
        if not first:
            first.append(True)
            save_png(photographs(1, seed=9)[0], photos / "p0.png")  # its pixels have been read
        return encode(self, pixels)

    monkeypatch.setattr(Inverter, "encode", change)
    (photos / "p2.png").rename(tmp_path / "whole.png")
    (photos / "p2.png").write_bytes(b"")
    command = ("encode", bundle_of("tiny"), photos, "-o", tmp_path / "f.npz", "--max-batch", 1, "--resume")
    deepsim(*command, code=3)
    (tmp_path / "whole.png").rename(photos / "p2.png")
    deepsim(*command)
    monkeypatch.undo()
    deepsim("encode", bundle_of("tiny"), photos, "-o", tmp_path / "again.npz", "--max-batch", 1)
    found, wanted = read_features(tmp_path / "f.npz"), read_features(tmp_path / "again.npz")
    np.testing.assert_array_equal(found.values, wanted.values)
    assert found.index == (0, 1, 2)


def test_files_whose_escaped_names_are_equal_have_rows_of_their_own(deepsim, bundle_of, tmp_path, tiny):
    names = (os.fsdecode(b"\xff.bmp"), r"\xff.bmp")
    for name, photo in zip(names, photographs(2), strict=True):
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.fromarray(photo).save(tmp_path / "photos" / name)
        os.utime(tmp_path / "photos" / name, ns=(1, 1))
    deepsim("encode", bundle_of("tiny"), tmp_path / "photos", "-o", tmp_path / "f.npy")
    found = read_features(tmp_path / "f.npy").values
    assert np.abs(found[0] - found[1]).max() > 0.01


def test_a_wrong_bundle_is_not_searched_through(deepsim, photos, tmp_path, monkeypatch):
    searched = []
    monkeypatch.setattr(Path, "rglob", lambda self, pattern: searched.append(self) or iter(()))
    (tmp_path / "home").mkdir()
    for command, output in (("encode", "f.npy"), ("reconstruct", "o"), ("bench", "b.json")):
        inputs = () if command == "bench" else (photos,)
        deepsim(command, tmp_path / "home", *inputs, "-o", tmp_path / output, code=3)
    assert searched == []


def test_an_empty_path_is_not_the_current_folder(deepsim, bundle_of, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(photos)
    assert "empty path" in deepsim("encode", bundle_of("tiny"), "", "-o", tmp_path / "f.npy", code=2).stderr
    assert "empty path" in deepsim("reconstruct", bundle_of("tiny"), "p0.png", "-o", "", code=2).stderr
    assert "empty path" in deepsim("info", "", code=2).stderr


def test_a_photograph_that_is_no_longer_there_is_left_out(deepsim, bundle_of, photos, tmp_path):
    (photos / "gone.png").symlink_to(tmp_path / "nowhere.png")
    for command, output in (("encode", "f.npy"), ("reconstruct", "o")):
        start = (command, bundle_of("tiny"), photos, "-o", tmp_path / output)
        assert "gone.png: no such file" in deepsim(*start, code=3).stderr
        assert "1 left out" in deepsim(*start, "--resume", "--on-error", "skip").stderr
