"""The exportable part of a run: the same bundle, and nothing of the photographs or of the machine."""

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("torch")

from deepsim.export.sources import load_run
from deepsim.runtime.errors import CheckpointError, UsageError
from deepsim.train import loop, pack
from tests.train.runs import TINY, tiny_run, write_photographs


@pytest.fixture(
    scope="module", params=[{}, {"average": 0.9}, {"task": "autoencoder"}], ids=["plain", "average", "code"]
)
def run(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("packed")
    photos = write_photographs(folder / "photos")
    loop.train(TINY.updated({"steps": 2, **request.param}), tiny_run(folder / "run", photos))
    return folder / "run"


def test_the_copy_exports_to_the_same_networks(run, tmp_path):
    pack.pack(run, tmp_path / "kept")
    whole, kept = load_run(run), load_run(tmp_path / "kept")
    for theirs, ours in (
        (whole.encoder_weights, kept.encoder_weights),
        (whole.generator_weights, kept.generator_weights),
    ):
        assert list(ours) == list(theirs)
        assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)
    assert (kept.encoder, kept.generator) == (whole.encoder, whole.generator)
    assert len(kept.photographs) == 0


def test_nothing_of_the_photographs_or_the_machine_is_in_it(run, tmp_path):
    pack.pack(run, tmp_path / "kept")
    found = {path.name for path in (tmp_path / "kept").rglob("*") if path.is_file()}
    assert found == {"config.json", "encoder.safetensors", "generator.safetensors", "state.json", "latest"}
    for path in (tmp_path / "kept").rglob("*.json"):
        text = path.read_text()
        assert str(run.parent) not in text
        assert "photo-" not in text


def test_a_weights_file_keeps_its_name_only(run):
    config = pack.TrainConfig().updated({"encoder_weights": "/somewhere/on/this/machine/caffenet.safetensors"})
    assert pack._without_paths(config).encoder_weights == "caffenet.safetensors"


def test_what_cannot_be_copied_is_refused(run, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="no checkpoint"):
        pack.pack(tmp_path / "empty", tmp_path / "kept")
    assert not (tmp_path / "kept").exists()
    with pytest.raises(UsageError, match="lies in the run"):
        CliRunner().invoke(pack.main, [str(run), str(run / "kept")], catch_exceptions=False)
