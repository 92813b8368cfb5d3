"""Tasks: an autoencoder's encoder learns with the generator, is saved with every checkpoint and resumes to the byte."""

import functools
import json

import pytest

torch = pytest.importorskip("torch")

from deepsim.kernels.layers import Layer  # noqa: E402
from deepsim.runtime.errors import UsageError  # noqa: E402
from deepsim.runtime.geometry import CAFFE_FRAMING, Geometry  # noqa: E402
from deepsim.runtime.networks import CAFFENET, ENCODERS, EncoderSpec  # noqa: E402
from deepsim.runtime.pixels import CAFFE_PIXELS  # noqa: E402
from deepsim.train import loop  # noqa: E402
from deepsim.train import models as models_module  # noqa: E402
from deepsim.train.config import TrainConfig, check_resumable  # noqa: E402
from deepsim.train.distributed import World  # noqa: E402
from deepsim.train.encoders import pink_noise, random_encoder  # noqa: E402
from deepsim.train.models import build_models  # noqa: E402
from deepsim.train.networks import scored, to_image_space  # noqa: E402
from deepsim.train.objective import REAL, discriminator_loss, negative_log_likelihood, squared_error  # noqa: E402
from deepsim.train.step import train_step  # noqa: E402
from deepsim.train.tasks import encoder_for, task_of  # noqa: E402
from deepsim.train.weights import read_weights, write_weights  # noqa: E402
from tests.train.runs import TINY, digests, tiny_run, write_photographs  # noqa: E402

SMALL = EncoderSpec(
    "small",
    (
        Layer("conv1", "conv", 3, 8, 11, 8, activation="relu"),
        Layer("pool1", "pool", kernel=3, stride=2),
        Layer("fc6", "fc", 8 * 13 * 13, 32, activation="relu"),
    ),
    CAFFE_PIXELS,
    CAFFE_FRAMING,
)
AUTOENCODER = TINY.updated({"task": "autoencoder", "steps": 10, "checkpoint_every": 5, "validate_every": 5})
CODE = {"encoder": "small", "layer": "latent", "latent": 6, "comparator": "conv1"}


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setitem(ENCODERS, "small", SMALL)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return write_photographs(tmp_path_factory.mktemp("photos"))


def models_of(config):
    return build_models(config, torch.device("cpu"), World())


def lines(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    "change",
    [{"conditional": True, "stop_generator": 1e9}, {**CODE, "lambda_adv": 0, "precision": "bf16"}],
    ids=["norm1", "code"],
)
def test_resumed_equals_uninterrupted(tmp_path, photos, small, change):
    config = AUTOENCODER.updated(change)
    whole = loop.train(config, tiny_run(tmp_path / "whole", photos))
    loop.train(config.updated({"steps": 5}), tiny_run(tmp_path / "halves", photos))
    halves = loop.train(config, tiny_run(tmp_path / "halves", photos, "auto"))
    assert digests(halves.checkpoint) == digests(whole.checkpoint)
    assert {"encoder.safetensors", "generator.safetensors", "optimizer.safetensors"} <= set(digests(whole.checkpoint))
    first, last = (
        digests(tmp_path / "whole/checkpoints" / step)["encoder.safetensors"]
        for step in ("step-00000005", "step-00000010")
    )
    assert first != last
    moments = read_weights(whole.checkpoint / "optimizer.safetensors")
    assert moments["encoder/conv1.weight/exp_avg"].any()


def test_the_encoder_of_a_run_is_in_its_checkpoints_alone(tmp_path, photos):
    outcome = loop.train(AUTOENCODER.updated({"steps": 2, "lambda_adv": 0}), tiny_run(tmp_path, photos))
    assert not (tmp_path / "encoder.safetensors").exists()
    begun = random_encoder(CAFFENET, "norm1", AUTOENCODER.seed).state_dict()
    kept = read_weights(tmp_path / "comparator.safetensors")
    learned = read_weights(outcome.checkpoint / "encoder.safetensors")
    for name, value in begun.items():
        assert torch.equal(kept[name], value)
        assert not torch.equal(learned[name], value)
    state = json.loads((outcome.checkpoint / "state.json").read_text())
    assert state["updates"]["encoder"] == state["updates"]["generator"]
    assert state["config"]["task"] == "autoencoder"


def test_two_colours_come_nearer_through_a_code_of_six_numbers(small):
    config = AUTOENCODER.updated({**CODE, "lambda_adv": 0, "lambda_feat": 0, "width": 1 / 16})
    photos = torch.zeros(2, 227, 227, 3, dtype=torch.uint8)
    photos[0, ..., 0] = photos[1, ..., 2] = 220
    models = models_of(config)
    before = models.encode(to_image_space(photos))
    losses = [train_step(models, photos)["image_loss"] for _ in range(40)]
    assert losses[-1] < 0.9 * losses[0]
    assert (models.encode(to_image_space(photos)) - before).abs().max() > 1


def plain_step(config, photos):
    """The first step written down by hand, from the networks as they begin; torch's own Adam."""
    models = models_of(config)
    encoder, generator, judge = (models.players[name].module for name in ("encoder", "generator", "discriminator"))
    comparator = random_encoder(CAFFENET, config.comparator, config.seed)
    rates = {"lr": config.learning_rate, "betas": (config.beta1, config.beta2)}
    both = torch.optim.Adam([*encoder.parameters(), *generator.parameters()], **rates)
    other = torch.optim.Adam(judge.parameters(), **rates)
    torch.manual_seed(0)
    real = to_image_space(photos)
    code = encoder(real)
    fake = scored(generator(code), Geometry.central(CAFFE_FRAMING, generator.spec.output_size))
    logits = judge(torch.cat((real, fake.detach())), torch.cat((code, code)).detach())
    discriminator_loss(*logits.chunk(2), "release").backward()
    other.step()
    loss = config.lambda_img * squared_error(fake, real, "release")
    loss = loss + config.lambda_feat * squared_error(comparator(fake), comparator(real), "release")
    judged = judge(fake, code.detach())  # the adversarial loss reaches the encoder through the image alone
    loss = loss + config.lambda_adv * negative_log_likelihood(judged, REAL, "release")
    both.zero_grad()
    loss.backward()
    both.step()
    return {"encoder": encoder.state_dict(), "generator": generator.state_dict()}


def test_a_step_equals_one_written_by_hand():
    config = AUTOENCODER.updated({"conditional": True, "channels_last": False})
    photos = pink_noise(2, 227, seed=8)
    expected = plain_step(config, photos)
    models = models_of(config)
    torch.manual_seed(0)
    train_step(models, photos)
    for player, weights in expected.items():
        for name, value in models.players[player].module.state_dict().items():
            torch.testing.assert_close(value, weights[name], rtol=1e-4, atol=1e-6, msg=f"{player} {name}")


def test_an_encoder_pauses_with_the_generator():
    models = models_of(AUTOENCODER)
    models.pausing.generator_trains = False
    models.pausing.stop_discriminator, models.pausing.stop_generator = 0.0, float("inf")
    before = [parameter.clone() for parameter in models.encoder.parameters()]
    train_step(models, pink_noise(2, 227, seed=1))
    assert all(map(torch.equal, before, models.encoder.parameters()))
    assert (models.learner.updates, models.discriminator.updates) == (0, 1)


def test_a_frozen_encoder_gets_no_gradient():
    models = models_of(TINY)
    assert models.learner is None and set(models.players) == {"generator", "discriminator"}
    train_step(models, pink_noise(2, 227, seed=1))
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in models.encoder.parameters())


def test_compiled_and_wrapped_as_the_generator_is(monkeypatch, small):
    config = AUTOENCODER.updated({**CODE, "lambda_adv": 0})
    compiled, wrapped = [], []
    compiler = functools.partial(torch.compile, backend="aot_eager")
    monkeypatch.setattr(models_module.torch, "compile", lambda module: compiled.append(module) or compiler(module))
    monkeypatch.setattr(World, "wrap", lambda self, module, device: wrapped.append(module) or module)
    plain = models_of(config)
    wrapped.clear()
    models = models_of(config.updated({"compile": True}))
    assert {type(module).__name__ for module in compiled} == {"Generator", "Encoder"}
    assert {id(module) for module in wrapped} == {id(models.generator.judge), id(models.learner.judge)}
    photos = pink_noise(2, 227, seed=2)
    found, expected = train_step(models, photos), train_step(plain, photos)
    assert found["generator_loss"] == pytest.approx(expected["generator_loss"], rel=1e-5)
    for name, value in plain.encoder.state_dict().items():
        torch.testing.assert_close(models.encoder.state_dict()[name], value, rtol=1e-4, atol=1e-6)


def test_it_begins_with_given_weights_and_needs_their_file_no_more(tmp_path, photos, small):
    file = tmp_path / "small.safetensors"
    given = random_encoder(SMALL, "fc6", seed=77).state_dict()
    write_weights(file, given)
    config = AUTOENCODER.updated({**CODE, "encoder_weights": str(file), "steps": 2, "lambda_adv": 0})
    models = models_of(config)
    for name, value in given.items():
        assert torch.equal(models.encoder.state_dict()[name], value)
        if name.startswith("conv1"):
            assert torch.equal(models.comparator.state_dict()[name], value)
    assert models.encoder.latent.weight.std() > 0
    loop.train(config, tiny_run(tmp_path / "run", photos))
    file.unlink()
    assert loop.train(config.updated({"steps": 3}), tiny_run(tmp_path / "run", photos, "auto")).step == 3


def test_a_comparator_of_its_own_seed(small):
    config = AUTOENCODER.updated({**CODE, "comparator_seed": 5})
    assert torch.equal(models_of(config).comparator.conv1.weight, random_encoder(SMALL, "conv1", 5).conv1.weight)


def test_a_code_is_a_linear_layer_behind_fc6():
    spec = encoder_for("autoencoder", "caffenet", "latent", 100)
    assert spec.layers[-1] == Layer("latent", "fc", 4096, 100)
    assert spec.layers[:-1] == CAFFENET.up_to("fc6")
    assert spec.feature_shape("latent") == (100,)
    assert encoder_for("autoencoder", "caffenet", "pool5") is CAFFENET


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"task": "segmentation"}, "task: 'segmentation', expected one of inversion, autoencoder, vae"),
        ({"layer": "latent"}, "layer 'latent': only an encoder that learns has it, expected --task autoencoder or vae"),
        ({"task": "autoencoder", "layer": "latent", "latent": 0}, "latent: 0, expected at least 1"),
        ({"task": "autoencoder", "comparator": "latent"}, "caffenet: no layer 'latent'"),
    ],
    ids=str,
)
def test_what_cannot_be_trained_is_one_line(values, words):
    with pytest.raises(UsageError, match=words):
        TINY.updated(values)


def test_an_unknown_task_is_named():
    with pytest.raises(UsageError, match=r"'segmentation': unknown, expected one of inversion, autoencoder, vae\."):
        task_of("segmentation")


@pytest.mark.parametrize("change", [{"task": "inversion"}, {"latent": 7}])
def test_a_run_keeps_its_task(change):
    begun = AUTOENCODER
    with pytest.raises(UsageError, match="the run was begun with"):
        check_resumable(begun, begun.updated(change))


def test_a_run_from_before_there_were_tasks_is_an_inversion():
    since = ("task", "latent", "lambda_kl", "encoder_width")
    saved = {name: value for name, value in json.loads(TINY.to_json()).items() if name not in since}
    begun = TrainConfig().updated(saved)
    assert begun == TINY and begun.task == "inversion"
    check_resumable(begun, TINY.updated({"steps": 99}))
