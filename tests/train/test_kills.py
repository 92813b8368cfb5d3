"""Training killed with SIGKILL at random moments and resumed ends in the very weights of an uninterrupted run."""

import multiprocessing
import os
import random
import signal
import time

import pytest

torch = pytest.importorskip("torch")

from deepsim.train import loop  # noqa: E402
from deepsim.train.checkpoints import newest_checkpoints  # noqa: E402
from tests.train.runs import TINY, digests, tiny_run, write_photographs  # noqa: E402

KILLS = 25
CONFIG = TINY.updated({"steps": 60, "checkpoint_every": 2, "validate_every": 20, "image_every": 20})


def _train(folder, photos):
    torch.set_num_threads(1)
    loop.train(CONFIG, tiny_run(folder, photos, "auto"))


def _in_a_process(folder, photos):
    process = multiprocessing.get_context("fork").Process(target=_train, args=(folder, photos))
    process.start()
    return process


@pytest.mark.slow
def test_25_kills_change_nothing(tmp_path):
    torch.set_num_threads(1)  # a forked child cannot use a thread pool that its parent began
    photos = write_photographs(tmp_path / "photos")
    _in_a_process(tmp_path / "whole", photos).join()
    rng, kills, restarts = random.Random(0), 0, 0
    while kills < KILLS:
        process = _in_a_process(tmp_path / "killed", photos)
        time.sleep(rng.uniform(0.1, 1.5))
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        process.join()
        restarts += 1
        if process.exitcode == 0:  # done before the kill: begin again
            (tmp_path / "killed").rename(tmp_path / f"finished-{restarts}")
    process = _in_a_process(tmp_path / "killed", photos)
    process.join()
    assert process.exitcode == 0
    expected = digests(tmp_path / "whole/checkpoints/step-00000060")
    assert len(expected) == 3
    for folder in (tmp_path / "killed", *tmp_path.glob("finished-*")):
        assert digests(folder / "checkpoints/step-00000060") == expected
        assert newest_checkpoints(folder)[0].name == "step-00000060"
        assert not list(folder.rglob(".*staging*"))
