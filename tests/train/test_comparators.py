"""Comparators that are another network than the encoder, by table, module or bundle, whatever side each takes."""

import json

import pytest
import torch
from click.testing import CliRunner
from torch.nn import functional

from deepsim.runtime.errors import CheckpointError, UsageError
from deepsim.runtime.networks import CAFFENET
from deepsim.train import cli, loop
from deepsim.train.config import OBJECTIVES, PRESETS, TrainConfig
from deepsim.train.distributed import World
from deepsim.train.encoders import load_encoder, random_encoder
from deepsim.train.models import build_models
from deepsim.train.module_encoders import build_module_encoder
from deepsim.train.module_references import parse
from deepsim.train.networks import to_image_space
from deepsim.train.step import train_step
from deepsim.train.weights import write_weights
from tests.bundles import random_weights, write_bundle
from tests.train.modules import Net, stirred
from tests.train.runs import TINY, tiny_run, write_photographs
from tests.train.test_baseline_2015 import photos_of

MODULE = "tests.train.modules:net@conv2"  # takes 32 pixels, RGB
CONFIG = TrainConfig().updated(
    {**json.loads(TINY.to_json()), "lambda_adv": 0, "lambda_feat": 1e-3, "steps": 2, "checkpoint_every": 1}
)


def models_of(**values):
    return build_models(CONFIG.updated(values), torch.device("cpu"), World())


def test_a_module_compares_for_a_table_with_its_own_pixels_and_side(tmp_path):
    write_weights(tmp_path / "net.safetensors", stirred(Net()).state_dict())
    models = models_of(comparator_network=MODULE, comparator_weights=str(tmp_path / "net.safetensors"))
    assert models.config.comparator == "conv2" and models.geometry.side == 227
    photos = photos_of(2)
    real = to_image_space(photos)
    alone = build_module_encoder(parse(MODULE), weights=tmp_path / "net.safetensors")
    seen = functional.interpolate(real, (32, 32), mode="bilinear", antialias=True)
    with torch.no_grad():
        wanted = alone(seen)
    torch.testing.assert_close(models.targets(real)[1], wanted)
    image = (real * 0.9).requires_grad_()
    models.compare(image).sum().backward()
    assert image.grad.abs().sum() > 0
    assert train_step(models, photos)["feature_loss"] > 0


def test_a_table_compares_for_a_module():
    models = models_of(encoder=MODULE, comparator_network="caffenet", comparator="norm1", comparator_seed=7)
    assert models.geometry.side == 32 and models.config.layer == "conv2"
    real = to_image_space(photos_of(2)[:, :32, :32])
    alone = random_encoder(CAFFENET, "norm1", 7)
    seen = functional.interpolate(real, (227, 227), mode="bilinear", antialias=True)
    with torch.no_grad():
        torch.testing.assert_close(models.targets(real)[1], alone(seen))


def test_a_bundle_gives_its_encoders_weights_and_another_network_is_refused(tmp_path):
    pytest.importorskip("onnx")
    bundle = write_bundle(tmp_path, "norm2")
    wanted, _ = random_weights("norm2")
    models = models_of(comparator_weights=str(bundle))
    assert models.comparator is not models.encoder
    for name, value in models.comparator.state_dict().items():
        torch.testing.assert_close(value, torch.from_numpy(wanted[name]))
    with pytest.raises(CheckpointError, match="its encoder is caffenet, expected caffenet up to conv3, with the same"):
        load_encoder(CAFFENET, "conv3", bundle)
    with pytest.raises(CheckpointError, match=r"net.caffemodel: .caffemodel, expected .* deepsim import"):
        (tmp_path / "net.caffemodel").touch()
        load_encoder(CAFFENET, "conv1", tmp_path / "net.caffemodel")


def test_a_resumed_run_has_its_own_comparator(tmp_path):
    weights = tmp_path / "net.safetensors"
    write_weights(weights, stirred(Net()).state_dict())
    photos = write_photographs(tmp_path / "photos")
    config = CONFIG.updated({"comparator_network": MODULE, "comparator_weights": str(weights), "steps": 3})
    loop.train(config, tiny_run(tmp_path / "whole", photos))
    loop.train(config.updated({"steps": 2}), tiny_run(tmp_path / "parts", photos))
    weights.unlink()
    loop.train(config, tiny_run(tmp_path / "parts", photos, resume="auto"))
    whole, parts = (tmp_path / name / "checkpoints/step-00000003/generator.safetensors" for name in ("whole", "parts"))
    assert whole.read_bytes() == parts.read_bytes()


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"comparator_network": "caffenet", "comparator": "pool9"}, "caffenet: no layer 'pool9'"),
        ({"comparator_network": "vgg"}, "encoder 'vgg': unknown"),
        ({"comparator_network": MODULE, "comparator": "pool5"}, "comparator: 'pool5', but comparator_network names"),
    ],
    ids=str,
)
def test_comparators_that_are_none_are_refused(values, text):
    with pytest.raises(UsageError, match=text):
        CONFIG.updated(values)


def test_an_objective_is_figure_1s_with_the_papers_weights(tmp_path, monkeypatch):
    paper = PRESETS["paper"]
    full = {name: getattr(paper, name) for name in ("lambda_img", "lambda_adv", "lambda_feat")}
    assert OBJECTIVES["full"] == full
    assert OBJECTIVES["image"] == {**full, "lambda_adv": 0, "lambda_feat": 0}
    assert OBJECTIVES["image+adv"] == {**full, "lambda_feat": 0}
    assert OBJECTIVES["image+feat"] == {**full, "lambda_adv": 0}
    photos = write_photographs(tmp_path / "photos", 2)
    options = ["--preset", "tiny", "--width", "0.015625", "--steps", "1", "--data", str(photos), "--quiet"]
    asked = ["--objective", "image", "--lambda-img", "1e-5", "-o", str(tmp_path / "run")]
    result = CliRunner().invoke(cli.train, [*options, *asked])
    assert result.exit_code == 0, result.output
    settings = json.loads((tmp_path / "run/config.json").read_text())
    assert (settings["lambda_img"], settings["lambda_adv"], settings["lambda_feat"]) == (1e-5, 0, 0)
