"""With --compile every pass of a step runs compiled networks, and the losses stay those of the plain ones."""

import functools

import pytest

torch = pytest.importorskip("torch")

from deepsim.train import models as models_module  # noqa: E402
from deepsim.train.config import PRESETS  # noqa: E402
from deepsim.train.distributed import World  # noqa: E402
from deepsim.train.encoders import pink_noise  # noqa: E402
from deepsim.train.models import build_models  # noqa: E402
from deepsim.train.step import train_step  # noqa: E402

CONFIG = PRESETS["tiny"].updated({"width": 1 / 64, "conditional": True})


def steps(models):
    losses = []
    for number in range(2):
        torch.manual_seed(number)
        found = train_step(models, pink_noise(2, 227, seed=number))
        losses.append({name: value for name, value in found.items() if value is not None})
    return losses


def counted(monkeypatch):
    """Compile without a code generator, which draws other dropout; list the calls of compiled networks."""
    calls = []
    compiler = functools.partial(torch.compile, backend="aot_eager")

    def compile_and_count(module):
        compiled = compiler(module)

        def call(*arguments):
            calls.append((type(module).__name__, module.training, next(module.parameters()).requires_grad))
            return compiled(*arguments)

        return call

    monkeypatch.setattr(models_module.torch, "compile", compile_and_count)
    return calls


def test_compiled_discriminator_judges_in_both_passes(monkeypatch):
    plain = build_models(CONFIG, torch.device("cpu"), World())
    expected = steps(plain)
    calls = counted(monkeypatch)
    compiled = build_models(CONFIG.updated({"compile": True}), torch.device("cpu"), World())
    found = steps(compiled)
    one_step = [("Generator", True, True), ("Discriminator", True, True), ("Discriminator", True, False)]
    assert calls == 2 * one_step  # the last of them for the generator's loss, through frozen weights
    for mine, theirs in zip(found, expected, strict=True):
        assert mine == pytest.approx(theirs, rel=1e-5)
    for name, value in plain.discriminator.module.state_dict().items():
        torch.testing.assert_close(compiled.discriminator.module.state_dict()[name], value, rtol=1e-4, atol=1e-6)


def test_several_processes_judge_outside_of_their_wrapper(monkeypatch):
    wrapped = []
    monkeypatch.setattr(World, "wrap", lambda self, module, device: wrapped.append(module) or (lambda *x: module(*x)))
    models = build_models(CONFIG, torch.device("cpu"), World())
    assert models.discriminator.judge is models.discriminator.module
    assert models.discriminator.call is not models.discriminator.judge
    assert len(wrapped) == 2
