"""A tiny network and a run folder around it: the CaffeNet's first block, a sixteenth of its generator."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from deepsim.export.calibration import calibration_images
from deepsim.export.random_weights import random_generator_weights
from deepsim.export.sources import Source
from deepsim.export.torch_networks import encode
from deepsim.runtime.generators import generator_spec
from deepsim.runtime.images import save_png
from deepsim.runtime.networks import CAFFENET
from deepsim.train.encoders import random_encoder
from deepsim.train.weights import write_weights

WIDTH = 0.0625


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_source():
    encoder = replace(CAFFENET, layers=CAFFENET.up_to("norm1"))
    generator = generator_spec("norm1", CAFFENET, WIDTH)
    weights = random_encoder(encoder, "norm1", 3).state_dict()
    features = encode(encoder, "norm1", weights, calibration_images(2, 227))
    return Source(
        encoder,
        generator,
        {name: value.numpy() for name, value in weights.items()},
        random_generator_weights(generator, features, 3),
        np.zeros((0, 227, 227, 3), np.uint8),
        {"from": "random weights", "seed": 3},
    )


def as_tensors(weights):
    return {name: torch.from_numpy(value) for name, value in weights.items()}


def write_run(run, source):
    """Write what training writes and export reads."""
    checkpoint = run / "checkpoints" / "step-00000020"
    checkpoint.mkdir(parents=True)
    write_weights(run / "encoder.safetensors", as_tensors(source.encoder_weights))
    write_weights(checkpoint / "generator.safetensors", as_tensors(source.generator_weights))
    config = {"layer": "norm1", "encoder": "caffenet", "width": WIDTH, "encoder_weights": "/home/someone/caffenet.pt"}
    (run / "config.json").write_text(json.dumps(config))
    (checkpoint / "state.json").write_text(json.dumps({"step": 20, "torch": "2.15.0"}))
    (checkpoint.parent / "latest").write_text("step-00000020\n")
    row = np.concatenate(list(calibration_images(2, 227, seed=9)), axis=1)
    save_png(np.concatenate([row, row], axis=0), run / "images" / "step-00000020.png")
    return run


@pytest.fixture
def run_folder(tmp_path, tiny_source):
    return write_run(tmp_path / "runs" / "tiny", tiny_source)
