"""The command ``deepsim optimize scores``, run in this process."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from deepsim.runtime.images import image_size
from deepsim.runtime.inverter import Inverter
from deepsim.train.optimize.black_box import PRESETS, ClosedLoop
from deepsim.train.optimize.black_box.scores import UnitScore
from deepsim.train.optimize.cli import optimize


@pytest.fixture
def scores(bundle, tmp_path):
    """Return a function that runs the command on the tiny bundle, with a unit of its own encoder."""

    def run(*arguments, code=0, unit="11"):
        given = ["scores", bundle, "-o", tmp_path / "run", "--backend", "cpu", *arguments]
        given += ["--encoder", bundle, "--unit", unit] if unit else []
        result = CliRunner().invoke(optimize, [str(argument) for argument in given])
        assert result.exit_code == code, (result.output, result.exception)
        return result

    return run


def test_a_unit_and_json(scores, bundle, tmp_path):
    done = scores("--optimizer", "genetic", "--generations", 12, "--seed", 5, "--json")
    outcome = json.loads(done.stdout)
    assert outcome["generations"] == 12 and outcome["folder"] == str(tmp_path / "run")
    assert f"best score {outcome['best']['score']:.6g} ({outcome['best']['name']}, best.png)" in done.stderr
    with Inverter(bundle, "cpu") as inverter:
        neuron, loop = UnitScore(inverter, 11), ClosedLoop(inverter, "genetic", 12, seed=5)
        for _, images in loop:
            loop.tell(neuron(images))
    assert outcome["best"] == {"name": loop.best.name, "score": loop.best.score}
    assert outcome["mean"] == loop.log[-1]["mean"] > loop.log[0]["mean"]
    assert image_size(tmp_path / "run/best.png") == (28, 28)
    assert image_size(tmp_path / "run/strips/gen011.png") == (28, 8 * 28)


def test_every_preset_can_be_named(scores, tmp_path):
    option = next(option for option in optimize.get_command(None, "scores").params if option.name == "optimizer")
    assert list(option.type.choices) == list(PRESETS)
    done = scores("--optimizer", "cma-diagonal", "--generations", 2, "--quiet", "--set", "population=4")
    assert f"{tmp_path / 'run'}: 2 generations, best score" in done.stderr


def test_options(scores, bundle, tmp_path):
    np.save(tmp_path / "start.npy", np.random.RandomState(0).randn(5, 20).astype(np.float32))
    options = ["--start", tmp_path / "start.npy", "--set", "population=5", "--set", "conserve=2", "--strip", 3]
    scores("--optimizer", "genetic", "--generations", 2, "--presentations", 2, "--full", *options)
    first = np.load(tmp_path / "run/codes/gen000/gen000_000004.npy")
    assert (first == np.load(tmp_path / "start.npy")[4]).all()
    lines = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert [len(line["trials"]) for line in lines] == [5, 5] and len(lines[0]["trials"][0]) == 2
    assert image_size(tmp_path / "run/strips/gen001.png") == (32, 3 * 32)


def test_resume(scores, tmp_path):
    scores("--generations", 2)
    assert "holds a closed loop already" in scores("--generations", 4, code=2).stderr
    done = scores("--generations", 4, "--resume", "--json")
    assert json.loads(done.stdout)["generations"] == 4
    assert len((tmp_path / "run/log.jsonl").read_text().splitlines()) == 4
    assert json.loads(scores("--generations", 4, "--resume", "--json").stdout)["generations"] == 4


def test_a_function(scores, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = "def score(images):\n    return images[..., 0].mean(axis=(1, 2)) * float('nan' if len(images) > 20 else 1)\n"
    (tmp_path / "score_of_the_command.py").write_text(text)
    reference = ("--score", "score_of_the_command:score")
    scores(*reference, "--generations", 3, "--optimizer", "genetic", unit=None)
    other = ("-o", tmp_path / "other", "--optimizer", "sphere")
    assert "scores: 40 missing, the first of gen000_000000" in scores(*reference, *other, unit=None, code=3).stderr
    told = scores(*reference, *other, "--resume", "--missing", "allow", unit=None, code=3).stderr
    assert "0 of 40 codes have one, expected at least 20" in told


@pytest.mark.parametrize(
    ("arguments", "unit", "message"),
    [
        ([], None, "expected either --score, or --encoder with --unit"),
        (["--score", "a:b"], "3", "expected either --score, or --encoder with --unit"),
        (["--score", "a:b", "--unit", "3"], None, "--unit: expected with --encoder"),
        ([], "20", r"unit 20: expected an index within"),
        ([], "x", "--unit x: expected an index, or c,y,x"),
        (["--set", "sigma"], "3", "--set sigma: expected NAME=VALUE"),
        (["--set", "size=3"], "3", "size: no such setting"),
        (["--optimizer", "sphere", "--start", "zeros"], "3", "lie on no sphere"),
    ],
)
def test_usage(scores, arguments, unit, message):
    assert message in scores(*arguments, unit=unit, code=2).stderr


def test_the_output_stays_out_of_the_bundle(scores, bundle):
    assert "in the bundle" in scores("-o", bundle / "run", code=2).stderr


def test_the_codes_of_a_generation_are_a_start(scores, tmp_path):
    (tmp_path / "gen").mkdir()
    for number in (10, 2, 1):  # as people count
        np.save(tmp_path / f"gen/gen000_{number}.npy", np.full(20, number, np.float32))
    scores("--optimizer", "genetic", "--set", "population=3", "--start", tmp_path / "gen", "--generations", 1)
    first = [np.load(path) for path in sorted((tmp_path / "run/codes/gen000").glob("*.npy"))]
    assert [code[0] for code in first] == [1, 2, 10]


def test_a_start_of_another_layer(scores, tmp_path):
    np.save(tmp_path / "start.npy", np.zeros((5, 21), np.float32))
    assert "start.npy" in scores("--start", tmp_path / "start.npy", code=3).stderr


def test_help_has_an_example():
    result = CliRunner().invoke(optimize, ["scores", "--help"])
    assert result.exit_code == 0 and "deepsim optimize scores fc6.deepsim" in result.output
