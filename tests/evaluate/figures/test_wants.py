from __future__ import annotations

import shlex
from dataclasses import replace

import pytest

from deepsim.evaluate.figures import selection, wants
from deepsim.evaluate.figures.facts import facts_of_training
from deepsim.train.cli import train
from deepsim.train.config import OBJECTIVES, PRESETS, TrainConfig, read_config
from deepsim.train.optimize.features_cli import features
from tests.evaluate.figures.figure_fakes import IMAGE, SETTINGS, VAE, member, write_run

CHOICES = {
    "figure 1": (selection.ablation, wants.ablation),
    "figure 3": (selection.layers, wants.layers),
    "figure 4": (selection.baselines, wants.baselines),
    "figure 5": (selection.reencoding, wants.inversion),
    "figure 6": (selection.comparators, wants.comparators),
    "figure 7": (selection.interpolation, wants.inversion),
    "figure 8": (selection.samples, wants.samples),
}


def want(figure, *members):
    choose, ask = CHOICES[figure]
    return ask(choose(members), members)


def trained(line):
    """Return the settings that a command trains with, as the command itself reads them."""
    program, name, *words = shlex.split(line)
    assert (program, name) == ("deepsim", "train")
    given = dict(train.make_context("train", words).params)
    base = PRESETS[given.pop("preset")]
    file = given.pop("config_file")
    known = {name: value for name, value in given.items() if value is not None and hasattr(TrainConfig, name)}
    return base.updated({**(read_config(file) if file else {}), **known})


def test_the_commands_of_figure_1_train_its_objectives():
    found = [trained(line) for line in want("figure 1").commands]
    assert [
        {name: getattr(config, name) for name in ("lambda_img", "lambda_feat", "lambda_adv")} for config in found
    ] == list(OBJECTIVES.values())
    assert {config.layer for config in found} == {"fc6"}


def test_commands_keep_the_settings_of_the_run_that_is_there(tmp_path):
    settings = {"layer": "norm2", "comparator": "norm2", "width": 0.5, "lambda_feat": 2e-3, "lambda_adv": 0.0}
    bundle = replace(member(**settings), settings={**SETTINGS, **settings, "milestones": [10, 20], "mirror": False})
    run = replace(bundle, settings={}, config=write_run(tmp_path / "run", **settings) / "config.json")
    for each in (bundle, run):
        found = [trained(line) for line in want("figure 1", each).commands]
        assert [(config.lambda_img, config.lambda_feat, config.lambda_adv) for config in found] == [
            (2e-6, 0, 0),
            (2e-6, 0, 100),
            (2e-6, 2e-3, 0),
            (2e-6, 2e-3, 100),
        ]
        assert {(config.layer, config.comparator, config.width) for config in found} == {("norm2", "norm2", 0.5)}
    assert (found[0].encoder_weights, trained(want("figure 1", bundle).commands[0]).milestones) == (
        "caffenet.safetensors",
        (10, 20),
    )


def test_weights_are_those_of_the_run_that_has_them():
    found = want("figure 1", member("a", **IMAGE), member("b", lambda_feat=0.5))
    assert [(trained(line).lambda_feat, trained(line).lambda_adv) for line in found.commands] == [(0, 100), (0.5, 0)]


@pytest.mark.parametrize("figure", CHOICES)
def test_what_a_figures_commands_make_draws_the_figure(figure):
    """Train as told, in thought: the runs that come of it are those that the figure was missing."""
    made = []
    for line in want(figure).commands:
        if " train " in line:
            settings = {name: getattr(trained(line), name) for name in TrainConfig.__dataclass_fields__}
            facts = facts_of_training(settings, 1000)
            made.append(replace(member(line), facts=facts, has_prior=facts.task == "vae"))
    assert CHOICES[figure][0](made)


def test_whole_figures_want_nothing():
    assert want("figure 5", member()) is None and want("figure 7", member()) is None
    assert want("figure 3", member(), member(layer="fc7")) is None
    assert want("figure 6", member("a"), member("b", comparator="fc6")) is None
    assert want("figure 8", member("a", **VAE), member("b", **VAE, **IMAGE)) is None
    objectives = [member(str(number), **settings) for number, settings in enumerate(OBJECTIVES.values())]
    assert want("figure 1", *objectives) is None


def test_only_what_a_layer_allows_is_asked_for():
    assert "Dosovitskiy" in want("figure 4", member()).words
    assert "Dosovitskiy" not in want("figure 4", member(layer="norm2", comparator="norm2")).words
    (line,) = want("figure 3", member(encoder="vgg16", layer="fc6")).commands
    assert "--layer=LAYER" in line
    module = member(encoder="timm:resnet18@layer2", layer="layer2", comparator="layer2")
    (line,) = want("figure 3", module).commands
    config = trained(line.replace("LAYER", "layer3"))
    assert (config.encoder, config.layer, config.comparator) == ("timm:resnet18@layer3", "layer3", "layer3")
    assert want("figure 4", module).words.endswith("image loss alone")
    lines = want("figure 3", member(layer="norm2", comparator="norm2")).commands
    assert {trained(line).comparator for line in lines} == {"pool5", "fc6", "fc7", "fc8"}


def test_pictures_of_mahendran_and_vedaldi_are_made_from_the_bundles_features():
    line = want("figure 4", member("mine")).commands[-1]
    words = shlex.split(line)
    assert words[:3] == ["deepsim", "optimize", "features"] and "mine.deepsim" in words
    given = features.make_context("features", words[3:]).params
    assert (given["preset"], given["generator"], given["layers"]) == ("mv2015", "pixels", "fc6")
