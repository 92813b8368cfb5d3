"""A variational autoencoder becomes an ordinary bundle with a prior: verified on draws too, with or without encoder."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from deepsim.export import bundle as export_module
from deepsim.export.bundle import Options, export_bundle
from deepsim.export.sources import load_run
from deepsim.export.telling import following
from deepsim.export.verify import Reference
from deepsim.runtime.cli import main
from deepsim.runtime.images import read_image
from deepsim.runtime.inverter import Inverter
from deepsim.runtime.networks import ENCODERS
from deepsim.runtime.prior import draw_codes
from deepsim.train import loop
from deepsim.train.checkpoints import load_checkpoint
from deepsim.train.distributed import World
from deepsim.train.models import build_models
from deepsim.train.networks import to_image_space
from tests.train.runs import tiny_run, write_photographs
from tests.train.test_tasks import AUTOENCODER, CODE, SMALL

CHANGES = {"task": "vae", **CODE, "width": 1 / 64, "steps": 2, "lambda_adv": 0, "encoder_width": 0.5}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two steps: its folder, its settings and its outcome."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ENCODERS, "small", SMALL)
        folder = tmp_path_factory.mktemp("vae")
        config = AUTOENCODER.updated(CHANGES)
        yield folder / "run", config, loop.train(config, tiny_run(folder / "run", write_photographs(folder / "photos")))


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "vae.deepsim"
    return path, export_bundle(load_run(run[0]), path, Options("onnx"))


def test_it_encodes_the_mean_and_decodes_as_training_does(run, exported):
    _, config, outcome = run
    path, manifest = exported
    assert manifest.prior == "standard normal" and manifest.layer == "latent" and manifest.feature_shape == (6,)
    models = build_models(config, torch.device("cpu"), World())
    load_checkpoint(outcome.checkpoint, models)
    photos = load_run(run[0]).photographs
    with Inverter(path, "cpu") as inverter:
        mean = inverter.encode(photos)
        found = inverter.reconstruct(photos)
    expected = models.encode(to_image_space(torch.from_numpy(photos))).numpy()
    np.testing.assert_allclose(mean, expected, atol=1e-4 * np.abs(expected).max())
    difference = np.abs(found.astype(int) - loop.reconstruct(models, photos))
    assert difference.max() <= 1 and difference.mean() < 0.01
    weights = json.loads((path / "manifest.json").read_text())["encoder"]["layers"]
    assert [layer["name"] for layer in weights][-1] == "latent" and "log_variance" not in str(weights)


def test_the_decoder_alone_is_sampled_by_the_command(run, tmp_path):
    path = tmp_path / "decoder.deepsim"
    arguments = ["export", run[0], "--engine", "onnx", "--without-encoder", "-o", path]
    result = CliRunner().invoke(main, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    assert f"Next:  deepsim sample {path} -o samples" in result.stderr
    result = CliRunner().invoke(main, ["sample", str(path), "-o", str(tmp_path / "s"), "--count", "2"])
    assert result.exit_code == 0, result.output
    with Inverter(path, "cpu") as inverter:
        assert inverter.encoder_backend is None
        np.testing.assert_array_equal(read_image(tmp_path / "s/sample-000001.png"), inverter.sample(2)[1])
    assert "deepsim sample" in (path / "README.md").read_text()


def test_the_card_and_the_next_command(exported):
    path, manifest = exported
    card = (path / "README.md").read_text()
    assert "follow a standard normal distribution" in card and "gives the mean code of a photograph" in card
    assert following(manifest, path) == f"deepsim sample {path} -o samples"
    assert following(replace(manifest, prior=None), path).startswith("deepsim reconstruct")


def test_the_generator_is_checked_on_draws_too(run, monkeypatch):
    source = load_run(run[0])
    images = source.photographs[:2]
    reference = Reference(source, images, frozenset(), frozenset())
    np.testing.assert_array_equal(reference.codes[0::2], reference.features)
    np.testing.assert_array_equal(reference.codes[1::2], draw_codes((6,), range(2)))
    assert len(reference.pixels) == 4
    plain = Reference(replace(source, prior=None), images, frozenset(), frozenset())
    np.testing.assert_array_equal(plain.codes, reference.features)


def test_ranges_are_scanned_on_draws_too(run, tmp_path, monkeypatch):
    """A layer that half cannot hold may show on draws alone."""
    seen, scan = [], export_module.scan_ranges

    def scan_and_keep(layers, x, weights):
        seen.append(x.numpy())
        return scan(layers, x, weights)

    def stop(self, precision, reference):
        raise KeyboardInterrupt

    monkeypatch.setattr(export_module, "scan_ranges", scan_and_keep)
    monkeypatch.setattr(export_module, "choose_target", lambda target: "fake")
    monkeypatch.setattr(export_module._Export, "_verified", stop)
    with pytest.raises(KeyboardInterrupt):
        export_bundle(load_run(run[0]), tmp_path / "half.deepsim", Options("fp16"))
    codes = seen[-1]
    np.testing.assert_array_equal(codes[1::2], draw_codes((6,), range(len(codes) // 2)))
