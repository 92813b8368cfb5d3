from __future__ import annotations

from pathlib import Path

import pytest

from deepsim.evaluate.figures import selection
from deepsim.evaluate.figures.facts import Facts, Network
from deepsim.evaluate.figures.members import Member
from tests.evaluate.figures.figure_fakes import IMAGE, VAE, member

FULL = member("full")
NO_ADVERSARIAL = member("image-feature", lambda_adv=0.0)
NO_FEATURE = member("image-adversarial", lambda_feat=0.0)
SQUARED = member("image", **IMAGE)
POOL5, FC7 = member("pool5", layer="pool5"), member("fc7", layer="fc7")
RANDOM = member("random", comparator_seed=3)
AT_FC6 = member("at-fc6", comparator="fc6")
VIDEONET = member("video", comparator_weights="/models/video.safetensors")
BEFORE = member("before", generator="dosovitskiy2015", lambda_img=4e-5, lambda_feat=0.0, lambda_adv=0.0)
MAHENDRAN = Member(
    Path("mv"), "pictures", Facts("fc6", Network("caffenet", ""), method="Mahendran & Vedaldi 2015"), "mv"
)
OTHER_ENCODER = member("vgg", encoder="vgg16", encoder_weights="vgg.pth")
NARROW = member("narrow", width=0.5, **IMAGE)
PUBLISHED = Member(Path("published"), "bundle", Facts("fc6", Network("caffenet", "published")), "published")
DECODER = Member(Path("decoder"), "bundle", FULL.facts, "decoder", encodes=False)
VAE_FULL, VAE_SQUARED = member("vae", **VAE), member("vae-image", **VAE, **IMAGE)
LONGER = member("longer", step=2000)


def shown(plates):
    """Return per plate {heading: name of the member}."""
    return [{column.heading: column.member.origin for column in plate.columns} for plate in plates]


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        (
            [FULL, SQUARED, NO_FEATURE, NO_ADVERSARIAL],
            [
                {
                    "image": "image",
                    "image + adversarial": "image-adversarial",
                    "image + feature": "image-feature",
                    "image + feature + adversarial": "full",
                }
            ],
        ),
        ([FULL], []),  # one is no comparison
        ([FULL, POOL5], []),  # nor are two layers
        ([FULL, NARROW], []),  # nor two widths
        ([FULL, BEFORE], []),  # nor another generator
        ([SQUARED, OTHER_ENCODER], []),
        ([FULL, DECODER, VAE_SQUARED], []),
        ([SQUARED, FULL, LONGER], [{"image": "image", "image + feature + adversarial": "longer"}]),
        # two comparators: that with more of the four
        ([SQUARED, RANDOM, FULL, NO_ADVERSARIAL], [
            {"image": "image", "image + feature": "image-feature", "image + feature + adversarial": "full"}
        ]),
    ],
)  # fmt: skip
def test_figure_1_is_one_layer_by_different_losses(members, expected):
    assert shown(selection.ablation(members)) == expected


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ([FC7, FULL, POOL5], [{"pool5 (the paper\u2019s CONV5)": "pool5", "fc6": "full", "fc7": "fc7"}]),
        ([FULL], []),
        ([FULL, OTHER_ENCODER], []),
        ([FC7, SQUARED], []),  # not by one objective
        ([FC7, RANDOM], []),  # nor one comparator
        ([FULL, LONGER, FC7], [{"fc6": "longer", "fc7": "fc7"}]),
        (
            [member("a", layer="norm2", comparator="norm2"), member("b", layer="conv4", comparator="conv4"), FULL],
            [{"norm2": "a", "conv4": "b"}],  # each compared at itself
        ),
    ],
)
def test_figure_3_is_layers_of_one_encoder_by_one_objective(members, expected):
    assert shown(selection.layers(members)) == expected


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        (
            [BEFORE, SQUARED, FULL, MAHENDRAN],
            [
                {
                    "DeePSiM, comparator CaffeNet pool5": "full",
                    "Dosovitskiy & Brox 2015": "before",
                    "DeePSiM, image loss alone": "image",
                    "Mahendran & Vedaldi 2015": "mv",
                }
            ],
        ),
        ([FULL, FC7], []),
        ([FULL, RANDOM], []),  # a comparator is no baseline
        ([SQUARED, BEFORE], []),  # nor are baselines alone
        ([POOL5, MAHENDRAN], []),  # pictures of another layer
        ([OTHER_ENCODER, MAHENDRAN], []),  # or network
        ([PUBLISHED, MAHENDRAN], [{"DeePSiM, objective not recorded": "published", "Mahendran & Vedaldi 2015": "mv"}]),
    ],
)
def test_figure_4_is_a_layer_by_different_methods(members, expected):
    assert shown(selection.baselines(members)) == expected


def test_figure_5_has_a_plate_for_each_layer_and_one_is_enough():
    assert shown(selection.reencoding([FULL, FC7])) == [
        {"DeePSiM, comparator CaffeNet pool5": "full"},
        {"DeePSiM, comparator CaffeNet pool5": "fc7"},
    ]
    assert len(selection.reencoding([PUBLISHED])) == 1
    assert selection.reencoding([DECODER, VAE_FULL, MAHENDRAN]) == ()


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        (
            [FULL, RANDOM, AT_FC6, VIDEONET],
            [
                {
                    "CaffeNet pool5": "full",
                    "random CaffeNet pool5": "random",
                    "CaffeNet fc6": "at-fc6",
                    "CaffeNet pool5 (video.safetensors)": "video",
                }
            ],
        ),
        ([FULL, SQUARED], []),
        ([FULL, member("other", comparator="fc6", lambda_adv=0.0)], []),  # not by one objective
        ([FULL, member("other", comparator="fc6", layer="fc7")], []),
        ([FULL, member("other", comparator="fc6", width=0.5)], []),
    ],
)
def test_figure_6_is_one_layer_by_different_comparators(members, expected):
    assert shown(selection.comparators(members)) == expected


@pytest.mark.parametrize(
    ("members", "expected"),
    [([POOL5, FULL, FC7], "full"), ([POOL5, FC7], "fc7"), ([POOL5], "pool5"), ([PUBLISHED], "published")],
)
def test_figure_7_is_fc6_or_the_deepest_layer(members, expected):
    (plate,) = selection.interpolation(members)
    assert [column.member.origin for column in plate.columns] == [expected]


def test_figure_8_is_variational_autoencoders_squared_error_first():
    plates = selection.samples([FULL, VAE_FULL, VAE_SQUARED])
    assert [(plate.title, plate.columns[0].member.origin) for plate in plates] == [
        ("Squared error", "vae-image"),
        ("DeePSiM: image, feature and adversarial loss, compared at CaffeNet pool5", "vae"),
    ]
    assert selection.samples([FULL, member("autoencoder", task="autoencoder", layer="latent")]) == ()


def test_table_2_has_a_row_for_each_method_and_the_longest_training_in_a_cell():
    rows = selection.rows([FULL, FC7, LONGER, SQUARED, MAHENDRAN, VAE_FULL, DECODER])
    assert {name: {layer: found.origin for layer, found in row.items()} for name, row in rows.items()} == {
        "DeePSiM, comparator CaffeNet pool5": {"fc6": "longer", "fc7": "fc7"},
        "DeePSiM, image loss alone": {"fc6": "image"},
        "Mahendran & Vedaldi 2015": {"fc6": "mv"},
    }


def test_rows_of_two_encoders_are_told_apart():
    names = list(selection.rows([FULL, member("seed", encoder_weights="", seed=7)]))
    assert names == [
        "DeePSiM, comparator CaffeNet pool5 (CaffeNet, caffenet.safetensors)",
        "DeePSiM, comparator random CaffeNet pool5 (CaffeNet, random, seed 7)",
    ]


def test_a_name_of_the_user_heads_the_column():
    from dataclasses import replace

    named = replace(FULL, name="Ours")
    assert list(shown(selection.layers([named, FC7]))[0]) == ["Ours", "fc7"]
    assert "Ours" in selection.rows([named])
    assert "Ours" in shown(selection.ablation([named, SQUARED]))[0]
