"""The example of a closed loop: a simulated neuron comes to fire more, and a stopped search goes on."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from deepsim.runtime.images import image_size

EXAMPLE = Path(__file__).resolve().parents[4] / "examples/python/closed_loop.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("closed_loop_example", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def means(told):
    return [float(line.split(": ")[1].split()[0]) for line in told.splitlines() if line.startswith("generation")]


def test_the_neuron_fires_more(example, bundle, tmp_path, capsys):
    folder = str(tmp_path / "run")
    example.main([str(bundle), folder, "--unit", "11", "--generations", "8"])
    first = means(capsys.readouterr().out)
    example.main([str(bundle), folder, "--unit", "11", "--generations", "12"])
    last = means(capsys.readouterr().out)
    assert (len(first), len(last)) == (8, 4)
    assert np.mean(last) > 1.3 * first[0]
    assert image_size(f"{folder}/best.png") == (28, 28) and image_size(f"{folder}/strips/gen011.png") == (
        28,
        8 * 28,
    )


def test_spikes_follow_poissons_law(example, inverter):
    neuron = example.Neuron(inverter, (11,), gain=2.0, seed=1)
    images = inverter.decode(np.random.RandomState(0).randn(4, 20).astype(np.float32))
    spikes, expected = neuron.spikes(images, 4000), 2 * neuron.activity(images)
    assert spikes.shape == (4, 4000)
    np.testing.assert_allclose(spikes.mean(axis=1), expected, rtol=0.05)
    np.testing.assert_allclose(spikes.var(axis=1), expected, rtol=0.1)
