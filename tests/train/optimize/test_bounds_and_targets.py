"""Bounds in all their forms, names of layers, the thread beside the computation, and random numbers."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from deepsim.runtime.errors import DataError, DeviceError, UsageError  # noqa: E402
from deepsim.runtime.features.statistics import Statistics  # noqa: E402
from deepsim.train.optimize.bounds import parse_bounds  # noqa: E402
from deepsim.train.optimize.lockstep import minimise  # noqa: E402
from deepsim.train.optimize.place import Place  # noqa: E402
from deepsim.train.optimize.randomness import Stream  # noqa: E402
from deepsim.train.optimize.settings import Settings  # noqa: E402
from deepsim.train.optimize.targets import layers_in, tap_of  # noqa: E402


def values(bounds):
    return [None if bound is None else bound.tolist() for bound in bounds]


def test_bounds_of_numbers():
    assert values(parse_bounds("none", (3,), Place())) == [None, None]
    assert values(parse_bounds("0,100", (3,), Place())) == [0, 100]
    assert values(parse_bounds(",2.5", (3,), Place())) == [None, 2.5]
    with pytest.raises(UsageError, match="3 is above 1"):
        parse_bounds("3,1", (3,), Place())


def test_bounds_of_files(tmp_path):
    (tmp_path / "fc.txt").write_text("3 17 4 ")  # act_range/3x, with its trailing space
    assert values(parse_bounds(str(tmp_path / "fc.txt"), (3,), Place())) == [0, [3, 17, 4]]
    channels = parse_bounds(str(tmp_path / "fc.txt"), (3, 2, 2), Place())[1]
    assert channels.shape == (3, 1, 1)
    np.save(tmp_path / "units.npy", np.arange(12.0))
    assert parse_bounds(str(tmp_path / "units.npy"), (3, 2, 2), Place())[1].shape == (3, 2, 2)
    with pytest.raises(DataError, match="3 bounds, expected 7, one per unit"):
        parse_bounds(str(tmp_path / "fc.txt"), (7,), Place())
    (tmp_path / "bad.txt").write_text("1 -2 3")
    with pytest.raises(DataError, match="negative or not finite"):
        parse_bounds(str(tmp_path / "bad.txt"), (3,), Place())
    with pytest.raises(DataError, match="no such file"):
        parse_bounds(str(tmp_path / "absent.txt"), (3,), Place())


def test_bounds_of_a_bundles_statistics():
    known = Statistics(mean=np.array([1.0, -9.0]), sd=np.array([0.5, 1.0]))
    assert values(parse_bounds("bundle", (2,), Place(), known)) == [0, [2.5, 0]]
    assert values(parse_bounds("bundle,2", (2,), Place(), known)) == [0, [2, 0]]
    with pytest.raises(UsageError, match="expected bundle, or bundle,K"):
        parse_bounds("bundle,x", (2,), Place(), known)


@pytest.mark.parametrize(
    ("name", "tap"),
    [
        ("conv5_4", "conv5_4:linear"),
        ("relu5_4", "conv5_4"),
        ("fc8", "fc8:linear"),
        ("relu7", "fc7"),
        ("pool5", "pool5"),
    ],
)
def test_bdpys_names(name, tap):
    assert tap_of(name, "bdpy") == tap and tap_of(name, "deepsim") == name


def test_layers_of_files_and_trees(tmp_path):
    scipy = pytest.importorskip("scipy.io")
    h5py = pytest.importorskip("h5py")
    arrays = {"fc6": np.zeros((2, 3)), "conv1": np.zeros((2, 3))}
    np.savez(tmp_path / "a.npz", **arrays, names=np.array(["x", "y"]))
    scipy.savemat(tmp_path / "b.mat", arrays)
    for name, block in (("c.mat", 512), ("d.h5", 0)):
        with h5py.File(tmp_path / name, "w", userblock_size=block) as file:
            file.update(arrays)
    for layer in arrays:
        (tmp_path / "tree" / layer).mkdir(parents=True)
    for name in ("a.npz", "b.mat", "c.mat", "d.h5", "tree"):
        assert layers_in(tmp_path / name) == ["conv1", "fc6"]
    np.save(tmp_path / "e.npy", arrays["fc6"])
    with pytest.raises(UsageError, match="Name it with --layers"):
        layers_in(tmp_path / "e.npy")
    with pytest.raises(DataError, match="no such file"):
        layers_in(tmp_path / "f.npz")


def test_random_numbers_belong_to_name_start_iteration_and_purpose():
    stream = Stream(0, "a", 0)
    drawn = [
        stream.start_at("normal", 1, (5,)),
        Stream(0, "b", 0).start_at("normal", 1, (5,)),
        Stream(0, "a", 1).start_at("normal", 1, (5,)),
        Stream(1, "a", 0).start_at("normal", 1, (5,)),
        *(stream.noise(iteration, (5,)) for iteration in (0, 1)),
        *(stream.disturbance(iteration, (5,)) for iteration in (0, 1)),
    ]
    assert len({tuple(values.tolist()) for values in drawn}) == len(drawn)
    assert torch.equal(stream.noise(3, (5,)), Stream(0, "a", 0).noise(3, (5,)))
    assert {abs(part) for t in range(200) for part in stream.shift(t, 2)} == {0, 1, 2}


def test_lockstep_answers_all_that_wait_in_one_batch():
    pytest.importorskip("scipy")
    centres, sizes = np.array([[1.0, -2.0], [3.0, 0.5], [0.0, 0.0]]), []

    def evaluate(rows, variables):
        sizes.append(len(rows))
        difference = variables - centres[rows]
        losses = (difference**4).sum(1)
        losses[np.array(rows) == 2] = np.nan
        return losses, 4 * difference**3

    found = minimise(evaluate, np.full((3, 2), 0.25), (np.zeros(2), None), 100)
    assert sizes[:2] == [3, 2] and found[2] is None
    assert np.allclose(found[0].variable, [1, 0], atol=0.05) and np.allclose(found[1].variable, [3, 0.5], atol=0.05)


def test_an_error_of_the_networks_ends_all_threads():
    pytest.importorskip("scipy")

    def evaluate(rows, variables):
        raise DeviceError("gpu: gone")

    with pytest.raises(DeviceError, match="gpu: gone"):
        minimise(evaluate, np.zeros((4, 2)), (None, None), 10)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"step": 0.0}, "step: 0 to 1e-10, expected sizes above 0"),
        ({"tv": -0.5}, "tv: -0.5, expected at least 0, or -1"),
        ({"optimizer": "lbfgs"}, "normalise: mean-abs, but optimizer lbfgs"),
        ({"optimizer": "lbfgs", "normalise": "none", "jitter": 3}, "jitter: 3, but optimizer lbfgs has none"),
        ({"momentum": 1.0}, "momentum: 1.0, expected at least 0 and below 1"),
        ({"loss": "l3"}, "loss: 'l3', expected one of l2"),
    ],
)
def test_settings_that_make_no_sense(values, message):
    with pytest.raises(UsageError, match=message):
        Settings().updated(values)


def test_schedules():
    settings = Settings(iterations=10, step=2.0, step_end=1.0, drops=(5, 8), drop_factor=0.1)
    assert [settings.at("step", t) for t in (0, 5, 9)] == pytest.approx([2, 0.15, 0.011])
    assert Settings(decay=0.2, decay_end=0.1, iterations=4).at("decay", 2) == pytest.approx(0.15)
