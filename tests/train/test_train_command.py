"""The command: presets, files, options, exit codes, and several processes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

torch = pytest.importorskip("torch")

from deepsim.runtime.errors import UsageError  # noqa: E402
from deepsim.train import cli  # noqa: E402
from deepsim.train.config import PRESETS, TrainConfig, check_resumable, read_config  # noqa: E402
from deepsim.train.weights import read_weights  # noqa: E402
from tests.train.runs import digests, write_photographs  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
RUN = [sys.executable, str(ROOT / "train/run.py")]
TINY = ["--preset", "tiny", "--width", "0.015625", "--steps", "3", "--log-every", "1", "--validate-every", "2"]


def run(*arguments, cwd, command=RUN):
    return subprocess.run([*command, *arguments], cwd=cwd, capture_output=True, text=True, timeout=300)


def test_trains_prints_json_and_resumes_with_its_own_settings(tmp_path):
    write_photographs(tmp_path / "photos")
    first = run(*TINY, "--data", "photos", "-o", "r", "--json", "--precision", "auto", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    told = json.loads(first.stdout)
    assert told.pop("seconds") > 0
    assert told == {"step": 3, "checkpoint": "r/checkpoints/step-00000003", "run": "r", "signal": None}
    assert "deepsim-export r --engine fp16" in first.stderr
    assert "Validation: the training images themselves, none is held out." in first.stderr
    assert "Settings that differ from the paper's: comparator norm1, width 0.015625" in first.stderr
    again = run("-o", "r", "--resume", "auto", "--steps", "4", "--json", cwd=tmp_path)  # with its own photographs
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["step"] == 4
    settings = json.loads((tmp_path / "r/config.json").read_text())
    assert settings["width"] == 0.015625
    assert settings["precision"] in ("fp32", "bf16")  # what "auto" became
    checkpoint = "r/checkpoints/step-00000003"
    other = run("-o", "s", "--resume", checkpoint, "--data", "photos", "--steps", "4", "--json", cwd=tmp_path)
    assert other.returncode == 0, other.stderr
    assert digests(tmp_path / "s/checkpoints/step-00000004") == digests(tmp_path / "r/checkpoints/step-00000004")
    changed = run("-o", "r", "--resume", "auto", "--data", "photos", "--layer", "norm2", cwd=tmp_path)
    assert changed.returncode == 2 and "begun with 'norm1'" in changed.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--layer", "fc9"], 2, "no layer 'fc9', it has conv1, pool1, norm1"),
        (["--precision", "fp8"], 2, "precision"),
        (["--lambda-img", "nan"], 2, "lambda_img"),
        (["--data", "nowhere"], 3, "nowhere"),
        (["--encoder-weights", "nowhere.safetensors"], 3, "nowhere.safetensors"),
        (["--device", "cuda:9"], 4, "cuda"),
        (["--config", "settings.yaml"], 2, "no such setting"),
        (["--minutes", "-1"], 2, "minutes: -1"),
        (["--minutes", "1", "--deterministic"], 2, "minutes, deterministic"),
        (["--data", ".", "-o", "r"], 2, "r: lies in"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_wrong_input_is_one_line_and_a_defined_exit_code(tmp_path, arguments, code, words):
    (tmp_path / "settings.yaml").write_text("lamda_img: 1\n")
    write_photographs(tmp_path, 2)
    found = run("--preset", "tiny", "-o", "r", *arguments, cwd=tmp_path)
    assert found.returncode == code, found.stderr
    assert words in found.stderr.splitlines()[-1]
    assert "Traceback" not in found.stderr
    assert not (tmp_path / "r/checkpoints").exists()


@pytest.mark.parametrize("task", ["inversion", pytest.param("autoencoder", marks=pytest.mark.slow)])
def test_two_processes_train_what_one_does(tmp_path, task):
    write_photographs(tmp_path / "photos")
    options = [*TINY, "--data", "photos", "--lambda-adv", "0", "--threads", "1", "--task", task]
    alone = run(*options, "-o", "one", cwd=tmp_path)
    assert alone.returncode == 0, alone.stderr
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", RUN[1]]
    both = run(*options, "-o", "two", cwd=tmp_path, command=torchrun)
    assert both.returncode == 0, both.stderr
    for network in ("generator", "encoder") if task == "autoencoder" else ("generator",):
        expected, found = (
            read_weights(tmp_path / name / f"checkpoints/step-00000003/{network}.safetensors")
            for name in ("one", "two")
        )
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-4, msg=f"{network} {name}")


@pytest.mark.slow
def test_two_processes_draw_codes(tmp_path):
    """Each has noise of its own; the KL term of the first step, which has none, is that of one process."""
    write_photographs(tmp_path / "photos")
    options = [*TINY, "--data", "photos", "--lambda-adv", "0", "--lambda-feat", "0", "--threads", "1", "--task", "vae"]
    options += ["--latent", "5", "--encoder-width", "0.015625"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", RUN[1]]
    for name, command in (("one", RUN), ("two", torchrun)):
        found = run(*options, "-o", name, cwd=tmp_path, command=command)
        assert found.returncode == 0, found.stderr
    one, two = (json.loads((tmp_path / name / "log.jsonl").read_text().splitlines()[0]) for name in ("one", "two"))
    assert two["kl_loss"] == pytest.approx(one["kl_loss"], rel=1e-4)
    assert two["image_loss"] != pytest.approx(one["image_loss"], rel=1e-7)
    assert (tmp_path / "two/checkpoints/step-00000003/encoder.safetensors").exists()


def test_yaml_numbers_written_as_text_become_floats(tmp_path):
    (tmp_path / "settings.yaml").write_text("learning_rate: 1e-4\nmilestones: [10, 20]\nmirror: false\nlayer: pool5\n")
    config = PRESETS["paper"].updated(read_config(tmp_path / "settings.yaml"))
    assert (config.learning_rate, config.milestones, config.mirror, config.layer) == (1e-4, (10, 20), False, "pool5")


def test_configuration_survives_json():
    for config in PRESETS.values():
        assert TrainConfig().updated(json.loads(config.to_json())) == config


@pytest.mark.parametrize(
    "values",
    [
        {"steps": "many"},
        {"mirror": "yes"},
        {"batch": 0},
        {"schedule": "linear"},
        {"lambda_img": 0, "lambda_adv": 0, "lambda_feat": 0},
        {"learning_rate": float("inf")},
        {"encoder": "vgg"},
        {"comparator": "pool9"},
        {"width": 0.3},
    ],
    ids=str,
)
def test_senseless_settings_are_refused(values):
    with pytest.raises(UsageError):
        PRESETS["paper"].updated(values)


def test_a_resumed_run_keeps_what_decides_its_networks():
    begun = PRESETS["demo"]
    check_resumable(begun, begun.updated({"steps": 9, "learning_rate": 1e-5}))
    for change in ({"layer": "norm1"}, {"seed": 3}, {"lambda_adv": 1.0}):
        with pytest.raises(UsageError, match=r"Leave it|new --output"):
            check_resumable(begun, begun.updated(change))


def test_a_run_by_the_clock_goes_on_with_more_minutes_or_without():
    begun = PRESETS["demo"].updated({"minutes": 5, "steps": 0})
    for change in ({"minutes": 9}, {"minutes": 9, "steps": 3000}, {"minutes": 0, "steps": 3000}, {}):
        check_resumable(begun, begun.updated(change))
    with pytest.raises(UsageError, match=r"steps: 3,000, but the run was begun with 5 minutes.*Pass --minutes too"):
        check_resumable(begun, begun.updated({"steps": 3000}))


def test_minutes_take_the_steps_of_the_preset_away(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for given, expected in (({"minutes": 5.0}, (5, 0)), ({"minutes": 5.0, "steps": 70}, (5, 70)), ({}, (0, 1000))):
        config, _ = cli._configuration("demo", None, None, None, given)
        assert (config.minutes, config.steps) == expected


def test_paper_preset_is_the_papers():
    paper = PRESETS["paper"]
    assert (paper.lambda_feat, paper.lambda_adv, paper.lambda_img) == (0.01, 100, 2e-6)
    assert (paper.layer, paper.comparator, paper.batch, paper.steps) == ("fc6", "pool5", 64, 500_000)
    assert (paper.learning_rate, paper.beta1, paper.beta2, paper.zoom) == (2e-4, 0.9, 0.999, 0.0)


@pytest.mark.parametrize(("quota", "options", "wanted"), [(1, (), 1), (None, (), 3), (1, ("--threads", "2"), 2)])
def test_a_quota_of_cpu_time_is_honoured(tmp_path, monkeypatch, quota, options, wanted):
    chosen = [3]
    monkeypatch.setattr("deepsim.train.devices.library_threads", lambda: quota)
    monkeypatch.setattr(torch, "get_num_threads", lambda: chosen[-1])
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    result = CliRunner().invoke(cli.train, [*TINY, "--steps", "1", *options, "-o", str(tmp_path / "run")])
    assert result.exit_code == 0, result.output
    assert chosen[-1] == wanted
