"""Training killed with SIGKILL at random moments and resumed ends in the very weights of an uninterrupted run."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

from deepsim.train.checkpoints import newest_checkpoints
from tests.train.runs import digests

KILLS = {"inversion": 15, "autoencoder": 4, "vae": 6}  # 25 of each have been run; these are what there is time for


@pytest.mark.slow
@pytest.mark.parametrize("task", KILLS)
def test_kills_change_nothing(tmp_path, task):
    program = Path(__file__).with_name("kill_trainings.py")
    done = subprocess.run([sys.executable, program, tmp_path, str(KILLS[task]), task], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    expected = digests(tmp_path / "whole/checkpoints/step-00000060")
    networks = {"generator", "discriminator", "optimizer"} | ({"encoder"} if task != "inversion" else set())
    assert set(expected) == {f"{name}.safetensors" for name in networks}
    for folder in (tmp_path / "killed", *tmp_path.glob("finished-*")):
        assert digests(folder / "checkpoints/step-00000060") == expected
        assert newest_checkpoints(folder)[0].name == "step-00000060"
        assert not list(folder.rglob(".*staging*"))
