"""Logs on disks that fill: the run's own log ends it in one line, TensorBoard's never does."""

import json
import logging
import resource
import signal

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("tensorboard")

from deepsim.runtime.errors import DeviceError
from deepsim.runtime.run_folder import LOG
from deepsim.train.event_file import EventFile
from deepsim.train.telemetry import Telemetry


@pytest.fixture
def no_growth():
    """Let files grow to 4096 bytes only, as on a full disk; the error is EFBIG instead of ENOSPC."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))

    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def events(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder))
    found.Reload()
    return found


def test_tensorboard_reads_numbers_and_pictures(tmp_path):
    for start in (0, 2):  # resumed from step 2
        file = EventFile(tmp_path, start)
        for step in range(start, 4):
            file.scalar("loss", step / 2 + start, step)
        file.picture("images", np.full((4, 5, 3), 200, np.uint8), 3)
        file.close()
    found = events(tmp_path)
    assert [(event.step, event.value) for event in found.Scalars("loss")] == [(0, 0), (1, 0.5), (2, 3), (3, 3.5)]
    assert (found.Images("images")[-1].width, found.Images("images")[-1].height) == (5, 4)


def test_a_full_disk_ends_tensorboards_record_and_not_the_run(tmp_path, no_growth, caplog):
    file = EventFile(tmp_path, 0)
    no_growth()
    with caplog.at_level(logging.WARNING, "deepsim"):
        for step in range(200):
            file.scalar("loss", 0.5, step)
        file.picture("images", np.zeros((4, 5, 3), np.uint8), 200)
    file.close()
    assert len(caplog.messages) == 1 and "the run goes on" in caplog.messages[0]
    whole = events(tmp_path).Scalars("loss")
    assert 20 < len(whole) < 200 and [event.step for event in whole] == list(range(len(whole)))


def test_a_folder_that_cannot_be_made_is_a_warning(tmp_path, caplog):
    (tmp_path / "tensorboard").touch()
    EventFile(tmp_path / "tensorboard", 0).scalar("loss", 1, 1)
    assert "tensorboard: File exists. TensorBoard's record ends" in caplog.text


def test_a_log_on_a_full_disk_is_one_line_and_stays_whole(tmp_path, no_growth):
    telemetry = Telemetry(tmp_path, 0, 1000, quiet=True)
    no_growth()
    with pytest.raises(DeviceError, match=r"log\.jsonl: File too large"):
        for step in range(1000):
            telemetry.log({"step": step})
    telemetry.close()
    lines = (tmp_path / LOG).read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(len(lines))) and len(lines) > 50
