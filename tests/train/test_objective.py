"""Equations 1-5 against numpy on small tensors, in both normalisations; and a loss that is added in two places."""

import json
from dataclasses import dataclass, fields, replace

import numpy as np
import pytest
from click.testing import CliRunner

torch = pytest.importorskip("torch")

from deepsim.runtime.errors import UsageError  # noqa: E402
from deepsim.train import loop, objective  # noqa: E402
from deepsim.train.config import PRESETS, TrainConfig  # noqa: E402
from deepsim.train.narration import different_settings, losses_in_words  # noqa: E402
from deepsim.train.objective import Reconstruction, Term  # noqa: E402
from deepsim.train.settings import setting  # noqa: E402
from tests.train.options import command_of  # noqa: E402
from tests.train.runs import TINY, tiny_run, write_photographs  # noqa: E402

RNG = np.random.default_rng(5)
FAKE, REAL = RNG.standard_normal((2, 3, 4, 5, 2))
LOGITS_REAL, LOGITS_FAKE = 3 * RNG.standard_normal((2, 3, 2))


def tensor(array):
    return torch.from_numpy(array)


def probability_of_real(logits):
    exponentials = np.exp(logits)
    return exponentials[:, 0] / exponentials.sum(1)


def refuse(*arguments):
    raise AssertionError("a term asked for what it does not need")


def made(fake=None, real=None, normalisation="release", compare=refuse, judge=refuse):
    """What a step shows to the terms."""
    return Reconstruction(fake, real, normalisation, compare, judge)


def image_loss(fake, real, normalisation="release"):
    return objective.image_loss(made(fake, real, normalisation))


def feature_loss(fake, real, normalisation="release"):
    return objective.feature_loss(made(None, None, normalisation, compare=lambda: (fake, real)))


@pytest.mark.parametrize("loss", [feature_loss, image_loss])
def test_squared_errors(loss):
    total = sum((a - b) ** 2 for a, b in zip(FAKE.flat, REAL.flat, strict=True))
    assert loss(tensor(FAKE), tensor(REAL), "paper").item() == pytest.approx(total, rel=1e-5)
    assert loss(tensor(FAKE), tensor(REAL), "release").item() == pytest.approx(total / (2 * 3), rel=1e-5)


def test_release_image_loss_in_terms_of_the_mean_squared_error():
    fake, real = 50 * torch.randn(2, 2, 3, 227, 227, generator=torch.Generator().manual_seed(0))
    mse = (fake - real).square().mean().item()
    assert 2e-6 * image_loss(fake, real).item() == pytest.approx(0.1546 * mse, rel=1e-3)


def test_release_pool5_feature_loss_in_terms_of_the_mean_squared_error():
    fake, real = torch.randn(2, 2, 256, 6, 6, generator=torch.Generator().manual_seed(0))
    mse = (fake - real).square().mean().item()
    assert 0.01 * feature_loss(fake, real).item() == pytest.approx(46.08 * mse, rel=1e-3)


@pytest.mark.parametrize(("normalisation", "reduce", "weight"), [("paper", np.sum, 1), ("release", np.mean, 100)])
def test_adversarial_terms(normalisation, reduce, weight):
    real, fake = tensor(LOGITS_REAL), tensor(LOGITS_FAKE)
    p_real, p_fake = probability_of_real(LOGITS_REAL), probability_of_real(LOGITS_FAKE)
    expected = weight * (reduce(-np.log(p_real)) + reduce(-np.log(1 - p_fake)))
    assert objective.discriminator_loss(real, fake, normalisation).item() == pytest.approx(expected, rel=1e-5)
    adversarial = reduce(-np.log(p_fake))
    assert objective.adversarial_loss(made(None, None, normalisation, judge=lambda: fake)).item() == pytest.approx(
        adversarial, rel=1e-5
    )
    assert objective.real_loss(real, normalisation).item() == pytest.approx(reduce(-np.log(p_real)), rel=1e-5)
    assert objective.fake_loss(fake, normalisation).item() == pytest.approx(reduce(-np.log(1 - p_fake)), rel=1e-5)


def test_half_precision_inputs_are_summed_in_fp32():
    large = torch.full((1, 1000), 300.0, dtype=torch.float16)  # squares overflow fp16
    assert image_loss(large, torch.zeros_like(large), "paper").item() == 1000 * 300.0**2


def test_what_several_terms_look_at_is_computed_once():
    calls = []
    seen = made(compare=lambda: calls.append("compare") or (1, 2), judge=lambda: calls.append("judge") or 3)
    assert (seen.compared, seen.compared, seen.judged, seen.judged) == ((1, 2), (1, 2), 3, 3)
    assert calls == ["compare", "judge"]


def test_every_term_has_a_weight_and_every_weight_a_term():
    weights = {entry.name for entry in fields(TrainConfig) if entry.name.startswith("lambda_")}
    assert {term.weight for term in objective.TERMS} == weights
    assert [term.label for term in objective.TERMS][:4] == ["image", "feature", "adversarial", "KL"]


def test_networks_are_wanted_by_the_terms_that_count():
    config = PRESETS["tiny"]
    assert objective.uses(config, "comparator") and objective.uses(config, "discriminator")
    without = config.updated({"lambda_feat": 0, "lambda_adv": 0})
    assert "image_loss" in (names := [term.name for term in objective.used_terms(without)])
    assert not {"feature_loss", "adversarial_loss"} & set(names)
    assert not objective.uses(without, "comparator") and not objective.uses(without, "discriminator")
    assert objective.weights_of("discriminator") == "lambda_adv"


# A loss as one adds it: its function and record in objective.py, and the field of its weight in config.py.


def total_variation(seen):
    """Return the mean absolute difference of neighbouring pixels."""
    across, down = seen.fake.float().diff(dim=-1), seen.fake.float().diff(dim=-2)
    return across.abs().mean() + down.abs().mean()


TOY = Term("added_loss", "lambda_added", total_variation)


@dataclass(frozen=True)
class Extended(TrainConfig):
    """The settings with the weight of the loss."""

    lambda_added: float = setting(0.0, "Weight of the added loss.", least=0, most=50)


@pytest.fixture
def extended(monkeypatch):
    monkeypatch.setattr(objective, "TERMS", (*objective.TERMS, TOY))


def test_an_added_loss_has_its_option_its_help_and_its_range(extended):
    command, given = command_of(Extended)
    shown = CliRunner().invoke(command, ["--help"]).output
    assert "--lambda-added FLOAT" in shown and "Weight of the added loss." in shown
    assert CliRunner().invoke(command, ["--lambda-added", "3"]).exit_code == 0
    assert Extended().updated(given).lambda_added == 3
    with pytest.raises(UsageError, match=r"lambda_added: 51\.0, expected at least 0 and at most 50"):
        Extended().updated({"lambda_added": 51})
    alone = {"lambda_img": 0, "lambda_feat": 0, "lambda_adv": 0}
    everything = ", ".join(term.weight for term in objective.image_terms())
    assert everything.startswith("lambda_img, ") and everything.endswith(", lambda_added")
    with pytest.raises(UsageError, match=f"^{everything}: all 0, expected a loss"):
        Extended().updated(alone)
    assert Extended().updated({**alone, "lambda_added": 1}).lambda_added == 1


def test_an_added_loss_trains_and_is_logged_drawn_and_told(extended, tmp_path, capsys):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    values = {name: getattr(TINY, name) for name in (entry.name for entry in fields(TINY))}
    alone = {"lambda_img": 0.0, "lambda_feat": 0.0, "lambda_adv": 0.0, "lambda_added": 10.0, "width": 1 / 16}
    config = Extended(**{**values, **alone, "steps": 20})
    run = replace(tiny_run(tmp_path / "run", write_photographs(tmp_path / "photos")), quiet=False)
    loop.train(config, run)
    lines = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    losses = [line["added_loss"] for line in lines]
    assert losses[-1] < 0.7 * losses[0]
    assert lines[0]["generator_loss"] == pytest.approx(10 * losses[0])
    assert lines[0]["image_loss"] is None and lines[0]["adversarial_loss"] is None
    drawn = accumulator.EventAccumulator(str(tmp_path / "run/tensorboard"))
    drawn.Reload()
    assert [event.value for event in drawn.Scalars("added_loss")] == pytest.approx(losses)
    assert f"added {losses[0]:.4g}" in capsys.readouterr().err
    assert "added 10" in losses_in_words(config)
    assert not any("lambda_added" in words for words in different_settings(config))
