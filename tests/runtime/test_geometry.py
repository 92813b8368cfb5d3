"""Framings of photographs and their squares in generated images."""

import numpy as np
import pytest
from PIL import Image

from deepsim.runtime.geometry import CAFFE_FRAMING, IMAGENET_FRAMING, Framing, Geometry, enlarged
from deepsim.runtime.images import prepare, prepare_batch


@pytest.mark.parametrize(
    ("height", "width", "resized", "offsets"),
    [
        (300, 400, (256, 341), (16, 58)),  # (341 - 224) / 2 = 58.5 goes to the even 58
        (400, 300, (341, 256), (58, 16)),
        (256, 256, (256, 256), (16, 16)),
        (100, 1000, (256, 2560), (16, 1168)),
        (1, 1, (256, 256), (16, 16)),
        (333, 500, (256, 384), (16, 80)),
    ],
)
def test_the_shorter_side_is_resized_as_torchvision_does(height, width, resized, offsets):
    assert IMAGENET_FRAMING.resized(height, width) == resized
    assert IMAGENET_FRAMING.offsets(*resized) == offsets


def test_shorter_agrees_with_torchvision_pixel_for_pixel():
    transforms = pytest.importorskip("torchvision.transforms")
    rng = np.random.default_rng(0)
    for interpolation in ("bilinear", "bicubic"):
        framing = Framing("shorter", 73, 64, interpolation)
        mode = transforms.InterpolationMode(interpolation)
        steps = transforms.Compose([transforms.Resize(73, mode), transforms.CenterCrop(64)])
        for height, width in ((90, 131), (131, 90), (64, 200), (40, 50)):
            photo = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
            np.testing.assert_array_equal(prepare(photo, framing), np.asarray(steps(Image.fromarray(photo))))


def test_warp_does_not_keep_the_aspect_ratio():
    assert CAFFE_FRAMING.resized(100, 900) == (256, 256)
    assert CAFFE_FRAMING.offsets(256, 256) == (14, 14)


def test_photographs_of_any_size_become_one_batch():
    photos = [np.zeros((50, 80, 3), np.uint8), np.zeros((224, 224, 3), np.uint8), np.zeros((500, 300, 3), np.uint8)]
    assert prepare_batch(photos, IMAGENET_FRAMING).shape == (3, 224, 224, 3)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        (("stretch", 256, 227), "resize 'stretch', expected one of warp, shorter"),
        (("warp", 256, 227, "nearest"), "interpolation 'nearest'"),
        (("warp", 226, 227), "side 227, expected at most size, which is 226"),
        (("warp", 256, 0), "side 0, expected a whole number from 1"),
        (("warp", 1 << 20, 227), "size 1048576"),
        (("warp", 256.0, 227), "size 256.0"),
        (("warp", True, 1), "size True"),
    ],
)
def test_framings_out_of_range_are_refused(fields, text):
    with pytest.raises(ValueError, match=text):
        Framing(*fields)


def test_the_scored_square_lies_centrally_and_is_cut_without_a_copy():
    geometry = Geometry.central(CAFFE_FRAMING, 240)
    images = np.zeros((1, 240, 240, 3), np.uint8)
    images[0, 6, 6] = images[0, 232, 232] = 7
    cut = geometry.crop(images)
    assert cut.shape == (1, 227, 227, 3) and np.shares_memory(cut, images)
    assert cut[0, 0, 0, 0] == cut[0, 226, 226, 0] == 7
    assert [Geometry(CAFFE_FRAMING, offset).fits(240) for offset in (-1, 0, 13, 14)] == [False, True, True, False]
    with pytest.raises(ValueError, match="output of side 226, expected at least 227"):
        Geometry.central(CAFFE_FRAMING, 226)


def test_json_and_back():
    geometry = Geometry(Framing("shorter", 256, 224, "bicubic"), 3)
    assert Geometry.from_json(geometry.to_json()) == geometry
    smaller = Geometry(geometry.framing, 3, 128)
    assert smaller.to_json()["generated"] == {"side": 128, "offset": 3}
    assert Geometry.from_json(smaller.to_json()) == smaller != geometry
    for side in (0, 225, 128.0, True, "128"):
        with pytest.raises(ValueError, match=f"generated side {side!r}, expected 1 to the photograph's, 224"):
            Geometry.from_json({**geometry.to_json(), "generated": {"side": side, "offset": 0}})
    assert str(geometry.framing) == "shorter side to 256 (bicubic), central 224x224"


def test_an_output_smaller_than_the_square_is_all_of_it_and_enlarged():
    geometry = Geometry.between(CAFFE_FRAMING, 192)
    assert (geometry.offset, geometry.generated_side, geometry.side, geometry.enlarges) == (0, 192, 227, True)
    assert geometry.crop(np.zeros((1, 192, 192, 3))).shape == (1, 192, 192, 3)
    assert [geometry.fits(full) for full in (191, 192)] == [False, True]
    assert Geometry.between(CAFFE_FRAMING, 240) == Geometry.central(CAFFE_FRAMING, 240)
    assert not Geometry.between(CAFFE_FRAMING, 227).enlarges
    with pytest.raises(ValueError, match="generated side 227, expected at most the photograph's, 227"):
        Geometry(CAFFE_FRAMING, 0, 227)


@pytest.mark.parametrize(("full", "side"), [(128, 227), (192, 227), (1, 3), (5, 6)])
def test_enlarging_is_pillows_bilinear(full, side):
    images = np.random.default_rng(full).uniform(-50, 300, (2, full, full, 3)).astype(np.float32)
    found = enlarged(images, side)
    assert found.dtype == np.float32 and found.flags.c_contiguous  # libraries read its memory
    for image, wanted in zip(images, found, strict=True):
        for channel in range(3):
            one = Image.fromarray(image[:, :, channel]).resize((side, side), Image.Resampling.BILINEAR)
            np.testing.assert_allclose(wanted[:, :, channel], np.asarray(one), atol=2e-4)
    np.testing.assert_array_equal(enlarged(images[:1], side), found[:1])
