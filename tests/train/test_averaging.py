"""Running averages of weights: the rule, their use for a while, and a run that validates, resumes and exports them."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from deepsim.export.sources import load_run  # noqa: E402
from deepsim.runtime.run_folder import AVERAGE, GENERATOR  # noqa: E402
from deepsim.train import loop  # noqa: E402
from deepsim.train.averaging import Average  # noqa: E402
from deepsim.train.checkpoints import load_checkpoint  # noqa: E402
from deepsim.train.distributed import World  # noqa: E402
from deepsim.train.models import build_models  # noqa: E402
from deepsim.train.weights import read_weights  # noqa: E402
from tests.train.runs import TINY, digests, tiny_run, write_photographs  # noqa: E402

AVERAGED = TINY.updated({"average": 0.9, "optimizer": "muon", "warm_up": 4})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short run whose generator is averaged: its folder, its photographs and its outcome."""
    folder = tmp_path_factory.mktemp("averaged")
    photos = write_photographs(folder / "photos")
    return folder / "run", photos, loop.train(AVERAGED, tiny_run(folder / "run", photos))


def test_the_average_forgets_what_it_began_with():
    module = torch.nn.Linear(1, 1, bias=False)
    average = Average(module, 0.5)
    expected = module.weight.item()
    for update in range(1, 12):
        module.weight.data.fill_(update)
        average.update(update)
        decay = min(0.5, (1 + update) / (10 + update))
        expected = decay * expected + (1 - decay) * update
    assert float(average.state_dict()["weight"]) == pytest.approx(expected)
    with average.in_use():
        assert module.weight.item() == pytest.approx(expected)
    assert module.weight.item() == 11


def test_weights_come_back_after_an_error():
    module = torch.nn.Linear(1, 1)
    average, own = Average(module, 0.9), module.weight.item()
    average._values["weight"].fill_(5)
    with pytest.raises(KeyError), average.in_use():
        raise KeyError
    assert module.weight.item() == own


def test_the_average_of_another_network_is_refused():
    with pytest.raises(RuntimeError, match=r"^weight: \(1, 2\), expected \(1, 1\)"):
        Average(torch.nn.Linear(1, 1), 0.9).load_state_dict(torch.nn.Linear(2, 1).state_dict())


def test_a_resumed_run_has_the_same_averages(run, tmp_path):
    _, photos, whole = run
    loop.train(AVERAGED.updated({"steps": 5}), tiny_run(tmp_path, photos))
    outcome = loop.train(AVERAGED, tiny_run(tmp_path, photos, "auto"))
    assert digests(outcome.checkpoint) == digests(whole.checkpoint)
    assert digests(outcome.checkpoint / AVERAGE) == digests(whole.checkpoint / AVERAGE) != {}


def test_the_average_is_validated_and_exported(run):
    folder, _, outcome = run
    averaged = read_weights(outcome.checkpoint / AVERAGE / GENERATOR)
    last = read_weights(outcome.checkpoint / GENERATOR)
    assert any(not torch.equal(averaged[name], last[name]) for name in last)
    exported = load_run(folder).generator_weights
    for name, value in averaged.items():
        assert np.array_equal(exported[name], value.numpy())
    models = build_models(AVERAGED, torch.device("cpu"), World(), folder)
    load_checkpoint(outcome.checkpoint, models)
    photos = np.load(folder / "previews/photographs.npy")
    with_average = loop.reconstruct(models, photos)
    models.generator.module.load_state_dict(averaged)
    models.generator.average = None
    assert np.array_equal(loop.reconstruct(models, photos), with_average)
