from __future__ import annotations

import json

import pytest

from deepsim.evaluate.report.training_run import TrainingRun
from deepsim.runtime.errors import DataError


def write_run(path, lines, config=None, tail=""):
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps({"batch": 8} if config is None else config))
    (path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + tail)
    return TrainingRun.open(path)


def test_reads_series_and_totals(tmp_path):
    lines = [
        {"step": 5, "seconds": 1.5, "image_loss": 2.0, "feature_loss": None},
        {"step": 10, "seconds": 3.0, "image_loss": float("nan")},
        {"step": 15, "seconds": 4.5, "image_loss": 1},
    ]
    run = write_run(tmp_path / "run", lines, tail='{"step": 20, "sec')
    assert (run.steps, run.seconds, run.images_seen) == (15, 4.5, 120)
    assert run.series("image_loss") == [(5, 2.0), (15, 1.0)]
    assert run.series("feature_loss") == []
    assert run.mean_image is None and run.last_grid is None


def test_pauses_end_at_the_next_step_that_trains(tmp_path):
    flags = [True, False, False, True, False]
    lines = [{"step": 10 * index, "discriminator_trains": flag} for index, flag in enumerate(flags, 1)]
    run = write_run(tmp_path / "run", lines)
    assert run.pauses("discriminator") == [(20, 40), (50, 50)]
    assert run.pauses("generator") == []


def test_a_step_logged_twice_counts_once(tmp_path):
    run = write_run(
        tmp_path / "run", [{"step": 5, "image_loss": 2}, {"step": 10, "image_loss": 3}, {"step": 5, "image_loss": 4}]
    )
    assert run.series("image_loss") == [(5, 4.0), (10, 3.0)]


def test_empty_log(tmp_path):
    run = write_run(tmp_path / "run", [])
    assert (run.steps, run.seconds, run.images_seen) == (0, 0.0, 0)


def test_what_is_missing_or_damaged_is_named(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        TrainingRun.open(tmp_path / "none")
    run = tmp_path / "run"
    run.mkdir()
    with pytest.raises(DataError, match=r"config\.json"):
        TrainingRun.open(run)
    (run / "config.json").write_text("[]")
    with pytest.raises(DataError, match="JSON object"):
        TrainingRun.open(run)
    (run / "config.json").write_text("{}")
    with pytest.raises(DataError, match=r"log\.jsonl"):
        TrainingRun.open(run)
    (run / "log.jsonl").write_text('{"step": 1}\nnonsense\n{"step": 2}\n')
    with pytest.raises(DataError, match="line 2"):
        TrainingRun.open(run)


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"validation_on": "held-out"}, "held-out images"),
        ({"validation_on": "given"}, "images given for validation"),
        ({"validation_on": "training"}, "training images, of which none was held out"),
        ({"training": "40 photographs"}, "images that the run does not name"),
        (None, "images that the run does not name"),
    ],
    ids=str,
)
def test_what_the_error_is_measured_on(tmp_path, record, words):
    run = write_run(tmp_path / "run", [{"step": 1, "validation_error": 0.5}])
    if record is not None:
        (tmp_path / "run/data.json").write_text(json.dumps(record))
    assert run.validated_on == words
