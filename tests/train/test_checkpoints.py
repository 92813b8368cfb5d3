"""What a checkpoint brings back, what it refuses, and which are kept: the last three, the best, and what is later."""

import json
import shutil

import pytest

pytest.importorskip("torch")

import torch

from deepsim.runtime.errors import CheckpointError, NumericError
from deepsim.runtime.files import ASIDE
from deepsim.runtime.processes import stamp
from deepsim.runtime.run_folder import GENERATOR, OPTIMIZER, STATE, checkpoint_folder
from deepsim.train.checkpoints import (
    _remove_old,
    load_checkpoint,
    load_newest,
    mark_best,
    newest_checkpoints,
    read_state,
    save_checkpoint,
)
from deepsim.train.distributed import World
from deepsim.train.encoders import pink_noise
from deepsim.train.models import build_models
from deepsim.train.step import train_step
from deepsim.train.weights import read_weights, write_weights
from tests.train.runs import TINY


@pytest.mark.parametrize(
    ("present", "best", "saved", "kept"),
    [
        ((1, 2, 3, 4), None, 4, {2, 3, 4}),
        ((1, 2, 3, 4, 5), 1, 5, {1, 3, 4, 5}),
        ((6, 7, 9, 10, 11), None, 7, {6, 7, 9, 10, 11}),  # 9 to 11 turned out damaged, the run went on from 6
        ((3, 4, 5, 6, 9), None, 6, {4, 5, 6, 9}),
    ],
)
def test_kept(tmp_path, present, best, saved, kept):
    for step in present:
        checkpoint_folder(tmp_path, step).mkdir(parents=True)
    if best is not None:
        mark_best(checkpoint_folder(tmp_path, best))
    _remove_old(checkpoint_folder(tmp_path, saved))
    left = {int(path.name.removeprefix("step-")) for path in (tmp_path / "checkpoints").glob("step-*")}
    assert left == kept


def test_a_checkpoint_moved_aside_by_a_killed_process_is_found(tmp_path):
    checkpoint = checkpoint_folder(tmp_path, 7)
    aside = checkpoint.with_name(stamp(checkpoint.name, ASIDE))
    aside.mkdir(parents=True)
    (aside / STATE).touch()
    assert newest_checkpoints(tmp_path) == [checkpoint] and not aside.exists()


def test_an_old_checkpoint_is_gone_before_its_first_file_is(tmp_path, monkeypatch):
    for step in range(1, 5):
        checkpoint_folder(tmp_path, step).mkdir(parents=True)
        (checkpoint_folder(tmp_path, step) / STATE).touch()
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        _remove_old(checkpoint_folder(tmp_path, 4))
    assert newest_checkpoints(tmp_path) == [checkpoint_folder(tmp_path, step) for step in (4, 3, 2)]


AUTOENCODER = TINY.updated({"task": "autoencoder", "lambda_feat": 0})


def models_of(config=AUTOENCODER):
    return build_models(config, torch.device("cpu"), World())


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The checkpoint of one step, and the networks that it is of."""
    models = models_of()
    train_step(models, pink_noise(2, 227, seed=1))
    target = checkpoint_folder(tmp_path_factory.mktemp("run"), 1)
    models.pausing.discriminator_trains = False
    save_checkpoint(target, models, 1, 0.25)
    return target, models


@pytest.fixture
def copy(saved, tmp_path):
    """A checkpoint that a test may damage."""
    return shutil.copytree(saved[0], checkpoint_folder(tmp_path, 1))


def test_a_checkpoint_brings_everything_back(saved):
    target, models = saved
    found = models_of()
    state = load_checkpoint(target, found)
    assert (state["step"], state["best_error"]) == (1, 0.25)
    assert found.pausing == models.pausing
    assert set(found.players) == {"generator", "encoder", "discriminator"}
    for name, player in found.players.items():
        expected = models.players[name]
        assert player.updates == expected.updates == 1
        for key, value in expected.module.state_dict().items():
            assert torch.equal(player.module.state_dict()[key], value), f"{name} {key}"
        pairs = zip(player.module.parameters(), expected.module.parameters(), strict=True)
        for mine, theirs in pairs:
            moments, wanted = player.optimizer.state[mine], expected.optimizer.state[theirs]
            assert all(torch.equal(moments[key], wanted[key]) for key in ("exp_avg", "exp_avg_sq", "step"))
            assert moments["exp_avg"].stride() == mine.stride()


@pytest.mark.parametrize("name", ["generator", "encoder", "discriminator"])
def test_weights_that_are_not_finite_are_not_saved(tmp_path, name):
    models = models_of()
    with torch.no_grad():
        next(models.players[name].module.parameters())[0] = float("nan")
    with pytest.raises(NumericError, match=rf"^{name}\.\S+: not finite at step 3, not saved"):
        save_checkpoint(checkpoint_folder(tmp_path, 3), models, 3, None)
    assert newest_checkpoints(tmp_path) == []


@pytest.mark.parametrize("name", [GENERATOR, "encoder.safetensors", "discriminator.safetensors", OPTIMIZER])
def test_a_missing_file_is_named(copy, name):
    (copy / name).unlink()
    with pytest.raises(CheckpointError, match=f"{name}: no such file"):
        load_checkpoint(copy, models_of())


def test_weights_of_another_network_are_refused(copy):
    weights = read_weights(copy / "encoder.safetensors")
    write_weights(copy / "encoder.safetensors", {**weights, "conv1.bias": torch.zeros(5)})
    with pytest.raises(CheckpointError, match=r"of another network \(.*conv1\.bias.*\)") as caught:
        load_checkpoint(copy, models_of())
    assert "\n" not in str(caught.value)


def test_moments_of_another_network_are_refused(copy):
    moments = read_weights(copy / OPTIMIZER)
    write_weights(copy / OPTIMIZER, {**moments, "encoder/conv1.bias/exp_avg_sq": torch.zeros(5)})
    with pytest.raises(CheckpointError, match=r"encoder/conv1\.bias/exp_avg_sq has shape \(5,\)"):
        load_checkpoint(copy, models_of())


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"step": "last"}', '{"step": null}'])
def test_a_damaged_state_is_one_line(copy, content):
    (copy / STATE).write_text(content)
    with pytest.raises(CheckpointError, match=r"step-00000001: state\.json is not readable") as caught:
        read_state(copy)
    assert "\n" not in str(caught.value)


def test_the_newest_that_can_be_read_is_loaded(copy, caplog):
    later = shutil.copytree(copy, checkpoint_folder(copy.parents[1], 2))
    state = json.loads((later / STATE).read_text())
    (later / STATE).write_text(json.dumps({**state, "step": 2}))
    assert load_newest(copy.parents[1], models_of())["step"] == 2
    (later / "encoder.safetensors").write_bytes(b"")
    assert load_newest(copy.parents[1], models_of())["step"] == 1
    assert "step-00000002" in caplog.text and "Trying the one before it" in caplog.text
    assert load_newest(copy.parents[1] / "nothing", models_of()) is None
