"""Recipes of short trainings: what each changes, how results are kept, and two real ones."""

import json

import pytest
from click.testing import CliRunner

pytest.importorskip("torch")

from deepsim.evaluate import recipes
from deepsim.evaluate.recipes import RECIPES, Recipe, arguments_of, settings_of, table
from deepsim.runtime.errors import DataError, UsageError
from deepsim.runtime.images import save_png
from deepsim.train.config import PRESETS
from deepsim.train.dead_leaves import dead_leaves
from tests.train.runs import write_photographs

NARROW = {"layer": "norm1", "comparator": "norm1", "width": 1 / 64, "batch": 2}


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_can_be_trained_and_changes_something(name):
    config = PRESETS["demo"].updated({**settings_of(name), "minutes": 2, "steps": 0})
    of = RECIPES[name].of
    assert not of or config != PRESETS["demo"].updated({**settings_of(of), "minutes": 2, "steps": 0})


def test_an_unknown_recipe_is_refused():
    with pytest.raises(UsageError, match=r"recipe 'sgd': unknown, expected one of adam; "):
        settings_of("sgd")


def test_switches_and_values_become_options():
    assert arguments_of({"even_start": False, "learning_rate": 0.003}) == ["--no-even-start", "--learning-rate=0.003"]


def test_the_table_begins_with_the_least_error():
    rows = [
        {"recipe": name, "seed": seed, "error": error, "sharpness": 0.5, "steps": 100}
        for name, errors in {"a": (0.3, 0.5), "b": (0.2, 0.4)}.items()
        for seed, error in enumerate(errors)
    ]
    lines = table(rows).splitlines()
    assert [line.split()[0] for line in lines] == ["recipe", "b", "a"]
    assert lines[1].split()[1:] == ["2", "30.00", "%", "20.00", "%", "40.00", "%", "0.500", "100"]


@pytest.mark.slow
def test_trainings_are_kept_and_not_made_twice(tmp_path, monkeypatch):
    monkeypatch.setattr(recipes, "RECIPES", {"one": Recipe("", NARROW), "two": Recipe("one", {"optimizer": "muon"})})
    photos, others = write_photographs(tmp_path / "photos"), tmp_path / "others"
    for index, leaves in enumerate(dead_leaves(1, index) for index in range(3)):
        save_png(leaves, others / f"{index}.png")
    output = tmp_path / "found.json"
    words = [f"--data={photos}", f"--validation={others}", "--minutes=0.05", "--seeds=1", f"--output={output}"]
    first = CliRunner().invoke(recipes.main, [*words, "--most=1"], catch_exceptions=False)
    assert first.exit_code == 0, first.output
    (row,) = json.loads(output.read_text())["rows"]
    assert (row["recipe"], row["seed"]) == ("one", 0)
    assert row["steps"] > 0 and 0 < row["error"] < 2 and row["sharpness"] > 0
    again = CliRunner().invoke(recipes.main, words, catch_exceptions=False)
    rows = json.loads(output.read_text())["rows"]
    assert rows[0] == row
    assert [row["recipe"] for row in rows] == ["one", "two"]
    assert "two" in again.output


def test_results_of_other_minutes_and_other_files_are_refused(tmp_path):
    path = tmp_path / "found.json"
    path.write_text(json.dumps({"minutes": 2, "rows": []}))
    with pytest.raises(UsageError, match="of trainings of 2 minutes, expected 3"):
        recipes._begun(path, 3)
    path.write_text("[]")
    with pytest.raises(DataError, match="expected results of this program"):
        recipes._begun(path, 3)
