"""Kill trainings at random and go on with them: ``kill_trainings.py FOLDER KILLS TASK``; see test_kills.py.

A program of its own: a child that is forked from a process in which other tests have trained cannot train.
"""

import multiprocessing
import os
import random
import signal
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "python"), str(ROOT)]

import torch  # noqa: E402

from deepsim.runtime.networks import ENCODERS  # noqa: E402
from deepsim.train import loop  # noqa: E402
from tests.train.runs import TINY, tiny_run, write_photographs  # noqa: E402
from tests.train.test_tasks import CODE, SMALL  # noqa: E402

ENCODERS["small"] = SMALL
BASE = TINY.updated({"steps": 60, "checkpoint_every": 2, "validate_every": 20, "image_every": 20})
LEARNED = {**CODE, "width": 1 / 64, "conditional": True}  # through a code, with all losses
CONFIGS = {
    "inversion": BASE,
    "autoencoder": BASE.updated({"task": "autoencoder", **LEARNED}),
    "vae": BASE.updated({"task": "vae", **LEARNED}),
}


def _train(config, folder, photos):
    loop.train(config, tiny_run(folder, photos, "auto"))


def _in_a_process(config, folder, photos):
    process = multiprocessing.get_context("fork").Process(target=_train, args=(config, folder, photos))
    process.start()
    return process


def main(folder, kills, task):
    config = CONFIGS[task]
    torch.set_num_threads(1)  # a forked child cannot use a thread pool that its parent began
    photos = write_photographs(folder / "photos")
    _in_a_process(config, folder / "whole", photos).join()
    rng, killed, restarts = random.Random(0), 0, 0
    while killed < kills:
        process = _in_a_process(config, folder / "killed", photos)
        time.sleep(rng.uniform(0.1, 1.5))
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
            killed += 1
        process.join()
        restarts += 1
        if process.exitcode == 0:  # done before the kill: begin again
            (folder / "killed").rename(folder / f"finished-{restarts}")
    process = _in_a_process(config, folder / "killed", photos)
    process.join()
    return process.exitcode


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))
