"""An autoencoder is exported with the encoder of its checkpoint, as an ordinary bundle that the commands run."""

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from deepsim.export.bundle import Options, export_bundle
from deepsim.export.sources import load_run
from deepsim.runtime.cli import main
from deepsim.runtime.errors import CheckpointError
from deepsim.runtime.images import read_image
from deepsim.runtime.inverter import Inverter
from deepsim.runtime.networks import ENCODERS
from deepsim.train import loop
from deepsim.train.checkpoints import load_checkpoint
from deepsim.train.distributed import World
from deepsim.train.models import build_models
from deepsim.train.networks import to_image_space
from deepsim.train.weights import read_weights
from tests.train.runs import tiny_run, write_photographs
from tests.train.test_tasks import AUTOENCODER, CODE, SMALL

CONFIG = AUTOENCODER.updated({"steps": 4, "checkpoint_every": 2, "lambda_adv": 0, "image_every": 4})


@pytest.fixture
def run(tmp_path, monkeypatch, request):
    """A run of four steps, with its settings and its outcome."""
    monkeypatch.setitem(ENCODERS, "small", SMALL)
    config = CONFIG.updated(request.param)
    outcome = loop.train(config, tiny_run(tmp_path / "run", write_photographs(tmp_path / "photos")))
    return config, outcome


@pytest.mark.parametrize("run", [CODE, {}], indirect=True, ids=["code", "norm1"])
def test_the_commands_reconstruct_what_training_does(tmp_path, run):
    config, outcome = run
    source = load_run(tmp_path / "run")
    learned = read_weights(outcome.checkpoint / "encoder.safetensors")
    for name, value in source.encoder_weights.items():
        np.testing.assert_array_equal(value, learned[name].numpy())
    manifest = export_bundle(source, tmp_path / "auto.deepsim", Options("onnx"))
    assert manifest.generator.layer == config.layer
    assert manifest.encoder.layers[-1].name == config.layer
    photos = source.photographs
    models = build_models(config, torch.device("cpu"), World())
    load_checkpoint(outcome.checkpoint, models)
    with Inverter(tmp_path / "auto.deepsim", backend="cpu") as inverter:
        code, found = inverter.encode(photos), inverter.reconstruct(photos)
    expected = models.encode(to_image_space(torch.from_numpy(photos))).numpy()
    np.testing.assert_allclose(code, expected, atol=1e-4 * np.abs(expected).max())
    difference = np.abs(found.astype(int) - loop.reconstruct(models, photos))
    assert difference.max() <= 1 and difference.mean() < 0.01
    arguments = ["reconstruct", tmp_path / "auto.deepsim", tmp_path / "photos/photo-0.png", "-o", tmp_path / "out"]
    result = CliRunner().invoke(main, [*map(str, arguments), "--backend", "cpu"])
    assert result.exit_code == 0, result.output
    (written,) = (tmp_path / "out").glob("*.png")
    np.testing.assert_array_equal(read_image(written), found[0])


@pytest.mark.parametrize("run", [CODE], indirect=True, ids=["code"])
def test_every_checkpoint_has_an_encoder_of_its_own(tmp_path, run):
    config, outcome = run
    first, last = load_run(outcome.checkpoint.with_name("step-00000002")), load_run(outcome.checkpoint)
    assert not np.array_equal(first.encoder_weights["latent.weight"], last.encoder_weights["latent.weight"])
    assert last.provenance["config"]["task"] == "autoencoder"
    (outcome.checkpoint / "encoder.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"step-00000004/encoder\.safetensors: no such file"):
        load_run(tmp_path / "run")
    config = json.loads((tmp_path / "run/config.json").read_text())
    (tmp_path / "run/config.json").write_text(json.dumps({**config, "task": "segmentation"}))
    with pytest.raises(CheckpointError, match=r"config\.json: task 'segmentation': unknown"):
        load_run(tmp_path / "run")
