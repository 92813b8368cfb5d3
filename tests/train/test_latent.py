"""The variational autoencoder: its loss against numpy, one step against one written by hand, resuming to the byte."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from deepsim.export.sources import load_run  # noqa: E402
from deepsim.runtime.errors import UsageError  # noqa: E402
from deepsim.runtime.generators import LATENT  # noqa: E402
from deepsim.runtime.geometry import CAFFE_FRAMING, Geometry  # noqa: E402
from deepsim.runtime.networks import ENCODERS  # noqa: E402
from deepsim.train import loop, objective  # noqa: E402
from deepsim.train.checkpoints import load_checkpoint  # noqa: E402
from deepsim.train.config import PRESETS, TrainConfig  # noqa: E402
from deepsim.train.encoders import pink_noise, random_encoder  # noqa: E402
from deepsim.train.latent import COLLAPSED, Posterior, VariationalEncoder, code_figures  # noqa: E402
from deepsim.train.networks import scored, to_image_space  # noqa: E402
from deepsim.train.objective import (  # noqa: E402
    REAL,
    Reconstruction,
    discriminator_loss,
    negative_log_likelihood,
    squared_error,
)
from deepsim.train.step import train_step  # noqa: E402
from deepsim.train.tasks import encoder_for  # noqa: E402
from deepsim.train.weights import read_weights, write_weights  # noqa: E402
from tests.train.runs import digests, tiny_run, write_photographs  # noqa: E402
from tests.train.test_tasks import AUTOENCODER, CODE, SMALL, lines, models_of  # noqa: E402


def vae(**changes):
    """The settings of a small variational autoencoder."""
    return AUTOENCODER.updated({"task": "vae", **CODE, "width": 1 / 64, **changes})


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setitem(ENCODERS, "small", SMALL)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return write_photographs(tmp_path_factory.mktemp("photos"))


def posterior(seed=0, shape=(3, 5)):
    rng = np.random.default_rng(seed)
    mean, log_variance = rng.standard_normal((2, *shape)).astype(np.float32)
    return mean, log_variance, Posterior(torch.from_numpy(mean), torch.from_numpy(log_variance))


@pytest.mark.parametrize(("normalisation", "over"), [("paper", 1), ("release", 3)])
def test_the_kl_term_is_equation_8(normalisation, over):
    mean, log_variance, drawn = posterior()
    variance = np.exp(log_variance)
    equation = 0.5 * (np.sum(mean**2) + np.sum(variance) - np.sum(np.log(variance)))
    made = Reconstruction(None, None, normalisation, None, None, drawn)
    assert objective.kl_loss(made).item() == pytest.approx((equation - 0.5 * mean.size) / over, rel=1e-5)


def test_the_divergence_is_torchs():
    mean, log_variance, drawn = posterior(1)
    normal = torch.distributions.Normal
    ours = normal(torch.from_numpy(mean), torch.from_numpy(np.exp(log_variance / 2)))
    expected = torch.distributions.kl_divergence(ours, normal(0.0, 1.0))
    torch.testing.assert_close(drawn.divergence(), expected, rtol=1e-5, atol=1e-6)


def test_a_run_without_codes_has_no_kl_term():
    with pytest.raises(ValueError, match="posterior: this run draws no codes"):
        objective.kl_loss(Reconstruction(None, None, "release", None, None))


def test_draws_have_the_moments_of_their_distribution():
    torch.manual_seed(4)
    mean, deviation = torch.tensor([-1.0, 0.0, 2.0]), torch.tensor([0.1, 1.0, 3.0])
    many = Posterior(mean.expand(20_000, 3), (2 * deviation.log()).expand(20_000, 3)).draw()
    torch.testing.assert_close(many.mean(0), mean, rtol=0, atol=0.1)
    torch.testing.assert_close(many.std(0), deviation, rtol=0.05, atol=0)


def test_gradients_reach_both_heads():
    _, _, drawn = posterior(2)
    heads = [tensor.requires_grad_() for tensor in (drawn.mean, drawn.log_variance)]
    torch.manual_seed(1)
    noise = torch.randn(3, 5)
    torch.manual_seed(1)
    drawn.draw().sum().backward()
    torch.testing.assert_close(heads[0].grad, torch.ones(3, 5))
    torch.testing.assert_close(heads[1].grad, (noise * (heads[1] / 2).exp() / 2).detach())


def plain_step(config, photos):
    """The first step written down by hand, from the networks as they begin; torch's own Adam."""
    models = models_of(config)
    encoder, generator, judge = (models.players[name].module for name in ("encoder", "generator", "discriminator"))
    comparator = random_encoder(SMALL, config.comparator, config.seed)
    rates = {"lr": config.learning_rate, "betas": (config.beta1, config.beta2)}
    both = torch.optim.Adam([*encoder.parameters(), *generator.parameters()], **rates)
    other = torch.optim.Adam(judge.parameters(), **rates)
    torch.manual_seed(0)
    real = to_image_space(photos)
    before = encoder.features(real, {"fc6"})["fc6"]
    mean = before @ encoder.latent.weight.T + encoder.latent.bias
    log_variance = before @ encoder.log_variance.weight.T + encoder.log_variance.bias
    code = mean + torch.exp(log_variance / 2) * torch.randn(mean.shape)
    fake = scored(generator(code), Geometry.central(CAFFE_FRAMING, generator.spec.output_size))
    logits = judge(torch.cat((real, fake.detach())), torch.cat((code, code)).detach())
    discriminator_loss(*logits.chunk(2), "release").backward()
    other.step()
    loss = config.lambda_img * squared_error(fake, real, "release")
    loss = loss + config.lambda_feat * squared_error(comparator(fake), comparator(real), "release")
    loss = loss + config.lambda_adv * negative_log_likelihood(judge(fake, code.detach()), REAL, "release")
    kl = 0.5 * (mean**2 + log_variance.exp() - log_variance - 1).sum() / len(mean)
    both.zero_grad()
    (loss + config.lambda_kl * kl).backward()
    both.step()
    return kl.item(), {"encoder": encoder.state_dict(), "generator": generator.state_dict()}


def test_a_step_equals_one_written_by_hand(small):
    """The generator, and a conditional discriminator, see the code that was drawn; the losses have their weights."""
    config = vae(conditional=True, channels_last=False)
    photos = pink_noise(2, 227, seed=8)
    kl, expected = plain_step(config, photos)
    models = models_of(config)
    torch.manual_seed(0)
    losses = train_step(models, photos)
    assert config.lambda_kl == 20 and losses["kl_loss"] == pytest.approx(kl, rel=1e-4)
    total = sum(getattr(config, term.weight) * losses[term.name] for term in objective.TERMS)
    assert losses["generator_loss"] == pytest.approx(total, rel=1e-4)
    for player, weights in expected.items():
        for name, value in models.players[player].module.state_dict().items():
            torch.testing.assert_close(value, weights[name], rtol=1e-4, atol=1e-6, msg=f"{player} {name}")


@pytest.mark.parametrize("change", [{"conditional": True, "stop_generator": 1e9}, {"lambda_adv": 0}], ids=str)
def test_resumed_equals_uninterrupted(tmp_path, photos, small, change):
    config = vae(**change)
    whole = loop.train(config, tiny_run(tmp_path / "whole", photos))
    loop.train(config.updated({"steps": 5}), tiny_run(tmp_path / "halves", photos))
    halves = loop.train(config, tiny_run(tmp_path / "halves", photos, "auto"))
    assert digests(halves.checkpoint) == digests(whole.checkpoint)
    learned = read_weights(whole.checkpoint / "encoder.safetensors")
    assert learned["log_variance.weight"].any() and learned["log_variance.weight"].shape == (6, 32)
    found = lines(tmp_path / "whole")
    assert [line["kl_loss"] for line in found] == [line["kl_loss"] for line in lines(tmp_path / "halves")]
    validated = [line for line in found if "validation_error" in line]
    assert all(line["validation_kl"] > 0 and 0 <= line["collapsed_units"] <= 6 for line in validated)


def test_two_ranks_draw_differently(small):
    photos, config = pink_noise(2, 227, seed=1), vae(lambda_adv=0)
    losses = []
    for rank in (0, 0, 1):
        torch.manual_seed(loop.step_seed(3, 7, rank))
        losses.append(train_step(models_of(config), photos)["image_loss"])
    assert losses[0] == losses[1] != losses[2]


def test_evaluation_uses_the_mean(small):
    models = models_of(vae())
    images = to_image_space(pink_noise(2, 227, seed=5))
    mean = Posterior.of(models.encoder(images)).mean
    for seed in (1, 2):
        torch.manual_seed(seed)
        torch.testing.assert_close(models.encode(images), mean, rtol=1e-5, atol=1e-6)


def test_collapsed_units_are_those_that_tell_nothing(small):
    encoder = VariationalEncoder.beginning_as(random_encoder(encoder_for("vae", "small", LATENT, 6), LATENT, 0))
    photos = pink_noise(3, 227, seed=2).numpy()
    found = code_figures(encoder, photos)
    means = encoder.features(to_image_space(torch.from_numpy(photos)), {LATENT})[LATENT]
    squares = means.square().mean(0) / 2  # sigma is 1 as training begins
    assert found["validation_kl"] == pytest.approx(squares.sum().item(), rel=1e-5)
    assert found["collapsed_units"] == (squares < COLLAPSED).sum()
    with torch.no_grad():
        encoder.latent.weight[:4] = 0
        encoder.latent.bias[:4] = 0
    assert code_figures(encoder, photos)["collapsed_units"] == 4
    assert code_figures(random_encoder(SMALL, "fc6", 0), photos) == {}


def test_the_encoder_begins_with_given_weights_and_so_does_the_comparator(tmp_path, small):
    given = random_encoder(SMALL, "fc6", seed=77).state_dict()
    write_weights(tmp_path / "small.safetensors", given)
    models = models_of(vae(encoder_weights=str(tmp_path / "small.safetensors")))
    own = models.encoder.state_dict()
    assert all(torch.equal(own[name], value) for name, value in given.items())
    assert torch.equal(models.comparator.conv1.weight, given["conv1.weight"])
    assert own["latent.weight"].any() and not own["log_variance.weight"].any()
    assert {name for name in own if name not in given} == {
        f"{head}.{kind}" for head in ("latent", "log_variance") for kind in ("weight", "bias")
    }
    drawn = models_of(vae()).encoder.state_dict()
    assert torch.equal(drawn["conv1.weight"], random_encoder(SMALL, "fc6", vae().seed).conv1.weight)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"layer": "fc6"}, "layer: 'fc6', but task vae draws codes, expected 'latent'"),
        ({"lambda_kl": 0}, r"lambda_kl: 0, but nothing else ties a vae's codes to its prior, .* --task autoencoder\."),
        ({"lambda_img": 0, "lambda_feat": 0, "lambda_adv": 0}, "^lambda_img, .*lambda_adv.*: all 0, expected a loss"),
        ({"task": "autoencoder", "lambda_kl": 3}, "lambda_kl: 3, but task autoencoder draws no codes, expected 0"),
        ({"encoder": "timm:resnet18@layer2"}, "a module, which stays frozen"),
        ({"encoder_width": 0.5, "encoder_weights": "a.pt"}, "encoder_width: 0.5 with weights from a file, expected"),
        ({"encoder_width": 0.3}, "width 0.3: expected one of 1, 0.5"),
    ],
    ids=str,
)
def test_what_cannot_be_trained_is_one_line(values, words):
    with pytest.raises(UsageError, match=words):
        PRESETS["vae"].updated(values)


def test_a_task_brings_its_layer_and_the_papers_weight():
    config = PRESETS["paper"].updated({"task": "vae"})
    assert (config.layer, config.lambda_kl, config.latent) == (LATENT, 20, 4096)
    assert PRESETS["paper"].updated({"task": "vae", "lambda_kl": "3"}).lambda_kl == 3
    assert config.updated({"lambda_kl": 5}).updated({"task": "vae", "steps": 9}).lambda_kl == 5
    assert TrainConfig().lambda_kl == 0
    assert PRESETS["vae"] == config


def test_the_presets_of_codes():
    vae, baseline, plain = (PRESETS[name] for name in ("vae", "vae-image", "autoencoder"))
    assert (vae.lambda_kl, vae.lambda_feat, vae.lambda_adv, vae.lambda_img) == (20, 0.01, 100, 2e-6)
    assert [term.name for term in objective.used_terms(baseline)] == ["image_loss", "kl_loss"]
    assert (plain.task, plain.layer, plain.lambda_kl) == ("autoencoder", LATENT, 0)


def test_a_narrow_encoder_ends_in_the_whole_code():
    spec = encoder_for("vae", "caffenet", LATENT, 10, 0.25)
    sizes = {layer.name: layer.outputs for layer in spec.layers if layer.has_weights}
    assert sizes == {"conv1": 24, "conv2": 64, "conv3": 96, "conv4": 96, "conv5": 64, "fc6": 1024, LATENT: 10}
    assert spec.feature_shape(LATENT) == (10,)
    with pytest.raises(UsageError, match=r"encoder_width: 0\.25 with layer 'fc6', expected a code"):
        TrainConfig(encoder_width=0.25)


def test_a_run_records_its_settings(tmp_path, photos, small):
    loop.train(vae(steps=1, lambda_adv=0), tiny_run(tmp_path, photos))
    kept = json.loads((tmp_path / "config.json").read_text())
    assert (kept["task"], kept["lambda_kl"], kept["latent"]) == ("vae", 20.0, 6)
    assert TrainConfig().updated(kept) == vae(steps=1, lambda_adv=0)


def test_validation_and_export_use_the_average(tmp_path, photos, small):
    config = vae(steps=3, lambda_adv=0, average=0.9)
    outcome = loop.train(config, tiny_run(tmp_path, photos))
    models = models_of(config)
    load_checkpoint(outcome.checkpoint, models)
    previews = np.load(tmp_path / "previews/photographs.npy")
    last = code_figures(models.encoder, previews)
    with models.averaged():
        average = code_figures(models.encoder, previews)
    assert lines(tmp_path)[-1]["validation_kl"] == pytest.approx(average["validation_kl"], rel=1e-5)
    assert average["validation_kl"] != pytest.approx(last["validation_kl"], rel=1e-2)
    exported = load_run(tmp_path).encoder_weights["latent.weight"]
    np.testing.assert_array_equal(
        exported, read_weights(outcome.checkpoint / "average/encoder.safetensors")["latent.weight"]
    )
