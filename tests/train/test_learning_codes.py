"""The small presets of codes learn in a minute: held-out photographs come back better than as the mean image."""

import json
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("skimage")

from deepsim.runtime.images import read_image  # noqa: E402
from deepsim.runtime.metrics import normalized_error  # noqa: E402
from deepsim.train import loop  # noqa: E402
from deepsim.train.config import PRESETS  # noqa: E402
from deepsim.train.data import DeadLeavesDataset, FolderDataset, MixedDataset  # noqa: E402
from deepsim.train.photographs import write_photographs  # noqa: E402
from tests.train.runs import tiny_run  # noqa: E402

STEPS = {"autoencoder-demo": 150, "vae-image-demo": 150, "vae-demo": 300}
BATCHES = {"autoencoder-demo": 8, "vae-image-demo": 4, "vae-demo": 4}


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("skimage") / "photographs"
    write_photographs(folder)
    return folder


def log_and_baseline(folder):
    """Return a run's log, and the normalised error of its mean training image on the validation photographs."""
    photos = np.load(folder / "previews/photographs.npy").reshape(4, -1).astype(np.float32)
    mean = read_image(folder / "mean_image.png").reshape(1, -1).astype(np.float32)
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return lines, normalized_error(np.repeat(mean, 4, axis=0), photos)


@pytest.mark.slow
@pytest.mark.parametrize("preset", STEPS)
def test_codes_beat_the_mean_image(tmp_path, photographs, preset):
    length = {"steps": STEPS[preset], "batch": BATCHES[preset], "validate_every": 1000, "log_every": 1000}
    config = PRESETS[preset].updated(length)
    training = MixedDataset([(FolderDataset([photographs / "train"]), 8), (DeadLeavesDataset(100, 0), 1)])
    held_out = FolderDataset([photographs / "held-out"])
    run = replace(tiny_run(tmp_path, photographs / "train"), dataset=training, validation=held_out)
    loop.train(config, run)
    lines, mean = log_and_baseline(tmp_path)
    assert lines[-1]["validation_error"] < 0.985 * mean
    if "vae" in preset:
        assert 0 < lines[-1]["validation_kl"] < 200
        assert lines[-1]["collapsed_units"] < config.latent
