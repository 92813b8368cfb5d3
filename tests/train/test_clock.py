"""Training by the clock: a run ends in time on any machine, its schedule with it, and a resumed one has the rest."""

import json
import math

import pytest

torch = pytest.importorskip("torch")

from deepsim.runtime.errors import CheckpointError, UsageError  # noqa: E402
from deepsim.train import clock as clock_module  # noqa: E402
from deepsim.train import loop  # noqa: E402
from deepsim.train.clock import Clock, Elapsed, read_clock, write_clock  # noqa: E402
from deepsim.train.config import PRESETS  # noqa: E402
from deepsim.train.optimizers import learning_rate  # noqa: E402
from tests.train.runs import TINY, tiny_run, write_photographs  # noqa: E402

BY_CLOCK = {"steps": 0, "minutes": 2, "deterministic": False, "schedule": "cosine", "checkpoint_every": 5}


class Time:
    """A clock that tests move on."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def time():
    return Time()


@pytest.fixture
def slow(monkeypatch, time):
    """Let every step, validation and checkpoint take the seconds that a test says, on a clock of its own."""

    def build(step, validation=0.0, checkpoint=0.0):
        def taking(seconds, function):
            def run(*arguments, **options):
                time.now += seconds
                return function(*arguments, **options)

            return run

        monkeypatch.setattr(loop, "Clock", lambda minutes, elapsed: Clock(minutes, elapsed, time))
        monkeypatch.setattr(loop.time, "perf_counter", time)
        for name, seconds in (("train_step", step), ("reconstruct", validation), ("save_checkpoint", checkpoint)):
            monkeypatch.setattr(loop, name, taking(seconds, getattr(loop, name)))
        return time

    return build


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return write_photographs(tmp_path_factory.mktemp("photos"))


def lines(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("step", [4.0, 12.0, 50.0])
def test_a_run_ends_in_its_minutes_whatever_a_step_takes(tmp_path, photos, slow, step):
    time = slow(step, validation=5.0, checkpoint=3.0)
    began = time.now + 5.0  # the end is timed first, which is not training
    outcome = loop.train(TINY.updated(BY_CLOCK), tiny_run(tmp_path, photos))
    taken = time.now - began
    assert outcome.seconds == taken
    assert 120 - step - 8 - 1e-6 - step < taken <= 120
    last = lines(tmp_path)[-1]
    assert last["step"] == outcome.step >= 1
    assert last["validation_error"] > 0  # what is due at the end, though no one knew the last step
    assert (tmp_path / f"images/step-{outcome.step:08d}.png").exists()
    rates = [line["learning_rate"] for line in lines(tmp_path)]
    assert rates == sorted(rates, reverse=True)
    if step < 10:
        assert rates[0] == pytest.approx(TINY.learning_rate, rel=0.1)
        assert rates[-1] < 0.03 * TINY.learning_rate
    left = [line["seconds_left"] for line in lines(tmp_path)]
    assert left[0] == pytest.approx(120 - step)
    assert left == sorted(left, reverse=True)


def test_steps_bound_a_run_by_the_clock(tmp_path, photos, slow):
    slow(1.0)
    outcome = loop.train(TINY.updated({**BY_CLOCK, "steps": 3}), tiny_run(tmp_path, photos))
    assert outcome.step == 3
    assert lines(tmp_path)[-1]["learning_rate"] == pytest.approx(
        learning_rate(TINY.updated({**BY_CLOCK, "steps": 3}), 2)
    )


def test_a_resumed_run_has_what_is_left(tmp_path, photos, slow):
    time = slow(10.0)
    loop.train(TINY.updated({**BY_CLOCK, "minutes": 1}), tiny_run(tmp_path, photos))
    before = read_clock(tmp_path, (tmp_path / "checkpoints/latest").read_text().strip()).seconds
    assert 40 <= before <= 60
    now = time.now
    outcome = loop.train(TINY.updated(BY_CLOCK), tiny_run(tmp_path, photos, "auto"))
    assert 120 - before - 20 <= time.now - now <= 120 - before
    again = loop.train(TINY.updated(BY_CLOCK), tiny_run(tmp_path, photos, "auto"))
    assert (again.step, again.checkpoint) == (outcome.step, outcome.checkpoint)  # used up: nothing more is done
    named = loop.train(
        TINY.updated(BY_CLOCK), tiny_run(tmp_path / "new", photos, str(tmp_path / "checkpoints/step-00000005"))
    )
    assert named.step == pytest.approx(outcome.step, abs=1)


def test_a_run_by_steps_can_go_on_by_the_clock(tmp_path, photos, slow, caplog):
    slow(10.0)
    loop.train(TINY.updated({"steps": 3}), tiny_run(tmp_path, photos))
    assert read_clock(tmp_path, "step-00000003") == (30.0, 10.0)
    assert loop.train(TINY.updated(BY_CLOCK), tiny_run(tmp_path, photos, "auto")).step in (10, 11)
    (tmp_path / "clock.json").unlink()
    loop.train(TINY.updated({**BY_CLOCK, "minutes": 1}), tiny_run(tmp_path, photos, "auto"))
    assert "has no time for step" in caplog.text


def test_the_reserve_is_the_slowest_recent_step_and_the_end(time):
    clock = Clock(1, Elapsed(), time)
    clock.expect_checkpoint(250_000_000)  # guessed as five seconds
    clock.time_validation(4.0)
    for seconds in (2.0, 6.0, 1.0):
        clock.begin_step()
        time.now += seconds
        clock.end_step()
    assert (clock.seconds, clock.left) == (9.0, 51.0)
    assert clock.share == pytest.approx(9 / (60 - 15))
    time.now += 35.9
    assert not clock.is_over
    time.now += 0.2
    assert clock.is_over
    clock.time_checkpoint(0.1)  # the guess is not believed for long
    assert not clock.is_over
    for _ in range(clock_module._RECENT):
        clock.begin_step()
        clock.end_step()
    assert clock.left - 8.0 == pytest.approx(60 - 45.1 - 8.0)
    unlimited = Clock(0, Elapsed(3.0, 1.0), time)
    assert (unlimited.seconds, unlimited.share, unlimited.is_over) == (3.0, 0.0, False)


def test_cosine_ends_with_the_nearer_of_steps_and_minutes():
    both = PRESETS["demo"].updated({"steps": 100, "minutes": 5, "learning_rate": 1.0, "warm_up": 0})
    assert [learning_rate(both, n, share) for n, share in ((0, 0.0), (50, 0.1), (10, 0.5), (3, 1.0))] == pytest.approx(
        [1, 0.5, 0.5, 0]
    )
    by_clock = both.updated({"steps": 0})
    assert learning_rate(by_clock, 10**6, 0.25) == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))


def test_clock_file(tmp_path):
    for step in (1, 2):
        (tmp_path / f"checkpoints/step-{step:08d}").mkdir(parents=True)
    write_clock(tmp_path, "step-00000001", Elapsed(1.25, 0.5))
    write_clock(tmp_path, "step-00000002", Elapsed(2.5, 0.25))
    assert [read_clock(tmp_path, f"step-0000000{step}") for step in (1, 2)] == [(1.25, 0.5), (2.5, 0.25)]
    (tmp_path / "checkpoints/step-00000001").rmdir()
    write_clock(tmp_path, "step-00000003", Elapsed(3.0))
    assert read_clock(tmp_path, "step-00000001") is None
    (tmp_path / "clock.json").write_text("[1]")
    with pytest.raises(CheckpointError, match=r"clock\.json: not readable"):
        read_clock(tmp_path, "step-00000002")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"minutes": -1}, "minutes: -1"),
        ({"minutes": math.nan}, "minutes: nan"),
        ({"steps": 0}, "both 0"),
        ({"minutes": 1, "deterministic": True}, "minutes, deterministic"),
    ],
    ids=str,
)
def test_senseless_lengths(values, words):
    with pytest.raises(UsageError, match=words):
        PRESETS["demo"].updated(values)
