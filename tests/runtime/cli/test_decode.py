"""Features of any program's files to images."""

import threading

import numpy as np
import pytest
import scipy.io

from deepsim.runtime.cli.bulk import Pictures
from deepsim.runtime.errors import DeviceError
from deepsim.runtime.features import read_features
from deepsim.runtime.images import read_image, save_png
from deepsim.runtime.inverter import Inverter
from tests.bundles import photographs
from tests.runtime.features.files_of_others import write_bdpy


def test_decode_names_images_after_photographs(deepsim, bundle_of, photos, tmp_path, tiny):
    deepsim("encode", bundle_of("tiny"), photos, "-o", tmp_path / "f.npz")
    deepsim("decode", bundle_of("tiny"), tmp_path / "f.npz", "-o", tmp_path / "images", "--full", "--max-batch", 2)
    wanted = tiny.decode(tiny.encode(photographs(3)), full=True)
    for index in range(3):
        image = read_image(tmp_path / f"images/p{index}.png")
        assert image.shape == (256, 256, 3) and np.abs(image.astype(int) - wanted[index]).max() <= 1


def test_decode_without_names_numbers_images(deepsim, bundle_of, tmp_path):
    np.save(tmp_path / "f.npy", np.ones((2, 20)))
    deepsim("decode", bundle_of("tiny"), tmp_path / "f.npy", "-o", tmp_path / "images")
    assert sorted(path.name for path in (tmp_path / "images").iterdir()) == ["000000.png", "000001.png"]


def test_decode_flattened_and_whole_numbers(deepsim, inverter_of, bundle_of, tmp_path):
    values = np.random.default_rng(0).integers(0, 3, (2, 4, 14, 14))
    wanted = inverter_of("tiny-rgb", "cpu").decode(values.astype(np.float32))
    (tmp_path / "f.csv").write_text("\n".join(",".join(map(str, row)) for row in values.reshape(2, -1)))
    deepsim("decode", bundle_of("tiny-rgb"), tmp_path / "f.csv", "-o", tmp_path / "flat")
    np.testing.assert_array_equal(read_image(tmp_path / "flat/000001.png"), wanted[1])


@pytest.mark.parametrize(("axes", "order"), [("HWCN", (2, 3, 1, 0)), ("WHCN", (3, 2, 1, 0)), ("NHWC", (0, 2, 3, 1))])
def test_decode_axes_that_are_named(deepsim, inverter_of, bundle_of, tmp_path, axes, order):
    values = np.random.default_rng(0).standard_normal((3, 4, 14, 14)).astype(np.float32)
    wanted = inverter_of("tiny-rgb", "cpu").decode(values)
    np.save(tmp_path / "f.npy", values.transpose(order))
    command = ("decode", bundle_of("tiny-rgb"), tmp_path / "f.npy", "-o", tmp_path / "images", "--max-batch", 2)
    asked = deepsim(*command, code=3)
    assert "can be read as" in asked.stderr and axes in asked.stderr and not (tmp_path / "images").exists()
    deepsim(*command, "--axes", axes)
    for index in range(3):
        np.testing.assert_array_equal(read_image(tmp_path / f"images/{index:06d}.png"), wanted[index])
    assert "Name one: --axes WHCN, HWCN" in deepsim(*command, "--transpose", "--overwrite", code=2).stderr
    assert "axes 'HWXN'" in deepsim(*command, "--axes", "HWXN", "--overwrite", code=2).stderr


@pytest.mark.parametrize("suffix", ["npy", "npz", "csv"])
def test_as_many_photographs_as_units_are_asked_about_unless_the_file_is_ours(deepsim, bundle_of, tmp_path, suffix):
    for index, photo in enumerate(photographs(20)):
        save_png(photo, tmp_path / "photos" / f"{index:02d}.png")
    features = tmp_path / f"f.{suffix}"
    deepsim("encode", bundle_of("tiny"), tmp_path / "photos", "-o", features)
    assert "20 images" in deepsim("decode", bundle_of("tiny"), features, "-o", tmp_path / "images").stderr
    np.save(tmp_path / "other.npy", read_features(features).values)
    asked = deepsim("decode", bundle_of("tiny"), tmp_path / "other.npy", "-o", tmp_path / "no", code=3).stderr
    assert "can be read as NC or CN" in asked


def test_decode_one_feature_without_an_axis_of_photographs(deepsim, tiny, bundle_of, tmp_path):
    value = np.random.default_rng(0).standard_normal(20).astype(np.float32)
    np.save(tmp_path / "f.npy", value)
    deepsim("decode", bundle_of("tiny"), tmp_path / "f.npy", "-o", tmp_path / "images", "--axes", "C")
    np.testing.assert_array_equal(read_image(tmp_path / "images/000000.png"), tiny.decode(value[None])[0])


def test_names_of_images_stay_apart_and_inside_the_folder(deepsim, bundle_of, tmp_path):
    names = [
        "x/a.jpg",
        "y/a.png",
        "A.webp",
        "../../escape",
        "..",
        "/etc/passwd",
        "",
        "a\0b",
        "\u00e9t\u00e9",
        ".hidden",
    ]
    np.savez(tmp_path / "f.npz", features=np.ones((len(names), 20), np.float32), names=np.array(names))
    deepsim("decode", bundle_of("tiny"), tmp_path / "f.npz", "-o", tmp_path / "in" / "images")
    written = {path.name for path in (tmp_path / "in" / "images").iterdir()}
    assert written == {
        *("a.png", "a_2.png", "A_3.png", "escape.png", "000004.png", "passwd.png", "000006.png"),
        *("a_b.png", "\u00e9t\u00e9.png", "hidden.png"),
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f.npz", "in"]


def test_photographs_of_windows_and_names_with_dots(deepsim, bundle_of, tmp_path):
    names = ["C:\\photos\\a.JPG", "C:\\photos\\b.jpg", "img.001", "img.002", "v1.2.jfif"]
    np.savez(tmp_path / "f.npz", features=np.ones((5, 20), np.float32), names=np.array(names))
    deepsim("decode", bundle_of("tiny"), tmp_path / "f.npz", "-o", tmp_path / "images")
    written = sorted(path.name for path in (tmp_path / "images").iterdir())
    assert written == ["a.png", "b.png", "img.001.png", "img.002.png", "v1.2.png"]


@pytest.mark.parametrize(("axes", "shape"), [("HWCN", (14, 14, 4)), ("(CHW)N", (784,)), ("CHW", (4, 14, 14))])
def test_one_photograph_whose_axis_matlab_dropped(deepsim, bundle_of, tmp_path, inverter_of, axes, shape):
    value = np.random.default_rng(3).standard_normal((4, 14, 14)).astype(np.float32)
    turned = value.transpose(1, 2, 0) if axes == "HWCN" else value.reshape(shape)
    np.save(tmp_path / "f.npy", turned)
    deepsim("decode", bundle_of("tiny-rgb"), tmp_path / "f.npy", "-o", tmp_path / "o", "--axes", axes)
    wanted = inverter_of("tiny-rgb", "cpu").decode(value[None])[0]
    np.testing.assert_array_equal(read_image(tmp_path / "o/000000.png"), wanted)


def test_a_tree_of_decoded_features(deepsim, tiny, bundle_of, tmp_path):
    codes = np.random.default_rng(0).random((5, 20)).astype(np.float32)
    for number, code in enumerate(codes):
        for subject in ("S1", "S2"):
            write_bdpy(tmp_path / "tree/relu6" / subject / f"VC/Img{number}.mat", code[None] + (subject == "S2"))
    command = ("decode", bundle_of("tiny"), tmp_path / "tree", "-o", tmp_path / "images")
    assert "Name it with --subject" in deepsim(*command, code=2).stderr
    said = deepsim(*command, "--subject", "S1", "--roi", "VC", "--max-batch", 2).stderr
    assert "tree/relu6/S1/VC: 5 features in 5 files" in said and "5 images" in said
    for number in range(5):
        image = read_image(tmp_path / f"images/Img{number}.png")
        np.testing.assert_array_equal(image, tiny.decode(codes[number : number + 1])[0])
    (tmp_path / "images/Img3.png").unlink()
    write_bdpy(tmp_path / "tree/relu6/S1/VC/Img9.mat", codes[:1])  # one more does not change the others
    went_on = deepsim(*command, "--subject", "S1", "--resume").stderr
    assert "6 images, 4 of them before" in went_on
    write_bdpy(tmp_path / "tree/relu6/S1/VC/Img1.mat", codes[:1])
    assert "Img1.png: exists already, made from" in deepsim(*command, "--subject", "S1", "--resume", code=2).stderr


def test_a_damaged_file_among_many(deepsim, bundle_of, tmp_path, caplog):
    for number in range(5):
        np.save(tmp_path / f"codes_{number}.npy", np.full(20, number, np.float32))
    (tmp_path / "codes_3.npy").write_bytes(b"damaged")
    (tmp_path / "codes_5.npy").symlink_to(tmp_path / "nowhere")
    np.save(tmp_path / "codes_6.npy", np.full(20, np.nan))
    command = ("decode", bundle_of("tiny"), tmp_path, "-o", tmp_path / "images", "--max-batch", 2)
    stopped = deepsim(*command, code=3).stderr
    assert "codes_3.npy: unreadable" in stopped and "3 of 7 are done" in stopped
    assert sorted(path.stem for path in (tmp_path / "images").iterdir()) == ["codes_0", "codes_1", "codes_2"]
    said = deepsim(*command, "--resume", "--on-error", "skip").stderr
    assert "4 images, 3 of them before, 3 left out" in said
    (tmp_path / "codes_0.npy").write_bytes(b"damaged too")
    assert "3 images" in deepsim(*command, "--overwrite", "--on-error", "skip").stderr
    assert any(message.startswith(f"left out {tmp_path / 'codes_6'}: NaN") for message in caplog.messages)


def test_reading_computing_and_writing_overlap(deepsim, bundle_of, tmp_path, monkeypatch):
    """While an image is written, the next batch is computed: else each would wait for the other here, and fail."""
    np.save(tmp_path / "f.npy", np.random.default_rng(0).random((6, 20)).astype(np.float32))
    second, save, decode = threading.Event(), Pictures.save, Inverter.decode

    def save_when_the_next_is_computed(self, number, pixels):
        assert number > 0 or second.wait(30)
        save(self, number, pixels)

    def decode_and_tell(self, features, **options):
        images = decode(self, features, **options)
        if features[0, 0] == second_row:
            second.set()
        return images

    second_row = np.load(tmp_path / "f.npy")[2, 0]
    monkeypatch.setattr(Pictures, "save", save_when_the_next_is_computed)
    monkeypatch.setattr(Inverter, "decode", decode_and_tell)
    deepsim("decode", bundle_of("tiny"), tmp_path / "f.npy", "-o", tmp_path / "images", "--max-batch", 2)
    assert len(list((tmp_path / "images").iterdir())) == 6


def test_what_cannot_be_written_ends_it(deepsim, bundle_of, tmp_path, monkeypatch):
    np.save(tmp_path / "f.npy", np.random.default_rng(0).random((9, 20)).astype(np.float32))
    save = Pictures.save

    def full(self, number, pixels):
        if number == 4:
            raise DeviceError("images/000004.png: no space left")
        save(self, number, pixels)

    monkeypatch.setattr(Pictures, "save", full)
    command = ("decode", bundle_of("tiny"), tmp_path / "f.npy", "-o", tmp_path / "images", "--max-batch", 2)
    assert "no space left" in deepsim(*command, code=4).stderr
    assert {f"{number:06d}.png" for number in range(4)} <= {path.name for path in (tmp_path / "images").iterdir()}
    monkeypatch.undo()
    assert "9 images" in deepsim(*command, "--resume").stderr


def test_features_before_the_relu_are_told_and_rectified(deepsim, tiny, bundle_of, tmp_path):
    values = (np.random.default_rng(0).standard_normal((4, 20)) * 5 - 3).astype(np.float32)
    np.save(tmp_path / "f.npy", values)
    command = ("decode", bundle_of("tiny"), tmp_path / "f.npy", "-o", tmp_path / "images")
    said = deepsim(*command).stderr.splitlines()
    warned = [line for line in said if line.startswith("warning:")]
    assert len(warned) == 1 and "f.npy: " in warned[0] and "before the ReLU?" in warned[0]
    assert "warning" not in deepsim(*command, "--rectify", "--overwrite").stderr
    wanted = tiny.decode(np.maximum(values, 0))
    for number in range(4):
        np.testing.assert_array_equal(read_image(tmp_path / f"images/{number:06d}.png"), wanted[number])
    assert "4 of them before" in deepsim(*command, "--rectify", "--resume").stderr
    assert "made from something else" in deepsim(*command, "--resume", code=2).stderr  # without --rectify


def test_features_are_normalised_then_rectified_then_clipped(deepsim, tiny, bundle_of, tmp_path):
    values = np.random.default_rng(0).standard_normal((3, 20)).astype(np.float32)
    values[1, 4] = np.nan
    np.save(tmp_path / "f.npy", values)
    mean, upper = np.random.default_rng(1).random(20), np.arange(20) % 3
    write_bdpy(tmp_path / "y_mean.mat", mean[None].astype(np.float32), "y_mean")
    scipy.io.savemat(tmp_path / "estimated_cnn_feat_std_x.mat", {"relu6": 2.0, "fc6": 1.0})
    (tmp_path / "fc6.txt").write_text(" ".join(map(str, upper)) + " ")
    start = ("decode", bundle_of("tiny"), tmp_path / "f.npy", "-o", tmp_path / "images")
    rules = ("--match-stats", "fg", "--match-stats", "feature_std", "--rectify", "--clip-to", tmp_path / "fc6.txt")
    assert "no mean known" in deepsim(*start, *rules, code=2).stderr
    stats = [each for name in ("y_mean.mat", "estimated_cnn_feat_std_x.mat") for each in ("--stats", tmp_path / name)]
    deepsim(*start, *rules, *stats)
    filled = np.where(np.isnan(values), mean, values).astype(np.float32).astype(np.float64)
    m, s = filled.mean(axis=1, keepdims=True), filled.std(axis=1, ddof=1, keepdims=True)
    wanted = tiny.decode(np.clip(m + (filled - m) / s * 2, 0, upper).astype(np.float32))
    for number in range(3):
        image = read_image(tmp_path / f"images/{number:06d}.png").astype(int)
        assert np.abs(image - wanted[number]).max() <= 1
    assert "expected one of icnn" in deepsim(*start, "--match-stats", "z", code=2).stderr
    assert "expected 20" in deepsim(*start, "--clip-to", tmp_path / "f.npy", "--overwrite", code=3).stderr
    assert "f.npy, row 1: NaN" in deepsim(*start, "--overwrite", code=3).stderr
