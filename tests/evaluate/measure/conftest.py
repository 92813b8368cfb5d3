"""A small bundle, photographs for it, and the command, run in this process."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from deepsim.runtime.cli import main
from deepsim.runtime.inverter import Inverter
from tests.bundles import photographs, write_bundle


@pytest.fixture(scope="session")
def mini(tmp_path_factory):
    for package in ("onnx", "safetensors", "torch"):
        pytest.importorskip(package)
    return write_bundle(tmp_path_factory.mktemp("mini"), "mini")


@pytest.fixture
def photos(tmp_path):
    """Seven photographs of 40 x 36 pixels."""
    folder = tmp_path / "photos"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 60, (7, 40, 36, 3))
    for number, pixels in enumerate(photographs(7)[:, ::5, ::6][:, :40, :36]):
        Image.fromarray((pixels * 0.7 + noise[number]).astype(np.uint8)).save(folder / f"p{number}.png")
    return folder


@pytest.fixture
def evaluate(mini, photos, tmp_path):
    """Run the command with the bundle; return the record that it wrote."""

    def run(*options, bundles=(mini,), code=0, output="out", photos=photos):
        where = ["--photos", photos, "-o", tmp_path / output, "--backend", "cpu", "--resamples", 50]
        result = CliRunner().invoke(main, [*map(str, ["evaluate", *bundles, *where, *options])])
        assert result.exit_code == code, (result.output, result.exception)
        return json.loads((tmp_path / output / "evaluation.json").read_text()) if code == 0 else result.stderr

    return run


@pytest.fixture
def reconstructed(mini, photos):
    """Return the photographs as the encoder sees them, their reconstructions, and the features of both."""
    from deepsim.runtime.images import prepare_batch

    with Inverter(mini, "cpu") as inverter:
        pixels = prepare_batch(sorted(photos.iterdir()), inverter.geometry.framing)
        pictures = inverter.reconstruct(pixels)
        return pixels, pictures, inverter.encode(pixels), inverter.encode(pictures)
