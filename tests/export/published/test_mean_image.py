"""Mean images of every format, and the mistakes that they invite."""

import io
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io

from deepsim.export.published.mean_image import read_mean_image
from deepsim.runtime.errors import DataError

DATA = Path(__file__).resolve().parents[2] / "data/caffe"
BGR = np.stack([np.full((4, 6), value) + np.arange(6) for value in (101.5, 114.5, 120.5)])  # means 104, 117, 123


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def mat5(**arrays):
    file = io.BytesIO()
    scipy.io.savemat(file, arrays)
    return file.getvalue()


def mat73(array):
    file = io.BytesIO()
    with h5py.File(file, "w", userblock_size=512) as opened:
        opened["image_mean"] = array.T
    return b"MATLAB 7.3 MAT-file".ljust(512) + file.getvalue()[512:]


@pytest.mark.parametrize(
    "data",
    [
        npy(BGR),
        npy(BGR.astype(np.float32)[None]),
        npy(BGR.transpose(1, 2, 0)),
        npy(np.array([104.0, 117, 123])),
        npy(np.asfortranarray(BGR.astype(">f8"))),
        mat5(mean_data=BGR.transpose(2, 1, 0)),
        mat73(BGR),
    ],
)
def test_every_format_gives_the_channel_means(data, tmp_path):
    (tmp_path / "mean").write_bytes(data)
    found = read_mean_image(tmp_path / "mean")
    assert found.mean == pytest.approx((104, 117, 123)) and found.source.size == len(data)


def test_a_binaryproto_gives_the_channel_means():
    found = read_mean_image(DATA / "mean.binaryproto")
    assert found.mean == (104.5, 117.5, 123.5) and found.source.format == "mean image (.binaryproto)"


def test_rgb_is_turned_when_told_and_refused_when_not(tmp_path):
    (tmp_path / "mean.npy").write_bytes(npy(BGR[::-1]))
    assert read_mean_image(tmp_path / "mean.npy", order="RGB").mean == pytest.approx((104, 117, 123))
    with pytest.raises(DataError, match=r"channel means 123\.0, 117\.0, 104\.0, expected BGR; they look like RGB"):
        read_mean_image(tmp_path / "mean.npy")
    (tmp_path / "mean.npy").write_bytes(npy(BGR))
    with pytest.raises(DataError, match="expected RGB; they look like BGR"):
        read_mean_image(tmp_path / "mean.npy", order="RGB")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (npy(BGR / 255), "expected a mean image of 0 to 255"),
        (npy(BGR - 110), "expected a mean image of 0 to 255"),
        (npy(np.where(BGR > 120, np.nan, BGR)), "expected a mean image of 0 to 255"),
        (npy(BGR[:2]), "of shape"),
        (npy(np.ones((3, 3, 3))), "of shape"),
        (npy(BGR.transpose(1, 0, 2)), "of shape"),
        (npy(BGR)[:-8], "not readable"),
        (npy(np.array([1, "a"], object)), "not readable"),
        (npy(BGR).replace(b"(3, 4, 6)", b"(9, 9, 9999999)"[:9]), "not readable"),
        (mat5(a=BGR, b=BGR), "2 arrays"),
        (mat5(a=BGR)[:300], "not readable"),
        (b"", "not readable"),
        (b"\x89PNG\r\n\x1a\n", "not readable"),
        ((DATA / "mean.binaryproto").read_bytes()[:-40], "not readable"),
    ],
)
def test_what_is_no_mean_image_is_refused(data, words, tmp_path):
    (tmp_path / "mean").write_bytes(data)
    with pytest.raises(DataError, match=words):
        read_mean_image(tmp_path / "mean")
