"""What all optimisers share: states, seeds, starts, settings, scores that cannot be used."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from deepsim.runtime.errors import CheckpointError, DataError, DeviceError, DtypeError, ShapeError, UsageError
from deepsim.train.optimize.black_box import PRESETS, make_optimizer

N = 16
ROOT = Path(__file__).resolve().parents[4]


def tell(optimizer, generation=0):
    codes = optimizer.ask()
    optimizer.tell(-(codes**2).sum(axis=1) + np.cos(97 * codes[:, 0] + generation))


@pytest.mark.parametrize("name", PRESETS)
def test_a_restored_state_goes_on_with_the_same_codes(name):
    optimizer = make_optimizer(name, N, seed=4)
    for generation in range(14):
        state = {key: value.copy() for key, value in optimizer.state().items()}
        other = make_optimizer(name, N, seed=4)
        other.restore(state)
        assert (other.ask() == optimizer.ask()).all()
        assert other.origins == optimizer.origins
        tell(optimizer, generation)
        tell(other, generation)
        assert (other.ask() == optimizer.ask()).all()


@pytest.mark.parametrize("name", PRESETS)
def test_a_state_is_plain_arrays(name, tmp_path):
    optimizer = make_optimizer(name, N)
    tell(optimizer)
    np.savez(tmp_path / "state.npz", **optimizer.state())
    with np.load(tmp_path / "state.npz", allow_pickle=False) as state:
        other = make_optimizer(name, N)
        other.restore(dict(state))
    assert (other.ask() == optimizer.ask()).all()


@pytest.mark.parametrize("name", PRESETS)
def test_the_seed_decides(name):
    def third(seed):
        optimizer = make_optimizer(name, N, seed)
        tell(optimizer)
        tell(optimizer)
        return optimizer.ask()

    assert (third(1) == third(1)).all()
    assert not (third(1) == third(2)).any(axis=1).any()


@pytest.mark.parametrize("name", PRESETS)
def test_asking_twice_gives_the_same_codes(name):
    optimizer = make_optimizer(name, N)
    tell(optimizer)
    codes = optimizer.ask()
    assert (codes == optimizer.ask()).all() and codes.dtype == np.float32
    codes[:] = 0  # of the caller's own
    assert optimizer.ask().any()


@pytest.mark.parametrize("name", PRESETS)
def test_a_state_of_another_search_is_refused(name):
    state = make_optimizer(name, N).state()
    other = make_optimizer(name, N + 1)
    with pytest.raises(CheckpointError, match=r"codes float64 .* expected float64 \(n, 17\)"):
        other.restore(state)
    with pytest.raises(CheckpointError):
        other.restore({})


def test_states_of_other_optimisers_are_refused():
    state = make_optimizer("sphere", N).state()
    with pytest.raises(CheckpointError):
        make_optimizer("cholesky", N).restore(state)
    cma = make_optimizer("cma", N, seed=1)
    with pytest.raises(CheckpointError, match="computes other codes"):
        make_optimizer("cma", N, seed=2).restore(cma.state())


@pytest.mark.parametrize(
    ("scores", "error", "message"),
    [
        (np.zeros(3), ShapeError, r"scores: shape \(3,\), expected \(40,\)"),
        (np.zeros((40, 1)), ShapeError, "one for each code"),
        (["a"] * 40, DtypeError, "expected numbers"),
        (np.full(40, np.inf), DataError, "infinite"),
        (np.full(40, np.nan), DataError, "0 of 40 codes have one, expected at least 20"),
    ],
)
def test_scores_that_cannot_be_used(scores, error, message):
    optimizer = make_optimizer("sphere", N)
    before = optimizer.ask()
    with pytest.raises(error, match=message):
        optimizer.tell(scores)
    assert (optimizer.ask() == before).all()


@pytest.mark.parametrize("name", ["cma", "cholesky", "sphere", "genetic-pxdream"])
def test_a_missing_score_ranks_last(name):
    given = np.random.RandomState(0).randn(50 if name == "genetic-pxdream" else 40, N).astype(np.float32)
    start = None if name == "cma" else given
    one, other = make_optimizer(name, N, start=start), make_optimizer(name, N, start=start)
    scores = np.random.RandomState(1).randn(len(one.ask()))
    lowest, missing = scores.copy(), scores.copy()
    lowest[7], missing[7] = -800, np.nan
    one.tell(lowest)
    other.tell(missing)
    np.testing.assert_array_equal(one.ask(), other.ask())


def test_starts():
    zeros = make_optimizer("genetic", N, start="zeros").ask()
    assert zeros.shape == (20, N) and not zeros.any()
    normal = make_optimizer("cma-diagonal", 4096, start="normal", settings={"sigma": 1e-6}).ask()
    assert normal.shape == (40, 4096) and abs(normal[0].std() - 1) < 0.05
    assert np.ptp(normal, axis=0).max() < 1e-4
    code = np.random.RandomState(0).randn(N).astype(np.float32)
    assert (make_optimizer("cholesky", N, start=code).ask() == code).all()
    base = make_optimizer("sphere", N, start=code)
    assert (base.ask() == code).all()
    base.tell([1.0])
    np.testing.assert_allclose(base.ask()[0], 300 * code / np.linalg.norm(code), rtol=1e-5)
    shaped = np.random.RandomState(0).randn(50, 4, 2, 2)
    assert (make_optimizer("genetic-pxdream", N, start=shaped).ask() == shaped.reshape(50, N).astype(np.float32)).all()


@pytest.mark.parametrize(
    ("name", "start", "error", "message"),
    [
        ("cholesky", "ones", UsageError, "start: 'ones', expected normal, zeros or codes"),
        ("cholesky", np.zeros((2, N + 1)), ShapeError, r"shape \(2, 17\), expected codes \(n, 16\)"),
        ("cholesky", np.full((1, N), np.nan), DataError, "NaN"),
        ("cholesky", np.zeros((1, N), int), DtypeError, "floating point"),
        ("cholesky", np.zeros((0, N)), ShapeError, "expected codes"),
        ("sphere", "zeros", UsageError, "lie on no sphere"),
        ("sphere", np.zeros((2, N)), UsageError, "lies on no sphere"),
        ("cma", np.zeros((2, N)), UsageError, "2 codes, expected at most 1"),
        ("genetic", np.zeros((21, N)), UsageError, "21 codes, expected at most 20"),
        ("genetic-pxdream", np.zeros((49, N)), UsageError, "49 codes, expected 50"),
    ],
)
def test_starts_that_cannot_be_used(name, start, error, message):
    with pytest.raises(error, match=message):
        make_optimizer(name, N, start=start)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("genetic", {"popsize": 3}, "popsize: no such setting, expected one of population,"),
        ("genetic", {"population": "many"}, "population: 'many', expected a whole number"),
        ("genetic", {"population": 2.5}, "population: 2.5, expected a whole number"),
        ("genetic", {"cap": 1}, "cap: 1, expected true or false"),
        ("genetic", {"conserve": 20}, "conserve: 20, expected less than the population, 20"),
        ("genetic", {"mutation_rate": 1.5}, "mutation_rate: 1.5, expected at least 0 and at most 1"),
        ("genetic", {"mutation_size": float("nan")}, "mutation_size: nan, expected at least"),
        ("sphere", {"schedule": "lin"}, "schedule: 'lin', expected one of exp, inv"),
        ("sphere", {"select": 41}, "select: 41, expected at most the population, 40"),
        ("cma", {"bounds": (1.0, 1.0)}, "expected a lowest and a higher value"),
        ("cma", {"bounds": (1.0,)}, "expected a lowest and a higher value"),
        ("cma", {"bounds": "1,2"}, "start: values outside 1 to 2, expected a code within the bounds"),
        ("cholesky", {"population": 1}, "population: 1, expected 2 or more, or 0"),
        ("genetic-pxdream", {"top": 50}, "top: 50, expected less than the population"),
        ("genetic-pxdream", {"parents": 51}, "parents: 51, expected at most the population"),
    ],
)
def test_settings_that_cannot_be_used(name, settings, message):
    with pytest.raises(UsageError, match=message):
        make_optimizer(name, N, settings=settings)


def test_settings_are_read_from_words():
    settings = make_optimizer("genetic", N, settings={"cap": False, "population": "30", "selectivity": "1"}).settings
    assert (settings.cap, settings.population, settings.selectivity) == (False, 30, 1.0)


def test_unknown_names_and_seeds():
    with pytest.raises(UsageError, match="optimizer 'nes': unknown, expected one of cma, "):
        make_optimizer("nes", N)
    with pytest.raises(UsageError, match="seed: -1"):
        make_optimizer("genetic", N, seed=-1)


def test_pxdream_refuses_scores_whose_softmax_leaves_one_parent():
    optimizer = make_optimizer("genetic-pxdream", N)
    with pytest.raises(DataError, match="all but 1 are so far below the best"):
        optimizer.tell(np.arange(50) * 1000.0)


def test_without_the_package_cma_its_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "cma", None)
    with pytest.raises(DeviceError, match=r"cma: not installed, this needs deepsim\[optimize\]"):
        make_optimizer("cma", N)
    make_optimizer("cholesky", N)


def test_no_pytorch_is_needed():
    code = "import sys; sys.modules['torch'] = None; sys.path.insert(0, sys.argv[1]); import runtime\n"
    code += "import deepsim.train.optimize.black_box, deepsim.train.optimize.black_box.scores_cli\n"
    code += "assert not {'cma', 'scipy', 'h5py'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, str(ROOT)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
