from __future__ import annotations

import pytest

from deepsim.evaluate.figures.facts import Comparator, Network, facts_of_bundle, facts_of_pictures, facts_of_training
from tests.evaluate.figures.figure_fakes import IMAGE, SETTINGS, VAE, provenance


def facts(step=1000, **changes):
    return facts_of_training({**SETTINGS, **changes}, step)


def test_settings_of_a_training_are_read():
    found = facts()
    assert (found.layer, found.task, found.generator, found.width) == ("fc6", "inversion", "deepsim", 1.0)
    assert found.encoder == Network("caffenet", "caffenet.safetensors")
    assert found.terms == {"image", "feature", "adversarial"}
    assert found.trained == 64_000 and found.steps == 1000
    assert dict(found.weights) == {"image": 2e-6, "feature": 0.01, "adversarial": 100.0}


def test_old_settings_without_newer_ones_are_read():
    old = {key: SETTINGS[key] for key in ("layer", "encoder", "comparator", "lambda_img", "lambda_feat", "lambda_adv")}
    found = facts_of_training(old, None)
    assert (found.task, found.generator, found.trained, found.steps) == ("inversion", "deepsim", 0, None)
    assert found.encoder == Network("caffenet", "random, seed 0")


@pytest.mark.parametrize(
    ("changes", "expected", "title"),
    [
        ({}, Comparator("pool5"), "CaffeNet pool5"),
        ({"encoder_weights": "", "seed": 4}, Comparator("pool5"), "random CaffeNet pool5"),
        (
            {"comparator_seed": 3},
            Comparator("pool5", Network("caffenet", "random, seed 3")),
            "random CaffeNet pool5",
        ),
        (
            {"comparator_weights": "/models/v.pt", "comparator": "fc6"},
            Comparator("fc6", Network("caffenet", "v.pt")),
            "CaffeNet fc6",
        ),
        (
            {"comparator_network": "timm:resnet18@layer2", "comparator": "layer2", "comparator_weights": "r.pt"},
            Comparator("layer2", Network("timm:resnet18", "r.pt")),
            "timm:resnet18 layer2",
        ),
        (IMAGE, None, None),  # no feature loss, no comparator
    ],
)
def test_comparators(changes, expected, title):
    found = facts(**changes)
    assert found.comparator == expected
    assert title is None or found.comparator.title(found.encoder) == title


@pytest.mark.parametrize(
    ("changes", "called"),
    [
        ({}, "DeePSiM, comparator CaffeNet pool5"),
        (IMAGE, "DeePSiM, image loss alone"),
        ({"lambda_feat": 0}, "DeePSiM, image and adversarial loss"),
        ({"lambda_adv": 0}, "DeePSiM, comparator CaffeNet pool5, image and feature loss"),
        ({"generator": "dosovitskiy2015", **IMAGE}, "Dosovitskiy & Brox 2015"),
    ],
)
def test_methods_are_named_after_what_they_are(changes, called):
    assert facts(**changes).called == called


def test_the_kl_term_is_no_way_to_compare_images():
    assert facts(**VAE, **IMAGE).terms == {"image"}


def test_a_reference_to_a_module_is_told_from_its_layer():
    found = facts(encoder="timm:resnet18@layer2", layer="layer2", comparator="layer2")
    assert found.encoder == Network("timm:resnet18", "caffenet.safetensors") and found.compares_own_layer


@pytest.mark.parametrize(
    ("recorded", "weights"),
    [
        ({"from": "published weights"}, "published"),
        ({"from": "random weights", "seed": 5}, "random, seed 5"),
        ({}, "not recorded"),
    ],
)
def test_bundles_of_no_training_record_no_objective(recorded, weights):
    found = facts_of_bundle("fc6", "caffenet", recorded)
    assert (found.terms, found.comparator, found.encoder) == (None, None, Network("caffenet", weights))
    assert "objective not recorded" in found.called


def test_a_bundle_of_a_training_has_its_facts():
    assert facts_of_bundle("fc6", "caffenet", provenance(step=1000)) == facts()


@pytest.mark.parametrize(
    ("layer", "settings", "expected"),
    [
        (None, {"preset": "mv2015", "layers": ["fc6"], "encoder": "caffenet abc"}, ("fc6", "Mahendran & Vedaldi 2015")),
        ("fc7", {"preset": "mv2016", "layers": ["fc6"]}, ("fc7", "Mahendran & Vedaldi 2016")),
        (None, {"preset": "mv2015", "layers": ["fc6", "fc7"]}, (None, "Mahendran & Vedaldi 2015")),
        (None, {"preset": "icnn-gd", "layers": ["fc6"]}, ("fc6", None)),
        ("fc6", {}, ("fc6", None)),
    ],
)
def test_pictures_tell_what_was_recorded_beside_them(layer, settings, expected):
    found = facts_of_pictures(layer, settings)
    assert (found.layer, found.method) == expected
