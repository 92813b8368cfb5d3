"""The loop: exact resume, logs, pictures, signals, refusals, NaN."""

import dataclasses
import json
import math
import os
import signal
import threading

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from deepsim.runtime.errors import CheckpointError, NumericError, OutOfMemory, UsageError  # noqa: E402
from deepsim.runtime.images import read_image  # noqa: E402
from deepsim.runtime.locks import locked  # noqa: E402
from deepsim.train import loop, objective  # noqa: E402
from deepsim.train.checkpoints import newest_checkpoints, read_state  # noqa: E402
from deepsim.train.distributed import World  # noqa: E402
from deepsim.train.weights import read_weights  # noqa: E402
from tests.train.runs import TINY, digests, tiny_run, write_photographs  # noqa: E402


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return write_photographs(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory, photos):
    """An uninterrupted run of 12 steps."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, loop.train(TINY, tiny_run(folder, photos))


def lines(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_a_run_leaves_what_the_documentation_names(whole):
    folder, outcome = whole
    assert (outcome.step, outcome.signal) == (12, None)
    assert outcome.checkpoint.name == (folder / "checkpoints/latest").read_text().strip() == "step-00000012"
    assert {path.name for path in outcome.checkpoint.iterdir()} == {
        "generator.safetensors", "discriminator.safetensors", "optimizer.safetensors", "state.json",
    }  # fmt: skip
    assert json.loads((folder / "config.json").read_text())["layer"] == "norm1"
    assert json.loads((folder / "data.json").read_text())["training"] == "5 photographs"
    assert read_image(folder / "mean_image.png").shape == (227, 227, 3)
    picture = read_image(folder / "images/step-00000006.png")
    assert picture.shape == (2 * 227, 5 * 227, 3)
    previews = np.load(folder / "previews/photographs.npy", allow_pickle=False)
    np.testing.assert_array_equal(np.concatenate(list(previews), axis=1), picture[:227])
    assert "conv1.weight" in read_weights(folder / "encoder.safetensors")


def test_log_has_every_loss_of_every_step(whole):
    found = lines(whole[0])
    assert [line["step"] for line in found] == list(range(1, 13))
    for line in found:
        weighted = (
            TINY.lambda_img * line["image_loss"]
            + TINY.lambda_feat * line["feature_loss"]
            + TINY.lambda_adv * line["adversarial_loss"]
        )
        assert line["generator_loss"] == pytest.approx(weighted, rel=1e-4)  # Eq. 1
        assert line["discriminator_loss"] > 0
    assert {line["step"] for line in found if "validation_error" in line} == {6, 12}
    assert [line["seconds"] for line in found] == sorted(line["seconds"] for line in found)


def test_checkpoints_are_pruned_to_three_and_the_best(whole):
    folder, _ = whole
    best = (folder / "checkpoints/best").read_text().strip()
    kept = {path.name for path in newest_checkpoints(folder)}
    assert kept == {"step-00000012", "step-00000009", "step-00000006", best}


@pytest.mark.parametrize("stop", [1, 5, 7])
def test_resumed_equals_uninterrupted(tmp_path, photos, whole, stop):
    loop.train(TINY.updated({"steps": stop}), tiny_run(tmp_path, photos))
    outcome = loop.train(TINY, tiny_run(tmp_path, photos, "auto"))
    assert digests(outcome.checkpoint) == digests(whole[1].checkpoint)
    assert [line["image_loss"] for line in lines(tmp_path)] == [line["image_loss"] for line in lines(whole[0])]


def test_a_named_checkpoint_goes_on_in_a_new_folder(tmp_path, photos, whole):
    folder, outcome = whole
    begun = folder / "checkpoints/step-00000006"
    resumed = loop.train(TINY, tiny_run(tmp_path / "new", photos, str(begun)))
    assert digests(resumed.checkpoint) == digests(outcome.checkpoint)
    assert (tmp_path / "new/encoder.safetensors").read_bytes() == (folder / "encoder.safetensors").read_bytes()


def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(tmp_path, photos, whole, caplog):
    loop.train(TINY.updated({"steps": 9}), tiny_run(tmp_path, photos))
    path = tmp_path / "checkpoints/step-00000009/generator.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    outcome = loop.train(TINY, tiny_run(tmp_path, photos, "auto"))
    assert "step-00000009" in caplog.text
    assert digests(outcome.checkpoint) == digests(whole[1].checkpoint)


def test_a_named_checkpoint_does_not_go_on_among_later_ones(whole, photos):
    folder, _ = whole
    with pytest.raises(UsageError, match=r"step-00000012, later than .*step-00000006"):
        loop.train(TINY, tiny_run(folder, photos, str(folder / "checkpoints/step-00000006")))
    assert newest_checkpoints(folder)[0].name == "step-00000012"


def test_no_readable_checkpoint_is_an_error_not_a_new_beginning(tmp_path, photos):
    loop.train(TINY.updated({"steps": 1}), tiny_run(tmp_path, photos))
    (tmp_path / "checkpoints/step-00000001/optimizer.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match="none of 1 checkpoints"):
        loop.train(TINY, tiny_run(tmp_path, photos, "auto"))


def test_a_folder_that_holds_a_run_is_refused(whole, photos):
    with pytest.raises(UsageError, match="--resume auto"):
        loop.train(TINY, tiny_run(whole[0], photos))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_finish_the_step_save_and_stop(tmp_path, photos, number):
    timer = threading.Timer(0.8, os.kill, (os.getpid(), number))
    timer.start()
    outcome = loop.train(TINY.updated({"steps": 100_000, "checkpoint_every": 100_000}), tiny_run(tmp_path, photos))
    assert outcome.signal == number
    assert read_state(outcome.checkpoint)["step"] == outcome.step < 100_000


def test_sigusr1_saves_and_goes_on(tmp_path, photos, monkeypatch):
    real = loop.train_step

    def counted(models, batch, seen=[]):  # noqa: B006
        seen.append(1)
        if len(seen) == 2:
            os.kill(os.getpid(), signal.SIGUSR1)
        return real(models, batch)

    monkeypatch.setattr(loop, "train_step", counted)
    loop.train(TINY.updated({"steps": 4, "checkpoint_every": 100}), tiny_run(tmp_path, photos))
    assert {path.name for path in newest_checkpoints(tmp_path)} == {"step-00000002", "step-00000004"}


def replace_image_loss(monkeypatch, function):
    first, *others = objective.TERMS
    monkeypatch.setattr(objective, "TERMS", (dataclasses.replace(first, function=function), *others))


def test_nan_stops_at_once_and_is_never_saved(tmp_path, photos, monkeypatch):
    def poisoned(made):
        poisoned.calls += 1
        return made.fake.sum() * (math.nan if poisoned.calls == 3 else 0.0)

    poisoned.calls = 0
    replace_image_loss(monkeypatch, poisoned)
    with pytest.raises(NumericError, match=r"step 2, images 4 to 5.*image_loss: nan"):
        loop.train(TINY.updated({"checkpoint_every": 1}), tiny_run(tmp_path, photos))
    saved = newest_checkpoints(tmp_path)
    assert saved[0].name == "step-00000002"
    for tensor in read_weights(saved[0] / "generator.safetensors").values():
        assert tensor.isfinite().all()


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory:\nyou tried"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB"),
        MemoryError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_lack_of_memory_is_one_line(tmp_path, photos, monkeypatch, error):
    def fails(models, batch):
        raise error

    monkeypatch.setattr(loop, "train_step", fails)
    with pytest.raises(OutOfMemory, match=r"^batch 2, width 0\.015625: not enough memory .*Use smaller ones\.$"):
        loop.train(TINY, tiny_run(tmp_path, photos))


def test_infinite_gradients_stop_before_the_update(tmp_path, photos, monkeypatch):
    def steep(made):
        return (made.fake - made.fake.detach()).abs().sqrt().sum()  # 0 with an infinite gradient

    replace_image_loss(monkeypatch, steep)
    with pytest.raises(NumericError, match="gradient norm"):
        loop.train(TINY.updated({"lambda_adv": 0, "lambda_feat": 0}), tiny_run(tmp_path, photos))


@pytest.mark.parametrize(
    "change",
    [
        {"lambda_adv": 0},
        {"lambda_feat": 0},
        {"lambda_img": 0},
        {"lambda_adv": 0, "lambda_feat": 0},
        {"conditional": True},
        {"comparator_seed": 9, "comparator": "norm2"},
        {"comparator": "pool5"},
        {"normalisation": "paper", "lambda_adv": 1.0},
        {"precision": "bf16"},
        {"frozen_biases": True, "weight_decay": 4e-4},
        {"encoder": "alexnet", "layer": "pool1", "comparator": "pool2"},
        {"channels_last": False},
    ],
    ids=str,
)
def test_variants_train_and_log_what_they_use(tmp_path, photos, change):
    config = TINY.updated({"steps": 2, **change})
    outcome = loop.train(config, tiny_run(tmp_path, photos))
    last = lines(tmp_path)[-1]
    for name, weight in (("image", "lambda_img"), ("feature", "lambda_feat"), ("adversarial", "lambda_adv")):
        assert (last[f"{name}_loss"] is not None) == (getattr(config, weight) > 0)
    weights = read_weights(outcome.checkpoint / "generator.safetensors")
    if config.frozen_biases:
        assert not weights["deconv1.bias"].any()
        assert weights["Rconv6.bias"].any()
    resumed = loop.train(config.updated({"steps": 3}), tiny_run(tmp_path, photos, "auto"))
    assert resumed.step == 3


def test_learning_reduces_the_error(tmp_path, photos):
    config = TINY.updated({"width": 0.25, "lambda_adv": 0, "lambda_feat": 0, "steps": 40, "image_every": 100})
    loop.train(config.updated({"batch": 4, "validate_every": 20}), tiny_run(tmp_path, photos))
    errors = [line["validation_error"] for line in lines(tmp_path) if "validation_error" in line]
    assert errors[-1] < 0.8 * errors[0] or errors[-1] < 0.5
    assert np.isfinite(errors).all()


def test_a_folder_in_use_by_another_training_is_refused_before_anything_is_written(tmp_path, photos):
    link = tmp_path / "link"
    link.symlink_to("r")
    with locked(tmp_path / "r" / loop.LOCK, "r"):
        for folder in (tmp_path / "r", link):
            with pytest.raises(
                UsageError, match=rf"^{folder}: in use by process {os.getpid()} on host .*choose another"
            ):
                loop.train(TINY, tiny_run(folder, photos))
        assert [path.name for path in (tmp_path / "r").iterdir()] == [loop.LOCK]


def test_of_several_processes_the_main_one_locks(tmp_path, photos):
    other = dataclasses.replace(tiny_run(tmp_path / "r", photos), world=World(rank=1, size=2))
    with locked(tmp_path / "r" / loop.LOCK, "r"), loop._kept_to_itself(other):
        pass


def test_a_run_leaves_no_lock(whole):
    assert not (whole[0] / loop.LOCK).exists()
