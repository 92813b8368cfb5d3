"""Files that earlier versions wrote: a bundle of schema 1, and a run without tasks, modules and previews."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from deepsim.runtime.bundle import Bundle
from deepsim.runtime.geometry import CAFFE_FRAMING, Geometry
from deepsim.runtime.inverter import Inverter
from tests.bundles import photographs

EARLIER = Path(__file__).parent / "data" / "earlier"


def test_a_bundle_of_schema_1_has_caffenets_geometry_and_a_table():
    manifest = Bundle.open(EARLIER / "bundle").manifest
    assert (manifest.schema, manifest.encoder_kind) == (1, "table")
    assert manifest.geometry == Geometry(CAFFE_FRAMING, 14)
    assert manifest.encoder.framing == CAFFE_FRAMING


def test_a_bundle_of_schema_1_gives_the_bytes_of_the_same_in_schema_2(tmp_path):
    newer = tmp_path / "newer.deepsim"
    shutil.copytree(EARLIER / "bundle", newer)
    (newer / "manifest.json").write_bytes(Bundle.open(newer).manifest.to_bytes())
    assert json.loads((newer / "manifest.json").read_bytes())["schema"] == 2
    with Inverter(EARLIER / "bundle", "cpu") as first, Inverter(newer, "cpu") as second:
        photos = photographs(2)
        features = first.encode(photos)
        np.testing.assert_array_equal(second.encode(photos), features)
        for full in (False, True):
            np.testing.assert_array_equal(second.decode(features, full), first.decode(features, full))
        assert first.decode(features).std() > 10


def test_a_run_of_an_earlier_version_goes_on_and_is_exported(tmp_path):
    pytest.importorskip("torch")
    from deepsim.export.sources import load_run
    from deepsim.train.config import TrainConfig, read_config
    from deepsim.train.loop import train
    from deepsim.train.weights import read_weights
    from tests.train.runs import tiny_run, write_photographs

    run = tmp_path / "run"
    shutil.copytree(EARLIER / "run", run)
    before = read_weights(run / "checkpoints/step-00000002/generator.safetensors")
    loaded = load_run(run)
    assert loaded.photographs.shape == (0, 227, 227, 3)
    assert all(np.array_equal(loaded.generator_weights[name], value.numpy()) for name, value in before.items())
    config = TrainConfig().updated(read_config(run / "config.json")).updated({"steps": 3})
    photos = write_photographs(tmp_path / "photos")
    assert train(config, tiny_run(run, photos, resume="auto")).step == 3
    after = load_run(run)
    assert after.provenance["step"] == 3
    name = "conv1_1.weight"
    assert 0 < np.abs(after.generator_weights[name] - loaded.generator_weights[name]).max() < 0.01
    assert np.array_equal(after.encoder_weights["conv1.weight"], loaded.encoder_weights["conv1.weight"])
