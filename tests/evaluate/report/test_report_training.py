"""The section on training follows the records of the objective: a term that is added there is drawn and told here."""

import json
import re
from types import SimpleNamespace

from deepsim.evaluate.report.page import render_section
from deepsim.evaluate.report.sections_limits import _about_encoder
from deepsim.evaluate.report.sections_training import panels
from deepsim.evaluate.report.training_run import TrainingRun
from deepsim.train import objective
from tests.evaluate.report.report_fakes import write_run

TOY = objective.Term("total_variation_loss", "lambda_tv", lambda made: made.fake.sum())


def page_of(run):
    content = SimpleNamespace(run=TrainingRun.open(run), manifest=SimpleNamespace(provenance={}))
    return str(render_section("training", content))


def test_an_added_loss_has_its_panel_and_its_weight(tmp_path, monkeypatch):
    run = write_run(tmp_path / "run", lambda_tv=0.25)
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    text = "".join(json.dumps({**line, "total_variation_loss": 3 / line["step"]}) + "\n" for line in lines)
    (run / "log.jsonl").write_text(text)
    assert "Total variation" not in page_of(run)
    monkeypatch.setattr(objective, "TERMS", (*objective.TERMS, TOY))
    page = page_of(run)
    assert re.search(r"Total variation loss: 1\.50* at the start, 0\.0750* at the end", page)
    assert "\u03bb total variation" in page and "0.25" in page


def test_an_unused_loss_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(objective, "TERMS", (*objective.TERMS, TOY))
    page = page_of(write_run(tmp_path / "run", lambda_tv=0, lambda_adv=0))
    assert "Not used in this run: lambda_adv, lambda_tv are 0." in page


def test_the_panels_of_the_papers_losses():
    assert panels()[:5] == [
        ("image_loss", "Image loss", True),
        ("feature_loss", "Feature loss", True),
        ("adversarial_loss", "Adversarial loss", True),
        ("kl_loss", "KL loss", True),
        ("discriminator_loss", "Discriminator loss", True),
    ]


def test_random_weights_of_an_encoder_are_told_and_no_others():
    content, begun = SimpleNamespace(encoder="CaffeNet"), {"encoder_weights": "", "seed": 3, "encoder": "caffenet"}
    random = [begun, {**begun, "task": "inversion"}, {**begun, "encoder": "timm:resnet18@layer1"}]
    assert all("random (seed 3)" in str(_about_encoder(config, content)) for config in random)
    known = [{"task": "autoencoder"}, {"encoder_weights": "a.pt"}, {"encoder": "package.module:build@layer"}]
    assert all(_about_encoder({**begun, **change}, content) == [] for change in known)
