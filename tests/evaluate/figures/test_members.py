from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deepsim.evaluate.figures.evaluations import Evaluation
from deepsim.evaluate.figures.facts import Facts
from deepsim.evaluate.figures.members import Member, matches, read_given, split_name
from deepsim.evaluate.figures.numbers import Numbers
from deepsim.runtime.errors import DataError, UsageError
from deepsim.runtime.images import save_png
from tests.evaluate.figures.figure_fakes import provenance, write_bundle, write_run


def given(*texts):
    return read_given([str(text) for text in texts])


def write_pictures(folder: Path, **settings) -> Path:
    folder.mkdir()
    save_png(np.zeros((8, 8, 3), np.uint8), folder / "a.png")
    if settings:
        (folder / "settings.json").write_text(json.dumps(settings))
    return folder


def test_a_folder_is_searched_and_a_run_without_checkpoint_named(tmp_path, caplog):
    write_bundle(tmp_path, "one")
    write_run(tmp_path / "deeper" / "two", layer="fc7")
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "config.json").write_text("{}")
    (tmp_path / ".hidden").mkdir()
    found = given(tmp_path).members
    assert [(member.path.name, member.source, member.facts.layer) for member in found] == [
        ("two", "run", "fc7"),
        ("one.deepsim", "bundle", "fc6"),
    ]
    assert "begun: a run without a checkpoint" in caplog.text


def test_of_a_run_and_its_bundle_the_bundle_is_taken(tmp_path):
    run, bundle = write_run(tmp_path / "run"), write_bundle(tmp_path, "run")
    for order in ((run, bundle), (bundle, run)):
        assert [member.source for member in given(*order).members] == ["bundle"]
    assert [member.name for member in given(f"Ours={run}", bundle).members] == ["Ours"]
    further = write_run(tmp_path / "further" / "run", step=2000)
    assert len(given(bundle, further).members) == 2


def test_a_checkpoint_is_a_run(tmp_path):
    run = write_run(tmp_path / "run", step=40)
    (member,) = given(run / "checkpoints" / "step-00000040").members
    assert (member.source, member.facts.steps) == ("run", 40)


def test_bundles_that_record_nothing_are_told_apart_by_their_files(tmp_path):
    from tests.bundles import write_kind

    first = write_kind(tmp_path, "table")
    (tmp_path / "other").mkdir()
    assert len(given(first, write_kind(tmp_path / "other", "table")).members) == 1
    assert [member.encodes for member in given(write_kind(tmp_path, "none")).members] == [False]


def test_pictures_have_a_name_a_layer_or_settings_of_their_own(tmp_path):
    mine = write_pictures(tmp_path / "mine")
    optimized = write_pictures(tmp_path / "mv", preset="mv2015", layers=["fc6"], encoder="caffenet 123")
    first, second = given(f"Another@fc7={mine}", f"A third={optimized}", optimized).members  # the last one twice
    assert (first.name, first.facts.layer, first.title) == ("Another", "fc7", "Another")
    assert (second.facts.layer, second.title) == ("fc6", "A third")
    assert given(optimized).members[0].title == "Mahendran & Vedaldi 2015"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("Ours=runs/fc6", ("Ours", "runs/fc6")), ("runs/fc6", (None, "runs/fc6")), ("A=b=c", ("A", "b=c"))],
)
def test_names(text, expected):
    name, path = split_name(text)
    assert (name, str(path)) == expected


def test_a_path_that_exists_is_a_path(tmp_path):
    assert split_name(str(write_bundle(tmp_path, "width=1")))[0] is None


@pytest.mark.parametrize("text", ["", "=runs", "Ours="])
def test_empty_names_and_paths_are_refused(text):
    with pytest.raises(UsageError, match="expected"):
        split_name(text)


def test_what_cannot_be_used_is_refused(tmp_path):
    pictures = write_pictures(tmp_path / "pictures")
    two = tmp_path / "two"
    write_run(two / "a"), write_run(two / "b")
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("")
    damaged = write_run(tmp_path / "damaged")
    (damaged / "config.json").write_text('{"layer": "fc6", "encoder": 5}')
    for text, error, words in (
        (pictures, UsageError, f"expected METHOD={pictures}"),
        (f"Ours={two}", UsageError, "2 runs and bundles in it"),
        (tmp_path / "empty", DataError, "no run, bundle or evaluation.json"),
        (tmp_path / "missing", DataError, "no such folder"),
        (tmp_path / "notes.txt", DataError, "a file, expected"),
        (damaged, DataError, "settings not readable"),
        (write_bundle(tmp_path, "odd", encoder=5), DataError, "settings not readable"),
        (write_bundle(tmp_path, "odder", lambda_feat="much"), DataError, "settings not readable"),
    ):
        with pytest.raises(error, match=words.replace("(", "\\(")):
            given(text)


def test_pictures_by_an_unnamed_rule_need_a_name(tmp_path):
    with pytest.raises(UsageError, match="expected METHOD="):
        given(write_pictures(tmp_path / "x", preset="icnn-gd", layers=["fc6"]))


def evaluation(**method) -> dict:
    value = {"value": 0.5, "low": 0.4, "high": 0.6}
    figures = {
        "photographs": 100,
        "image": {"normalized_error": value},
        "sharpness": {"gradient_energy": {"value": 0.8, "low": None, "high": None}},
        "spaces": {"caffenet fc6": {"normalized_error": {"value": 0.25, "low": 0.2, "high": 0.3}}},
    }
    return {
        "kind": "deepsim evaluation",
        "schema": 1,
        "methods": [{"name": "x", "layer": "fc6", "space": "caffenet fc6", "figures": figures, **method}],
    }


def test_figures_of_an_evaluation_are_those_of_the_member_that_it_measured(tmp_path):
    path = tmp_path / "evaluation.json"
    path.write_text(json.dumps(evaluation(provenance={**provenance(), "exported": "today"}, bundle="elsewhere")))
    (member,) = given(write_bundle(tmp_path, "x")).members  # of a run named otherwise
    found = given(path).evaluations[0]
    assert not matches(member, found.methods[0])
    same = given(write_bundle(tmp_path, "run")).members[0]
    assert matches(same, found.methods[0])
    assert not matches(replace(same, facts=replace(same.facts, layer="fc7")), found.methods[0])
    assert found.numbers(found.methods[0]) == Numbers(0.5, 0.25, 0.8, 100)
    both = given(tmp_path)  # runs beside it count
    assert len(both.evaluations) == 1 and len(both.members) == 2


def test_pictures_are_matched_by_their_folder(tmp_path):
    pictures = Member(tmp_path / "mv", "pictures", Facts("fc6", method="M"), "mv")
    assert matches(pictures, {"images": str(tmp_path / "x" / ".." / "mv")})
    assert not matches(pictures, {"images": str(tmp_path)})


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", json.dumps({**evaluation(), "schema": 2}), json.dumps({**evaluation(), "kind": "other"})],
)
def test_other_files_are_no_evaluations(tmp_path, text):
    (tmp_path / "evaluation.json").write_text(text)
    with pytest.raises(DataError, match=r"evaluation\.json"):
        Evaluation.read(tmp_path / "evaluation.json")


def test_a_method_without_figures_is_refused(tmp_path):
    (tmp_path / "evaluation.json").write_text(json.dumps(evaluation(figures={})))
    found = Evaluation.read(tmp_path / "evaluation.json")
    with pytest.raises(DataError, match="without its figures"):
        found.numbers(found.methods[0])
