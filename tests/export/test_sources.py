"""Run folders load with their weights checked; damaged ones are named."""

import json
import os

import numpy as np
import pytest
import torch

from deepsim.export.calibration import calibration_images
from deepsim.export.random_weights import IMAGE_STD, random_generator_weights
from deepsim.export.sources import check_output, load_run, newest_run, random_source
from deepsim.export.torch_networks import decode, tensors
from deepsim.runtime.errors import CheckpointError, UsageError
from deepsim.runtime.files import ASIDE
from deepsim.runtime.generators import generator_spec
from deepsim.runtime.processes import stamp
from deepsim.train.weights import read_weights, write_weights


def test_run_and_checkpoint_folder_are_the_same(run_folder, tiny_source):
    for path in (run_folder, run_folder / "checkpoints" / "step-00000020"):
        loaded = load_run(path)
        assert loaded.layer == "norm1" and loaded.encoder.layers[-1].name == "norm1"
        for name, value in tiny_source.generator_weights.items():
            np.testing.assert_array_equal(loaded.generator_weights[name], value)
        np.testing.assert_array_equal(loaded.photographs, calibration_images(2, 227, seed=9))
        assert loaded.provenance["step"] == 20 and loaded.provenance["run"] == "tiny"
        assert loaded.provenance["config"]["encoder_weights"] == "caffenet.pt"  # no folders of the machine


GENERATOR = "checkpoints/step-00000020/generator.safetensors"


def change(run, name, key, value):
    weights = dict(read_weights(run / name))
    if value is None:
        del weights[key]
    else:
        weights[key] = value(weights[key]) if callable(value) else value
    write_weights(run / name, weights)


def poison(tensor):
    tensor = tensor.clone()
    tensor.view(-1)[-1] = float("nan")
    return tensor


FAULTS = {
    "missing key": lambda run: change(run, GENERATOR, "Rconv6.bias", None),
    "shape": lambda run: change(run, GENERATOR, "deconv4.weight", torch.zeros(3, 3)),
    "not finite": lambda run: change(run, GENERATOR, "conv1_1.weight", poison),
    "integers": lambda run: change(run, GENERATOR, "conv1_1.bias", torch.zeros(3, dtype=torch.int64)),
    "other network": lambda run: change(run, GENERATOR, "defc7.weight", torch.zeros(2)),
    "encoder not finite": lambda run: change(run, "encoder.safetensors", "conv1.weight", poison),
    "encoder missing": lambda run: (run / "encoder.safetensors").unlink(),
    "truncated": lambda run: os.truncate(run / GENERATOR, 100),
    "config missing": lambda run: (run / "config.json").unlink(),
    "config no object": lambda run: (run / "config.json").write_text("[1]"),
    "config without layer": lambda run: (run / "config.json").write_text(json.dumps({"encoder": "caffenet"})),
    "config of another layer": lambda run: (run / "config.json").write_text('{"encoder": "caffenet", "layer": "xx"}'),
    "state damaged": lambda run: (run / "checkpoints/step-00000020/state.json").write_text("{"),
    "latest outside": lambda run: (run / "checkpoints/latest").write_text("../../other"),
    "latest missing": lambda run: (run / "checkpoints/latest").unlink(),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_damaged_run_is_refused(run_folder, fault):
    FAULTS[fault](run_folder)
    with pytest.raises(CheckpointError, match=r"runs/tiny.*: .*(, expected .*|\. [A-Z].*)\.$"):
        load_run(run_folder)


def test_encoder_may_hold_later_layers(run_folder):
    change(run_folder, "encoder.safetensors", "conv2.weight", torch.zeros(2))
    assert "conv2.weight" not in load_run(run_folder).encoder_weights


def test_newest_run(run_folder, tmp_path):
    older = tmp_path / "runs" / "older" / "checkpoints"
    older.mkdir(parents=True)
    (older / "latest").write_text("x")
    os.utime(older / "latest", (0, 0))
    assert newest_run(tmp_path / "runs") == run_folder
    with pytest.raises(UsageError, match="--random"):
        newest_run(tmp_path / "nothing")


def test_random_source_is_seeded():
    first, again = random_source("norm1", seed=1), random_source("norm1", seed=1)
    for name, value in first.generator_weights.items():
        np.testing.assert_array_equal(value, again.generator_weights[name])
    features = np.ones((1, *first.generator.input_shape), np.float32)
    other = random_generator_weights(first.generator, features, seed=2)
    assert not np.array_equal(first.generator_weights["Rconv6.weight"], other["Rconv6.weight"])


@pytest.mark.parametrize(("layer", "width"), [("norm2", 0.125), ("fc6", 1 / 64)])
def test_random_generator_has_contrast(layer, width):
    spec = generator_spec(layer, width=width)
    features = np.random.default_rng(0).standard_normal((2, *spec.input_shape)).astype(np.float32)
    weights = random_generator_weights(spec, features)
    images = decode(spec, tensors(weights), features)
    assert IMAGE_STD * 0.8 < images.std() < IMAGE_STD * 1.25


def test_an_output_that_would_replace_what_is_exported(run_folder, tmp_path):
    (tmp_path / "link").symlink_to(run_folder)
    checkpoint = run_folder / "checkpoints" / "step-00000020"
    for output in (run_folder, run_folder.parent, tmp_path / "link", checkpoint, checkpoint / "b", checkpoint.parent):
        for source in (run_folder, checkpoint):
            with pytest.raises(UsageError, match="holds the checkpoints that are exported"):
                check_output(source, output)
    for output in (run_folder / "norm1.deepsim", run_folder.parent / "b.deepsim"):
        check_output(run_folder, output)


def test_a_checkpoint_moved_aside_by_a_killed_process_is_found(run_folder):
    checkpoint = run_folder / "checkpoints/step-00000020"
    checkpoint.rename(checkpoint.with_name(stamp(checkpoint.name, ASIDE)))
    assert load_run(run_folder).provenance["step"] == 20
