"""What a run says before and after: every sentence from the settings that it is about."""

import json
import signal
from pathlib import Path

import pytest

pytest.importorskip("torch")

from deepsim.train.cli import Request
from deepsim.train.config import PRESETS
from deepsim.train.held_out import Asked, choose_images
from deepsim.train.loop import Outcome
from deepsim.train.narration import narrate, tell

CHECKPOINT = Path("runs/r/checkpoints/step-00000007")


def request(**changes):
    values = {"data": (), "dead_leaves": 0, "validation": (), "device": "cpu", "threads": 0, "workers": 0}
    return Request(Path("runs/r"), "never", "", **{**values, "quiet": False, "as_json": False, **changes})


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "Inverting caffenet fc6 (random weights, seed 0) on 30 procedural images (dead leaves), cpu, batch 64, "),
        ({"encoder_weights": "/some/where/c.pt"}, "Inverting caffenet fc6 (c.pt) on "),
        ({"steps": 30}, "30 steps; losses: image 2e-06, feature 0.01, adversarial 100. Run folder: runs/r"),
        ({"lambda_adv": 0}, "losses: image 2e-06, feature 0.01. Run folder"),
        ({"lambda_adv": 0}, "Validation: 8 procedural images (dead leaves), held out."),
        ({"zoom": 0.5, "lambda_img": 1}, "Settings that differ from the paper's: zoom 0.5.\n"),
        (
            {"task": "autoencoder", "layer": "latent", "latent": 64},
            "Learning an autoencoder from caffenet latent (beginning with random weights, seed 0) on ",
        ),
        ({"task": "autoencoder", "latent": 64}, "Settings that differ from the paper's: latent 64.\n"),
    ],
    ids=str,
)
def test_before_a_run(capsys, values, words):
    narrate(PRESETS["paper"].updated(values), request(), choose_images(Asked(leaves=30), 0), "cpu")
    told = capsys.readouterr()
    assert words in told.err and told.out == ""


def test_the_papers_settings_differ_in_nothing(capsys):
    narrate(PRESETS["paper"], request(), choose_images(Asked(leaves=30), 0), "cpu")
    assert "differ" not in capsys.readouterr().err


def test_after_a_run(capsys):
    tell(PRESETS["paper"], Outcome(7, CHECKPOINT, None, 90), request())
    told = capsys.readouterr()
    assert f"Trained 7 steps, saved {CHECKPOINT}" in told.err
    assert "Next:   deepsim-export runs/r --engine fp16 -o r.deepsim" in told.err and told.out == ""
    tell(PRESETS["paper"].updated({"minutes": 2}), Outcome(7, CHECKPOINT, None, 90), request())
    assert "Trained 7 steps in 1.5 of 2 minutes" in capsys.readouterr().err


def test_after_a_signal(capsys):
    tell(PRESETS["paper"], Outcome(7, CHECKPOINT, signal.SIGTERM, 90), request())
    told = capsys.readouterr().err
    assert f"Stopped by SIGTERM after step 7, saved {CHECKPOINT}" in told
    assert "Go on:  deepsim train -o runs/r --resume auto" in told and "Next" not in told


def test_json_alone_where_quiet_is_asked_for(capsys):
    tell(PRESETS["paper"], Outcome(7, CHECKPOINT, 15, 90.04), request(quiet=True, as_json=True))
    told = capsys.readouterr()
    expected = {"step": 7, "checkpoint": str(CHECKPOINT), "run": "runs/r", "signal": 15, "seconds": 90.0}
    assert json.loads(told.out) == expected and told.err == ""
