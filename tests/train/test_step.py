"""One step against independent arithmetic: order of updates, parameter groups, schedule, pausing."""

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from deepsim.kernels.layers import Layer  # noqa: E402
from deepsim.runtime.generators import GeneratorSpec  # noqa: E402
from deepsim.runtime.geometry import CAFFE_FRAMING, Geometry  # noqa: E402
from deepsim.train import step as step_module  # noqa: E402
from deepsim.train.config import PRESETS  # noqa: E402
from deepsim.train.distributed import World  # noqa: E402
from deepsim.train.encoders import pink_noise  # noqa: E402
from deepsim.train.models import build_models  # noqa: E402
from deepsim.train.networks import Generator, scored, to_image_space  # noqa: E402
from deepsim.train.objective import REAL, discriminator_loss, negative_log_likelihood, squared_error  # noqa: E402
from deepsim.train.optimizers import layer_optimizer, learning_rate  # noqa: E402

CONFIG = PRESETS["tiny"].updated({"width": 1 / 64, "conditional": True, "weight_decay": 4e-4, "channels_last": False})


def models_of(config):
    return build_models(config, torch.device("cpu"), World())


def plain_loop(config, photos, steps):
    """The same training written down by hand: no pausing, no options, torch's own Adam."""
    models = models_of(config)
    generator, judge, encoder = models.generator.module, models.discriminator.module, models.encoder
    rconv = [p for name, p in generator.named_parameters() if name.startswith("Rconv") and name.endswith("weight")]
    others = [
        p for name, p in generator.named_parameters() if not (name.startswith("Rconv") and name.endswith("weight"))
    ]
    groups = [{"params": rconv, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimizer_g = torch.optim.Adam(groups, config.learning_rate, (config.beta1, config.beta2))
    optimizer_d = torch.optim.Adam(
        judge.parameters(), config.learning_rate, (config.beta1, config.beta2), weight_decay=config.weight_decay
    )
    for number in range(steps):
        torch.manual_seed(number)
        real = to_image_space(photos)
        features = encoder.features(real, {config.layer})[config.layer]
        fake = scored(generator(features), Geometry.central(CAFFE_FRAMING, generator.spec.output_size))
        logits = judge(torch.cat((real, fake.detach())), torch.cat((features, features)))
        optimizer_d.zero_grad()
        discriminator_loss(*logits.chunk(2), "release").backward()
        optimizer_d.step()
        compared = encoder.features(fake, {config.comparator})[config.comparator]
        target = encoder.features(real, {config.comparator})[config.comparator]
        total = config.lambda_img * squared_error(fake, real, "release")
        total = total + config.lambda_feat * squared_error(compared, target, "release")
        logits = judge(fake, features)  # D has been updated
        total = total + config.lambda_adv * negative_log_likelihood(logits, REAL, "release")
        optimizer_g.zero_grad()
        total.backward()
        optimizer_g.step()
    return generator.state_dict(), judge.state_dict()


def test_three_steps_equal_a_loop_written_by_hand():
    photos = pink_noise(2, 227, seed=8)
    expected_g, expected_d = plain_loop(CONFIG, photos, 3)
    models = models_of(CONFIG)
    for number in range(3):
        models.pausing.discriminator_trains = models.pausing.generator_trains = True
        torch.manual_seed(number)
        step_module.train_step(models, photos)
    for expected, player in ((expected_g, models.generator), (expected_d, models.discriminator)):
        for name, value in player.module.state_dict().items():
            torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("paused", ["discriminator", "generator"])
def test_a_paused_network_does_not_change_but_its_losses_are_computed(paused):
    models = models_of(CONFIG)
    setattr(models.pausing, f"{paused}_trains", False)
    models.pausing.stop_discriminator, models.pausing.resume_discriminator = 0.0, float("inf")
    models.pausing.stop_generator = float("inf")
    players = {"discriminator": models.discriminator, "generator": models.generator}
    before = {name: [p.clone() for p in player.module.parameters()] for name, player in players.items()}
    losses = step_module.train_step(models, pink_noise(2, 227, seed=1))
    for name, player in players.items():
        same = all(map(torch.equal, before[name], player.module.parameters()))
        assert same == (name == paused)
        assert player.updates == (0 if name == paused else 1)
    assert losses["discriminator_loss"] > 0
    assert losses["adversarial_loss"] > 0


def test_learning_rate_schedules():
    config = PRESETS["paper"]
    assert learning_rate(config, 0) == 2e-4
    assert [learning_rate(config, n) for n in (299_999, 300_000, 500_000, 1_100_000)] == [2e-4, 1e-4, 5e-5, 6.25e-6]
    cosine = PRESETS["demo"].updated({"steps": 100, "learning_rate": 1.0, "schedule": "cosine", "warm_up": 0})
    assert [learning_rate(cosine, n) for n in (0, 50, 100, 200)] == pytest.approx([1, 0.5, 0, 0])
    rising = replace(cosine, schedule="constant", warm_up=4)
    assert [learning_rate(rising, n) for n in (0, 1, 3, 4, 99)] == [0.25, 0.5, 1, 1, 1]


def test_weight_decay_groups():
    models = models_of(PRESETS["release"].updated({"layer": "pool5", "width": 1 / 64}))
    decays = {
        name: group["weight_decay"]
        for group in models.generator.optimizer.param_groups
        for name, parameter in models.generator.module.named_parameters()
        if any(parameter is entry for entry in group["params"])
    }
    assert {name for name, decay in decays.items() if decay} == {f"Rconv{i}.weight" for i in (6, 7, 8)}
    assert not any(name.startswith("deconv") and name.endswith("bias") for name in decays)  # frozen
    assert {group["weight_decay"] for group in models.discriminator.optimizer.param_groups} == {4e-4}


def test_groups_go_by_roles_and_not_by_names():
    roles = {"Rconv6": "upconv", "deconv1": "feature", "defc7": "plain"}
    layers = tuple(Layer(name, "conv", 3, 3, role=role) for name, role in roles.items())
    generator = Generator(GeneratorSpec("made", (3, 240, 240), layers))
    config = PRESETS["release"]
    biases, decayed, plain = layer_optimizer(generator, config, fused=False).param_groups
    assert [group["weight_decay"] for group in (biases, decayed, plain)] == [0, config.weight_decay, 0]
    names = {id(parameter): name for name, parameter in generator.named_parameters()}
    assert [names[id(parameter)] for parameter in decayed["params"]] == ["deconv1.weight"]
    assert [names[id(parameter)] for parameter in plain["params"]] == ["Rconv6.weight", "defc7.weight"]
    assert [names[id(parameter)] for parameter in biases["params"]] == ["deconv1.bias", "defc7.bias"]
    muon = layer_optimizer(generator, replace(config, optimizer="muon"), fused=False)
    named = [[layer.name for layer in group.get("layers", ())] for group in muon.param_groups]
    assert named == [[], ["deconv1"], ["Rconv6", "defc7"]]
    assert not generator.Rconv6.bias.requires_grad
    generator.add_module("head", torch.nn.Linear(1, 1))  # would stay as it was drawn
    with pytest.raises(ValueError, match=r"^head\.weight: learns, but no layer of the table has it"):
        layer_optimizer(generator, config, fused=False)
    layer_optimizer(free := Generator(generator.spec), replace(config, frozen_biases=False), fused=False)
    assert free.Rconv6.bias.requires_grad
