"""The baseline of Dosovitskiy & Brox 2015: images smaller than the photographs, from training to a bundle."""

import json

import numpy as np
import pytest
import torch
from torch.nn import functional

from deepsim.export.bundle import Options, export_bundle
from deepsim.export.sources import load_run
from deepsim.runtime.errors import UsageError
from deepsim.runtime.inverter import Inverter
from deepsim.train import loop
from deepsim.train.checkpoints import load_checkpoint
from deepsim.train.config import PRESETS, TrainConfig
from deepsim.train.distributed import World
from deepsim.train.models import build_models
from deepsim.train.networks import to_image_space
from deepsim.train.objective import used_terms
from deepsim.train.step import train_step
from tests.train.runs import TINY, tiny_run, write_photographs

SMALL = {**json.loads(TINY.to_json()), "generator": "dosovitskiy2015", "layer": "pool5", "comparator": "pool5"}
ALONE = TrainConfig().updated({**SMALL, "lambda_feat": 0, "lambda_adv": 0, "lambda_img": 4e-5, "steps": 4})


def photos_of(count):
    rng = np.random.default_rng(1)
    coarse = rng.integers(0, 256, (count, 12, 12, 3), np.uint8)
    return torch.from_numpy(coarse.repeat(20, 1).repeat(20, 2)[:, :227, :227].copy())


def test_the_preset_is_their_network_and_their_error_alone():
    preset = PRESETS["dosovitskiy2015"]
    assert preset.generator == "dosovitskiy2015"
    assert [term.name for term in used_terms(preset)] == ["image_loss"]
    with pytest.raises(UsageError, match="layer conv4: features of shape"):
        preset.updated({"layer": "conv4"})


def test_the_target_is_the_photograph_at_the_size_of_the_image():
    models = build_models(ALONE, torch.device("cpu"), World())
    assert models.comparator is None and models.discriminator is None
    photos = photos_of(2)
    real = to_image_space(photos)
    target = functional.interpolate(real, (192, 192), mode="bilinear", antialias=True)
    with torch.no_grad():
        image = models.generator.module(models.encode(real))
    assert image.shape == (2, 3, 192, 192)
    wanted = float((image - target).square().sum() / 4)
    assert train_step(models, photos)["image_loss"] == pytest.approx(wanted, rel=1e-5)


def test_comparator_and_discriminator_see_images_as_large_as_photographs():
    models = build_models(TrainConfig().updated({**SMALL, "lambda_img": 0}), torch.device("cpu"), World())
    photos = photos_of(2)
    real = to_image_space(photos)
    with torch.no_grad():
        image = models.generator.module(models.encode(real))
        seen = functional.interpolate(image, (227, 227), mode="bilinear", antialias=True)
        wanted = float((models.compare(seen) - models.compare(real)).square().sum() / 4)
    losses = train_step(models, photos)
    assert losses["feature_loss"] == pytest.approx(wanted, rel=1e-4)
    assert losses["adversarial_loss"] > 0 and losses["image_loss"] is None


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_16_bits_train_on_all_losses(precision):
    config = TrainConfig().updated({**SMALL, "lambda_img": 4e-5, "precision": precision})
    losses = train_step(build_models(config, torch.device("cpu"), World()), photos_of(2))
    assert all(losses[f"{name}_loss"] > 0 for name in ("image", "feature", "adversarial"))


def test_what_was_trained_is_exported_and_gives_images_as_large_as_photographs(tmp_path):
    run = tiny_run(tmp_path / "run", write_photographs(tmp_path / "photos"))
    outcome = loop.train(ALONE, run)
    source = load_run(tmp_path / "run")
    manifest = export_bundle(source, tmp_path / "early.deepsim", Options("onnx"))
    assert manifest.geometry.to_json()["generated"] == {"side": 192, "offset": 0}
    assert "enlarged to 227 x 227" in (tmp_path / "early.deepsim/README.md").read_text()
    models = build_models(ALONE, torch.device("cpu"), World())
    load_checkpoint(outcome.checkpoint, models)
    wanted = loop.reconstruct(models, source.photographs)
    with Inverter(tmp_path / "early.deepsim", backend="cpu") as inverter:
        found = inverter.reconstruct(source.photographs)
        assert inverter.decode(inverter.encode(source.photographs), full=True).shape[1:] == (192, 192, 3)
    assert found.shape == wanted.shape == source.photographs.shape
    difference = np.abs(found.astype(int) - wanted)
    assert difference.max() <= 1 and difference.mean() < 0.01 and wanted.std() > 1
