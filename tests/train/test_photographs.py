"""Sample photographs: found inside the packages without importing them, split, written whole or not at all."""

import importlib.util
import sys

import numpy as np
import pytest

from deepsim.runtime.errors import DataError, DeviceError, UsageError
from deepsim.runtime.images import read_image, save_png
from deepsim.train import photographs


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Return a folder of stand-ins for the two packages that fail when they are imported."""
    for chosen in (photographs.TRAIN, photographs.HELD_OUT):
        for module, names in chosen.items():
            folder = tmp_path / "site" / module / {"skimage": "data", "sklearn": "datasets/images"}[module]
            for number, name in enumerate(names):
                save_png(np.full((20, 30 + number, 3), number, np.uint8), folder / name)
            (tmp_path / "site" / module / "__init__.py").write_text("raise AssertionError('imported')\n")
    for module in ("skimage", "sklearn"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.syspath_prepend(tmp_path / "site")
    return tmp_path / "site"


def test_split(packages, tmp_path):
    photographs.write_photographs(tmp_path / "photos")
    train = {path.name for path in (tmp_path / "photos/train").iterdir()}
    held_out = {path.name for path in (tmp_path / "photos/held-out").iterdir()}
    assert len(train) == 13
    assert held_out == {"camera.png", "chelsea.png", "coffee.png", "rocket.png"}
    assert not train & held_out
    assert {"motorcycle_left.png", "motorcycle_right.png"} <= train  # a stereo pair stays on one side
    assert read_image(tmp_path / "photos/train/brick.png").shape == (20, 31, 3)
    assert read_image(tmp_path / "photos/held-out/coffee.png").shape == (20, 20, 3)


def test_central_square():
    rgb = np.arange(3 * 7 * 3, dtype=np.uint8).reshape(3, 7, 3)
    assert np.array_equal(photographs.central_square(rgb), rgb[:, 2:5])
    assert np.array_equal(photographs.central_square(rgb.swapaxes(0, 1)), rgb.swapaxes(0, 1)[2:5])


def test_nothing_is_written_when_a_photograph_is_missing(packages, tmp_path):
    (packages / "skimage/data/rocket.jpg").unlink()
    with pytest.raises(DataError, match=r"rocket\.jpg: no such photograph"):
        photographs.write_photographs(tmp_path / "photos")
    assert not (tmp_path / "photos").exists()


def test_an_existing_folder_is_kept(packages, tmp_path):
    (tmp_path / "photos").mkdir()
    with pytest.raises(UsageError, match="exists already"):
        photographs.write_photographs(tmp_path / "photos")
    photographs.write_photographs(tmp_path / "photos", overwrite=True)
    assert (tmp_path / "photos/train/moon.png").exists()


@pytest.mark.parametrize(("module", "package"), [("skimage", "scikit-image"), ("sklearn", "scikit-learn")])
def test_a_missing_package_is_named(packages, tmp_path, monkeypatch, module, package):
    find = importlib.util.find_spec
    monkeypatch.setattr(photographs, "find_spec", lambda name: None if name == module else find(name))
    with pytest.raises(DeviceError, match=rf"{package}: not installed, this needs deepsim\[demo\]"):
        photographs.write_photographs(tmp_path / "photos")


def test_the_installed_packages_hold_the_photographs():
    for module in ("skimage", "sklearn"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")
    assert len(photographs.files(photographs.TRAIN)) == 13
    assert len(photographs.files(photographs.HELD_OUT)) == 4
