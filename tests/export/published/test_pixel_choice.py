"""The mean and the channel order that networks are told to have."""

import numpy as np
import pytest

from deepsim.export.published.pixel_choice import choose_pixels
from deepsim.runtime.errors import DataError, UsageError
from deepsim.runtime.files import sha256


def test_the_default_follows_the_order():
    assert choose_pixels().convention.mean == (104, 117, 123)
    assert choose_pixels(order="RGB").convention.mean == (123, 117, 104)
    assert str(choose_pixels()) == "BGR, 0-255, minus B 104, G 117, R 123 (the default)"


def test_numbers_are_in_the_networks_order():
    chosen = choose_pixels("103.9,116.8,123.7")
    assert (chosen.convention.mean, chosen.convention.order, chosen.mean_from) == (
        (103.9, 116.8, 123.7),
        "BGR",
        "--mean",
    )
    assert choose_pixels("104,117,124").convention.mean == (104, 117, 124)
    assert str(choose_pixels("1,2,3", "RGB")) == "RGB, 0-255, minus R 1, G 2, B 3 (--mean)"


@pytest.mark.parametrize("mean", ["104,117", "1,2,3,4", "nan,1,2", "1,inf,2", "1e9,0,0", "104"])
def test_other_numbers_are_refused(mean):
    with pytest.raises(UsageError, match=f"--mean {mean}: expected three numbers"):
        choose_pixels(mean)


def test_the_mean_of_the_other_order_is_refused():
    with pytest.raises(UsageError, match=r"in RGB order, expected .*, BGR. Pass 104,117,123, or --order RGB"):
        choose_pixels("123,117,104")
    with pytest.raises(UsageError, match="in BGR order, expected the network's order, RGB"):
        choose_pixels("104.006,116.669,122.679", "RGB")


def test_a_mean_image_is_averaged(tmp_path):
    image = np.random.default_rng(1).uniform(-9, 9, (3, 16, 16)) + np.array([104, 117, 123])[:, None, None]
    np.save(tmp_path / "mean.npy", image)
    chosen = choose_pixels(str(tmp_path / "mean.npy"))
    np.testing.assert_allclose(chosen.convention.mean, image.mean((1, 2)), rtol=1e-6)
    assert chosen.mean_from == "channel means of mean.npy" and chosen.source.sha256 == sha256(tmp_path / "mean.npy")
    np.save(tmp_path / "mean.npy", image[::-1])
    reversed_order = choose_pixels(str(tmp_path / "mean.npy"), "RGB")
    np.testing.assert_allclose(reversed_order.convention.mean, image.mean((1, 2))[::-1], rtol=1e-6)
    with pytest.raises(DataError, match="look like RGB"):
        choose_pixels(str(tmp_path / "mean.npy"))


def test_a_file_that_is_not_there():
    with pytest.raises(UsageError, match=r"--mean no.npy: no such file, expected three numbers such as 104,117,123"):
        choose_pixels("no.npy")
