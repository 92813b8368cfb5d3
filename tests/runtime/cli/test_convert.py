import os
import shlex

import numpy as np
import pytest
from PIL import Image

from deepsim.runtime.features import read_features
from deepsim.runtime.images import read_image, save_png
from tests.bundles import photographs


def test_encode_writes_what_the_inverter_computes(deepsim, bundle_of, photos, tmp_path, tiny):
    result = deepsim("encode", bundle_of("tiny"), photos, "-o", tmp_path / "f.npz", "--max-batch", 2)
    found = read_features(tmp_path / "f.npz")
    np.testing.assert_allclose(found.values, tiny.encode(photographs(3)), rtol=0, atol=1e-4)
    assert found.names == tuple(str(photos / f"p{index}.png") for index in range(3))
    assert result.stdout == ""
    assert "features of 3 photographs, float32 (3, 20)" in result.stderr
    assert f"Next: deepsim decode {bundle_of('tiny')}" in result.stderr


def test_reconstruct_and_side_by_side(deepsim, bundle_of, photos, tmp_path, tiny):
    deepsim("reconstruct", bundle_of("tiny"), photos, "-o", tmp_path / "a", "--max-batch", 2)
    deepsim("reconstruct", bundle_of("tiny"), photos, "-o", tmp_path / "b", "--max-batch", 2, "--side-by-side")
    wanted = tiny.reconstruct(photographs(3)[:2])
    np.testing.assert_array_equal(read_image(tmp_path / "a/p1.png"), wanted[1])
    both = read_image(tmp_path / "b/p1.png")
    assert both.shape == (227, 454, 3)
    np.testing.assert_array_equal(both, np.concatenate([photographs(3)[1], wanted[1]], axis=1))
    assert len(list((tmp_path / "a").iterdir())) == 3


def test_reencode_strip(deepsim, bundle_of, photos, tmp_path, tiny):
    deepsim("reencode", bundle_of("tiny"), photos, "-o", tmp_path / "s", "--iterations", 3, "--keep", "1,3")
    kept = tiny.reencode(photographs(3), 3, (1, 3))
    strip = read_image(tmp_path / "s/p2.png")
    np.testing.assert_array_equal(strip, np.concatenate([photographs(3)[2], *kept[2]], axis=1))


def test_interpolate_strip(deepsim, bundle_of, photos, tmp_path, tiny):
    a, b = photos / "p0.png", photos / "p1.png"
    deepsim("interpolate", bundle_of("tiny"), a, b, "-o", tmp_path / "s.png", "--steps", 3, "--max-batch", 4)
    frames = tiny.interpolate(*photographs(3)[:2], steps=3)
    np.testing.assert_array_equal(read_image(tmp_path / "s.png"), np.concatenate(list(frames), axis=1))


def test_existing_outputs_are_kept_unless_told(deepsim, bundle_of, photos, tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/p1.png").write_text("mine")
    (tmp_path / "out/other.png").write_text("mine")
    (tmp_path / "f.npy").write_text("mine")
    (tmp_path / "s.png").write_text("mine")
    pair = (photos / "p0.png", photos / "p1.png")
    with monkeypatch.context() as patch:  # refused before any work
        patch.setattr("deepsim.runtime.cli.convert.open_inverter", None)
        for command in (
            ("encode", bundle_of("tiny"), photos, "-o", tmp_path / "f.npy"),
            ("reconstruct", bundle_of("tiny"), photos, "-o", tmp_path / "out"),
            ("reencode", bundle_of("tiny"), photos, "-o", tmp_path / "out"),
            ("interpolate", bundle_of("tiny"), *pair, "-o", tmp_path / "s.png"),
        ):
            assert "--overwrite" in deepsim(*command, code=2).stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["other.png", "p1.png"]
    deepsim("reconstruct", bundle_of("tiny"), photos, "-o", tmp_path / "out", "--overwrite")
    assert read_image(tmp_path / "out/p1.png").shape == (227, 227, 3)
    assert (tmp_path / "out/other.png").read_text() == (tmp_path / "f.npy").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("encode", "BUNDLE", "missing.jpg", "-o", "f.npy"), 3, "missing.jpg: no such file"),
        (("encode", "BUNDLE", "PHOTOS", "-o", "f.txt"), 2, "expected one of .npy"),
        (("encode", "BUNDLE", "PHOTOS"), 2, "'-o'"),
        (("encode", "nowhere.deepsim", "PHOTOS", "-o", "f.npy"), 3, "nowhere.deepsim: not found"),
        (("encode", "BUNDLE", "PHOTOS", "-o", "f.npy", "--backend", "tensorrt"), 4, "not in this version"),
        (("encode", "BUNDLE", "PHOTOS", "-o", "f.npy", "--device", "tpu"), 2, "'tpu'"),
        (("encode", "BUNDLE", "PHOTOS", "-o", "f.npy", "--device", "999"), 4, "cuda:999"),
        (("decode", "BUNDLE", "f.npy", "-o", "x"), 3, "f.npy: no such file"),
        (("reencode", "BUNDLE", "PHOTOS", "-o", "x", "--keep", "1,a"), 2, "--keep 1,a"),
        (("reencode", "BUNDLE", "PHOTOS", "-o", "x", "--keep", "1,9"), 2, "from 1 to 8"),
        (("interpolate", "BUNDLE", "PHOTOS", "PHOTOS", "-o", "x.jpg"), 2, ".png"),
        (("reconstruct", "BUNDLE", "PHOTOS", "-o", "BUNDLE/manifest.json"), 2, "a file, expected a folder"),
        (("encode", "BUNDLE", "PHOTOS", "-o", "f.npy", "--max-batch", "0"), 2, "--max-batch"),
        (("nonsense",), 2, "nonsense"),
        ((), 2, "Usage"),
    ],
)
def test_exit_codes(deepsim, bundle_of, photos, tmp_path, monkeypatch, arguments, code, words):
    monkeypatch.chdir(tmp_path)
    arguments = [text.replace("BUNDLE", str(bundle_of("tiny"))).replace("PHOTOS", str(photos)) for text in arguments]
    result = deepsim(*arguments, code=code)
    assert words in result.stderr and "Traceback" not in result.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"photos"}  # nothing left behind


def test_the_next_command_can_be_pasted(deepsim, bundle_of, photos, tmp_path):
    output = tmp_path / "r**x [1].npy"
    told = deepsim("encode", bundle_of("tiny"), photos, "-o", output).stderr.split("Next: ")[1]
    assert shlex.split(told) == ["deepsim", "decode", str(bundle_of("tiny")), str(output), "-o", "images"]


def test_long_names_and_names_that_are_not_utf_8(deepsim, bundle_of, tmp_path):
    names = [
        "写" * 80 + ".png",
        "写" * 80 + "真.png",
        "a" * 251 + ".png",
        "é" * 60 + ".png",
        os.fsdecode(b"caf\xe9.png"),
    ]
    for name, photo in zip(names, photographs(len(names)), strict=True):
        save_png(photo, tmp_path / "photos" / name)
    for command in ("reconstruct", "reencode"):
        deepsim(command, bundle_of("tiny"), tmp_path / "photos", "-o", tmp_path / command)
        made = [path.name for path in (tmp_path / command).iterdir()]
        assert len(made) == len(names) and max(len(os.fsencode(name)) for name in made) < 143
        assert "caf_xe9.png" in made and "é" * 60 + ".png" in made and "写" * 40 + ".png" in made
    for suffix in ("npy", "npz", "csv", "h5", "mat"):
        output = tmp_path / "features" / f"{'写' * 70}.{suffix}"
        deepsim("encode", bundle_of("tiny"), tmp_path / "photos", "-o", output)
        found = read_features(output)
        assert any(name.endswith(r"caf\xe9.png") for name in found.names)
        deepsim("decode", bundle_of("tiny"), output, "-o", tmp_path / f"images-{suffix}")
        assert "写" * 40 + "_2.png" in {path.name for path in (tmp_path / f"images-{suffix}").iterdir()}


def test_damaged_bundle(deepsim, bundle_of, photos, tmp_path):
    (tmp_path / "b.deepsim").mkdir()
    (tmp_path / "b.deepsim/manifest.json").write_bytes((bundle_of("tiny") / "manifest.json").read_bytes()[:-9])
    result = deepsim("encode", tmp_path / "b.deepsim", photos, "-o", tmp_path / "f.npy", code=3)
    assert result.stderr.startswith("Error: ") and "manifest.json" in result.stderr


def test_png_is_what_pillow_reads(deepsim, bundle_of, photos, tmp_path):
    deepsim("reconstruct", bundle_of("tiny"), photos / "p0.png", "-o", tmp_path / "a")
    with Image.open(tmp_path / "a/p0.png") as image:
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", (227, 227))
