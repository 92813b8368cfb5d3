"""Images: a zoo of good and bad files, conversion arithmetic, warp and crop positions, search, and fuzzed decoding."""

import os
import signal
import socket
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from deepsim.runtime import images
from deepsim.runtime.errors import DataError, DtypeError, ShapeError
from deepsim.runtime.geometry import CAFFE_FRAMING, Framing
from tests.runtime.image_zoo import BASE, bad, encode, good, mended, png, profiles, scans, seeds

GOOD, BAD, PROFILES = good() + scans(), bad(), profiles()
EMPTY = [np.empty((0, 5, 3), np.uint8), np.empty((5, 0, 3), np.uint8)]


@pytest.fixture
def alarm():
    """Fail instead of hanging."""

    def ring(number, frame):
        raise TimeoutError("hung")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(10)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def test_zoo_has_forty_files():
    assert len(GOOD) + len(BAD) >= 60
    assert len({name for name, *_ in GOOD + BAD}) == len(GOOD) + len(BAD)


@pytest.mark.parametrize(("name", "content", "expected", "tolerance"), GOOD, ids=[case[0] for case in GOOD])
def test_good_file(tmp_path, name, content, expected, tolerance):
    path = tmp_path / name
    path.write_bytes(content)
    rgb = images.read_image(path)
    assert rgb.dtype == np.uint8
    assert rgb.shape == expected.shape
    assert np.abs(rgb.astype(int) - expected.astype(int)).max() <= tolerance
    with Image.open(path) as image:
        assert np.array_equal(images.to_rgb(image), rgb)  # a Pillow image is read as its file is


@pytest.mark.parametrize(("name", "content", "word"), BAD, ids=[case[0] for case in BAD])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_bad_file(tmp_path, name, content, word):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        images.read_image(str(path))
    message = str(caught.value)
    assert str(path) in message
    assert word in message
    assert "expected" in message
    assert "\n" not in message


@pytest.mark.parametrize(("name", "content", "expected", "tolerance"), PROFILES, ids=[case[0] for case in PROFILES])
def test_metadata_that_pillow_refuses_costs_no_photograph(tmp_path, name, content, expected, tolerance):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises((ValueError, OSError, SyntaxError, zlib.error)), Image.open(path) as image:
        image.load()
    assert np.array_equal(images.read_image(path), expected)
    assert images.image_size(path) == (24, 40)


def test_not_regular_files(tmp_path, alarm):
    os.mkfifo(tmp_path / "fifo.jpg")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "device.png").symlink_to("/dev/zero")
    (tmp_path / "dangling.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    with socket.socket(socket.AF_UNIX) as server:
        here = os.open(tmp_path, os.O_RDONLY)  # the socket's own path is limited to 108 bytes
        server.bind(f"/proc/self/fd/{here}/socket.png")
        os.close(here)
        for name in ("fifo.jpg", "folder.png", "device.png", "socket.png"):
            with pytest.raises(DataError, match="not a regular file"):
                images.read_image(tmp_path / name)
    with pytest.raises(DataError, match="no such file"):
        images.read_image(tmp_path / "dangling.png")
    with pytest.raises(DataError, match="symbolic links"):
        images.read_image(tmp_path / "loop.png")


@pytest.mark.parametrize("path", ["missing.png", "nul\0byte.png", "x" * 300 + ".png", "rgb.png/below.png", ""])
def test_impossible_paths(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rgb.png").write_bytes(encode(BASE))
    with pytest.raises(DataError):
        images.read_image(path)


def test_symbolic_link_is_followed(tmp_path):
    (tmp_path / "rgb.png").write_bytes(encode(BASE))
    (tmp_path / "link.png").symlink_to("rgb.png")
    assert np.array_equal(images.read_image(tmp_path / "link.png"), BASE)


def test_image_size_reads_the_header_alone(tmp_path):
    path = tmp_path / "tall.png"
    path.write_bytes(encode(BASE)[:60])  # the pixels are cut off
    assert images.image_size(path) == (24, 40)
    with pytest.raises(DataError):
        images.read_image(path)


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "HSV"]
)
def test_modes_of_pillow(mode):
    steps = {"La": ("LA",), "RGBa": ("RGBA",), "PA": ("P",), "HSV": ("RGB",)}.get(mode, ())
    image = Image.fromarray(np.full((3, 5, 3), 255, np.uint8))
    for step in (*steps, mode):
        image = image.convert(step)
    assert (images.to_rgb(image) == 255).all()


@pytest.mark.parametrize("mode", ["I", "F"])
def test_modes_without_a_range_are_refused(mode):
    with pytest.raises(DataError, match="no defined range"):
        images.to_rgb(Image.new(mode, (3, 3)))


def test_to_rgb_of_a_closed_image(tmp_path):
    (tmp_path / "rgb.png").write_bytes(encode(BASE))
    with Image.open(tmp_path / "rgb.png") as image:
        pass
    with pytest.raises(DataError):
        images.to_rgb(image)


def test_prepare_takes_the_central_crop_at_offset_14():
    photo = np.zeros((256, 256, 3), np.uint8)
    photo[14, 14], photo[24, 34], photo[240, 240], photo[13, 100], photo[241, 100] = 10, 20, 30, 99, 99
    crop = images.prepare(photo, CAFFE_FRAMING)
    assert crop.shape == (227, 227, 3)
    assert (crop[0, 0, 0], crop[10, 20, 1], crop[226, 226, 2]) == (10, 20, 30)
    assert crop.sum() == 3 * (10 + 20 + 30)


def test_prepare_warps_before_it_crops():
    photo = np.zeros((512, 1024, 3), np.uint8)
    photo[2 * 24 : 2 * 25, 4 * 34 : 4 * 35] = 255  # becomes pixel (24, 34) of the warped image
    crop = images.prepare(photo, CAFFE_FRAMING).astype(int).sum(-1)
    assert np.unravel_index(crop.argmax(), crop.shape) == (10, 20)
    assert np.array_equal(images.prepare(photo, CAFFE_FRAMING), images.resize(photo, CAFFE_FRAMING)[14:241, 14:241])


def test_prepare_takes_227_as_it_is():
    photo = np.random.default_rng(0).integers(0, 256, (227, 227, 3), dtype=np.uint8)
    assert np.array_equal(images.prepare(photo, CAFFE_FRAMING), photo)
    assert np.array_equal(images.prepare(Image.fromarray(photo), CAFFE_FRAMING), photo)


def test_warp_does_not_keep_the_aspect_ratio():
    photo = np.zeros((100, 800, 3), np.uint8)
    photo[:, 400:] = 200
    warped = images.resize(photo, CAFFE_FRAMING)
    assert warped.shape == (256, 256, 3)
    assert (warped[:, :126] == 0).all()
    assert (warped[:, 130:] == 200).all()


def test_warp_is_antialiased():
    stripes = np.zeros((1024, 1024, 3), np.uint8)
    stripes[:, ::2] = 255  # finer than the result can show: must become an even grey, not moire
    warped = images.resize(stripes, CAFFE_FRAMING)[4:-4, 4:-4].astype(float)
    assert abs(warped.mean() - 127.5) < 1
    assert warped.std() < 3


def test_warp_keeps_a_linear_ramp():
    ramp = np.repeat(np.arange(512)[None, :, None] / 4, 512, 0).repeat(3, 2)
    warped = images.resize(ramp.astype(np.uint8), Framing("warp", 128, 100))[64, 8:-8, 0]
    assert np.abs(warped - (np.arange(8, 120) + 0.5 - 1 / 8 * 4)).max() <= 1


def test_prepare_batch(tmp_path):
    (tmp_path / "rgb.png").write_bytes(encode(BASE))
    expected = images.prepare(BASE, CAFFE_FRAMING)
    path = tmp_path / "rgb.png"
    batch = images.prepare_batch([path, str(path), Image.fromarray(BASE), BASE], CAFFE_FRAMING)
    assert batch.shape == (4, 227, 227, 3)
    assert (batch == expected).all()
    for one in (tmp_path / "rgb.png", str(tmp_path / "rgb.png"), Image.fromarray(BASE), BASE, BASE[None]):
        assert np.array_equal(images.prepare_batch(one, CAFFE_FRAMING), expected[None])


@pytest.mark.parametrize("size", [(227, 227), (256, 256), (50, 60)])
def test_prepare_batch_of_an_array_equals_one_by_one(size):
    photos = np.random.default_rng(1).integers(0, 256, (3, *size, 3), dtype=np.uint8)
    for array in (photos, photos[::-1], np.asfortranarray(photos)):
        batch = images.prepare_batch(array, CAFFE_FRAMING)
        assert batch.flags.c_contiguous
        assert np.array_equal(batch, np.stack([images.prepare(photo, CAFFE_FRAMING) for photo in array]))


@pytest.mark.parametrize(
    "nothing", [[], (), np.empty((0, 300, 200, 3), np.uint8), np.empty((0, 227, 227, 3), np.uint8)]
)
def test_prepare_batch_of_nothing(nothing):
    batch = images.prepare_batch(nothing, CAFFE_FRAMING)
    assert (batch.shape, batch.dtype) == ((0, 227, 227, 3), np.uint8)


@pytest.mark.parametrize("photo", [np.zeros((9, 9, 3)), np.zeros((9, 9, 3), np.int64), np.zeros((2, 9, 9, 3), bool)])
def test_wrong_dtype(photo):
    with pytest.raises(DtypeError, match="expected uint8"):
        images.prepare_batch(photo, CAFFE_FRAMING)
    with pytest.raises(TypeError):
        images.prepare_batch([photo], CAFFE_FRAMING)


@pytest.mark.parametrize("shape", [(), (3,), (9, 9), (9, 9, 4), (3, 9, 9), (2, 9, 9, 1), (2, 0, 9, 3), (1, 2, 9, 9, 3)])
def test_wrong_shape(shape):
    with pytest.raises(ShapeError, match="expected RGB"):
        images.prepare_batch(np.zeros(shape, np.uint8), CAFFE_FRAMING)
    with pytest.raises(ValueError, match="expected RGB"):
        images.resize(np.zeros(shape, np.uint8), CAFFE_FRAMING)


@pytest.mark.parametrize("photo", [None, 3, b"photo.jpg", [[1, 2], [3, 4]]])
def test_wrong_type(photo):
    with pytest.raises(DtypeError, match="expected a path"):
        images.prepare_batch([photo], CAFFE_FRAMING)


def test_find_images(tmp_path):
    wanted = ["a/2.png", "a/B.JPEG", "a/b/1.webp", "a/z.jpg", "c.JPG"]
    for name in [*wanted, "a/notes.txt", "a/.hidden.png", ".cache/x.png", "png"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "a/b/up").symlink_to(tmp_path)  # a loop
    (tmp_path / "a/self").symlink_to("self")  # a link to itself
    found = images.find_images([tmp_path])
    assert found == sorted(tmp_path / name for name in wanted)
    given_file = tmp_path / "a/notes.txt"
    assert images.find_images([given_file, str(tmp_path / "a/b")])[0] == given_file  # as given, whatever its name


def test_find_images_follows_a_linked_folder_once(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/x.png").touch()
    (tmp_path / "data").mkdir()
    for name in ("first", "second"):
        (tmp_path / "data" / name).symlink_to(tmp_path / "elsewhere")
    assert images.find_images([tmp_path / "data"]) == [tmp_path / "data/first/x.png"]


def test_every_promised_suffix_is_found_and_the_rest_is_counted(tmp_path, caplog):
    for number, suffix in enumerate((*images.SUFFIXES, ".HEIC", ".heic", ".txt", "")):
        (tmp_path / f"f{number}{suffix}").touch()
    assert len(images.find_images([tmp_path])) == len(images.SUFFIXES)
    assert {".jfif", ".jpe", ".avif", ".gif", ".tif"} <= set(images.SUFFIXES)
    (warning,) = caplog.messages
    assert "left out 2 .heic, 1 .txt, 1 without a suffix" in warning and str(tmp_path) in warning
    caplog.clear()
    for path in tmp_path.iterdir():
        if path.suffix not in (".heic", ".HEIC"):
            path.unlink()
    with pytest.raises(DataError, match=r"no images found, but 2 \.heic"):
        images.find_images([tmp_path])


def test_the_folder_of_results_is_not_searched(tmp_path):
    for name in ("a.png", "results/b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "link").symlink_to("results")
    results = tmp_path / "results"
    assert images.find_images([tmp_path], apart_from=results) == [tmp_path / "a.png"]
    assert images.find_images([tmp_path], apart_from=tmp_path / "absent") == [
        tmp_path / "a.png",
        tmp_path / "link/b.png",
    ]
    assert images.find_images([results], apart_from=results) == [results / "b.png"]


def test_texts_of_a_png(tmp_path):
    images.save_png(BASE, tmp_path / "a.png", {"deepsim": "ü {}"})
    assert images.png_text(tmp_path / "a.png", "deepsim") == "ü {}"
    assert images.png_text(tmp_path / "a.png", "other") is None
    assert np.array_equal(images.read_image(tmp_path / "a.png"), BASE)


def test_find_images_finds_nothing(tmp_path):
    for paths in ([tmp_path], []):
        with pytest.raises(DataError, match="no images found"):
            images.find_images(paths)
    with pytest.raises(DataError, match="no such file"):
        images.find_images([tmp_path / "missing"])


def test_save_png(tmp_path):
    path = tmp_path / "new folder/image.png"
    images.save_png(BASE[:, ::-1], path)
    assert np.array_equal(images.read_image(path), BASE[:, ::-1])
    assert [entry.name for entry in path.parent.iterdir()] == ["image.png"]  # no temporary file is left
    for wrong in (BASE.astype(float), BASE[0], *EMPTY):
        with pytest.raises(DataError):
            images.save_png(wrong, path)
    assert np.array_equal(images.read_image(path), BASE[:, ::-1])


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(seeds()),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=12),
    st.one_of(st.just(1.0), st.floats(0, 1)),
    st.booleans(),
)
def test_mutated_files_give_pixels_or_a_data_error(tmp_path_factory, content, changes, kept, mend):
    mutated = bytearray(content[: int(len(content) * kept)])
    for place, value in changes:
        if mutated:
            mutated[int(place * len(mutated))] = value
    path = tmp_path_factory.getbasetemp() / "mutated"
    path.write_bytes(mended(bytes(mutated)) if mend else bytes(mutated))
    try:
        rgb = images.read_image(path)
    except DataError as error:
        assert str(path) in str(error)
    else:
        assert rgb.dtype == np.uint8
        assert rgb.ndim == 3
        assert rgb.shape[2] == 3


def test_an_image_beyond_pillow_s_warning_is_refused_even_where_warnings_are_errors(tmp_path):
    (tmp_path / "large.png").write_bytes(png(12_000, 12_000, 8, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DataError):
            images.read_image(tmp_path / "large.png")
