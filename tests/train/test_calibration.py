"""The weight of the feature loss of comparators other than the paper's, and what a run keeps of it."""

import json

import pytest
import torch

from deepsim.runtime.errors import CheckpointError, NumericError
from deepsim.train import calibration, loop
from deepsim.train.config import TrainConfig
from deepsim.train.distributed import World
from deepsim.train.models import build_models
from deepsim.train.networks import scored, to_image_space
from tests.train.runs import TINY, tiny_run, write_photographs
from tests.train.test_baseline_2015 import photos_of

CONFIG = TrainConfig().updated(
    {**json.loads(TINY.to_json()), "lambda_adv": 0, "calibrate_feat": True, "steps": 2, "checkpoint_every": 1}
)


def models_of(**values):
    return build_models(CONFIG.updated(values), torch.device("cpu"), World())


def gradient_of(models, photos):
    """Return the norm of the weighted feature term's gradient at generated images, written out."""
    real = to_image_space(photos)
    image = scored(models.generator.module(models.encode(real)), models.geometry).detach().requires_grad_()
    wanted, found = models.compare(real).detach(), models.compare(image)
    (models.config.lambda_feat * (found - wanted).square().sum() / (2 * len(photos))).backward()
    return float(image.grad.norm())


def test_the_term_pulls_as_strongly_as_that_of_caffenets_pool5(monkeypatch, tmp_path):
    monkeypatch.setattr(calibration, "BATCHES", 1)
    photos = photos_of(2)
    norm1 = models_of(comparator="norm1")
    norm1.config = calibration.calibrated(norm1, [photos], tmp_path, None)
    assert norm1.config.lambda_feat != CONFIG.lambda_feat
    pool5 = models_of(comparator="pool5")
    assert gradient_of(norm1, photos) == pytest.approx(gradient_of(pool5, photos), rel=1e-4)
    found = json.loads((tmp_path / "calibration.json").read_text())
    assert found["asked"] == 0.01 and found["lambda_feat"] == norm1.config.lambda_feat
    assert found["reference"] == "caffenet pool5 with random weights, seed 0"
    again = calibration.calibrated(pool5, [photos], tmp_path / "other", None)
    assert again.lambda_feat == pytest.approx(0.01, rel=1e-3)  # frozen features and the module round differently


def test_nothing_is_calibrated_unless_it_is_asked_for_and_there_is_a_term(tmp_path):
    for values in ({"calibrate_feat": False}, {"lambda_feat": 0}):
        models = models_of(**values)
        assert calibration.calibrated(models, [], tmp_path, None) is models.config
    assert not list(tmp_path.iterdir())


def test_a_term_without_a_gradient_is_refused(tmp_path):
    models = models_of()
    models.compare = lambda images: (images * 0).sum((2, 3))
    with pytest.raises(NumericError, match="comparator: its feature loss has a gradient of norm 0"):
        calibration.calibrate(models, [photos_of(2)])


def test_a_resumed_run_keeps_the_weight_that_was_found(tmp_path):
    photos = write_photographs(tmp_path / "photos")
    loop.train(CONFIG, tiny_run(tmp_path / "run", photos))
    found = json.loads((tmp_path / "run/calibration.json").read_text())
    settings = json.loads((tmp_path / "run/config.json").read_text())
    assert settings["lambda_feat"] == found["lambda_feat"] != 0.01
    before = (tmp_path / "run/calibration.json").read_bytes()
    longer = TrainConfig().updated({**settings, "steps": 3})
    loop.train(longer, tiny_run(tmp_path / "run", photos, resume="auto"))
    assert (tmp_path / "run/calibration.json").read_bytes() == before
    assert json.loads((tmp_path / "run/config.json").read_text())["lambda_feat"] == found["lambda_feat"]
    branch = tiny_run(tmp_path / "branch", photos, resume=str(tmp_path / "run/checkpoints/step-00000002"))
    loop.train(longer, branch)  # another folder has the calibration too, so that resuming there finds it
    assert (tmp_path / "branch/calibration.json").read_bytes() == before


def test_a_run_that_was_killed_before_its_settings_were_written_has_the_weight_that_was_found(tmp_path):
    models = models_of()
    found = calibration.calibrated(models, [photos_of(2)], tmp_path, None).lambda_feat
    assert calibration.calibrated(models, [], tmp_path, tmp_path).lambda_feat == found != 0.01
    (tmp_path / "calibration.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"calibration.json: not readable"):
        calibration.calibrated(models, [], tmp_path, tmp_path)


@pytest.mark.parametrize("change", [{}, {"task": "vae", "layer": "latent", "latent": 4, "encoder_width": 1 / 8}])
def test_networks_in_bf16_are_calibrated_too(monkeypatch, tmp_path, change):
    monkeypatch.setattr(calibration, "BATCHES", 1)
    models = models_of(precision="bf16", **change)
    found = calibration.calibrated(models, [photos_of(2)], tmp_path, None)
    assert 0 < found.lambda_feat < float("inf")
