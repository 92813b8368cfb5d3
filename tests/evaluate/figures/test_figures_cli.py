from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from deepsim.evaluate.figures import drawing
from deepsim.evaluate.figures.cli import figures
from deepsim.evaluate.figures.gallery import folder_gallery
from deepsim.evaluate.figures.members import read_given
from deepsim.evaluate.measure.cli import evaluate
from deepsim.export.bundle import Options, export_bundle
from deepsim.export.sources import load_run
from deepsim.runtime.errors import DataError, UsageError
from deepsim.runtime.images import save_png
from deepsim.runtime.inverter import Inverter
from deepsim.runtime.metrics import normalized_error
from tests.bundles import photographs
from tests.evaluate.figures.figure_fakes import IMAGE, VAE, provenance, write_bundle

pytest.importorskip("onnx")
PHOTOS = photographs(5)[:, :64, :64]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Return a folder with three bundles: two objectives and a variational autoencoder."""
    folder = tmp_path_factory.mktemp("figures") / "runs"
    folder.mkdir()
    write_bundle(folder, "full")
    write_bundle(folder, "image", **IMAGE)
    write_bundle(folder, "vae", **VAE)
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("figures-photos")
    for number, photo in enumerate(PHOTOS):
        save_png(photo, folder / f"{number}.png")
    return folder


@pytest.fixture
def invoke(runs, photos, tmp_path):
    def call(*arguments, given=None, photographs=photos):
        chosen = ["--photos", str(photographs)] if photographs else []
        outputs = [] if "-o" in arguments else ["-o", str(tmp_path / "page.html")]
        return CliRunner().invoke(figures, [str(given or runs), *chosen, *outputs, *map(str, arguments)])

    return call


def test_real_bundles_become_a_page_and_a_pdf(invoke, tmp_path):
    result = invoke("-o", tmp_path / "page.html", "-o", tmp_path / "page.pdf", "--show", 2)
    assert result.exit_code == 0, result.output
    assert [line.partition(".")[0] for line in result.stdout.splitlines()] == [
        "Figure 1",
        "Figure 4",
        "Figure 5",
        "Figure 7",
        "Figure 8",
        "Table 2",
    ]
    assert "Figure 3. Layers: left out, needs" in result.stderr and "Next: open" in result.stderr
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")


def test_the_figures_on_the_page_are_those_of_the_bundle(runs, invoke, tmp_path):
    assert invoke("--show", 2).exit_code == 0
    with Inverter(runs / "full.deepsim") as inverter:
        made = inverter.reconstruct(PHOTOS)
        wanted, reached = inverter.encode(PHOTOS), inverter.encode(made)
    page = (tmp_path / "page.html").read_text().replace("\u00a0", " ")
    for error in (normalized_error(made, PHOTOS), normalized_error(reached, wanted)):
        assert f"{100 * error:,.1f} %" in page
    assert "the first 2 of 5 photographs of the folder" in page and "means over 5 photographs" in page


def test_figures_of_an_evaluation_go_before_measuring(invoke, runs, tmp_path, monkeypatch):
    value = {"value": 0.4321, "low": None, "high": None}
    measured = {
        "photographs": 1234,
        "image": {"normalized_error": value},
        "sharpness": {"gradient_energy": value},
        "spaces": {},
    }
    method = {"name": "m", "layer": "fc6", "space": "s", "provenance": provenance("full"), "figures": measured}
    record = {"kind": "deepsim evaluation", "schema": 1, "methods": [method]}
    (tmp_path / "evaluation.json").write_text(json.dumps(record))
    monkeypatch.setattr(drawing.Reference, "numbers", lambda *_: pytest.fail("measured what is known"))
    result = invoke(tmp_path / "evaluation.json", given=runs / "full.deepsim")
    assert result.exit_code == 0, result.output
    page = (tmp_path / "page.html").read_text().replace("\u00a0", " ")
    assert "43.2 / \u2013" in page and "1,234" in page and "come from deepsim evaluate" in page


def test_what_deepsim_evaluate_writes_is_read(invoke, photos, tmp_path):
    bundle, others = write_bundle(tmp_path, "own", layer="conv1"), tmp_path / "others"
    for number, photo in enumerate(PHOTOS):
        save_png(255 - photo, others / f"{number}.png")
    words = [bundle, "--images", f"Negatives@conv1={others}", "--photos", photos, "-o", tmp_path / "evaluation"]
    done = CliRunner().invoke(evaluate, [*map(str, words), "--resamples", "10"])
    assert done.exit_code == 0, done.output
    record = json.loads((tmp_path / "evaluation" / "evaluation.json").read_text())
    given = read_given([str(bundle), f"Negatives@conv1={others}", str(tmp_path / "evaluation")])
    studio = drawing.Studio(folder_gallery(photos, sorted(photos.iterdir()), 2, 64), given.evaluations)
    studio.draw({member: {"reconstruct"} for member in given.members})
    for member, method in zip(given.members, record["methods"], strict=True):
        drawn = studio.drawn[member.origin]
        assert drawn.is_evaluated and drawn.numbers.photographs == 5
        assert drawn.numbers.image == method["figures"]["image"]["normalized_error"]["value"]
        alone = drawing.Studio(studio.gallery)
        alone.draw({each: {"reconstruct"} for each in given.members})
        measured = alone.drawn[member.origin].numbers
        for name in ("image", "feature", "sharpness"):  # one definition, here and there
            assert getattr(measured, name) == pytest.approx(getattr(drawn.numbers, name), abs=1e-6), name


def test_pictures_of_another_method_are_measured_in_features_too(invoke, runs, photos, tmp_path):
    result = invoke(f"Copies@fc6={photos}", given=runs / "full.deepsim")
    assert result.exit_code == 0, result.output
    assert "Figure 4" in result.stdout
    assert "0.0 / 0.0" in (tmp_path / "page.html").read_text().replace("\u00a0", " ")


def test_a_photograph_without_its_picture_is_named(invoke, runs, tmp_path):
    (tmp_path / "some").mkdir()
    save_png(PHOTOS[0], tmp_path / "some" / "0.png")
    result = invoke(f"Some@fc6={tmp_path / 'some'}", given=runs / "full.deepsim")
    assert isinstance(result.exception, DataError)
    assert "no picture named 1 (and 3 more)" in str(result.exception)
    assert not (tmp_path / "page.html").exists()


def test_the_default_photographs_need_no_folder(invoke, runs, tmp_path):
    pytest.importorskip("skimage")
    assert invoke(given=runs / "full.deepsim", photographs=None).exit_code == 0
    page = (tmp_path / "page.html").read_text()
    assert "Photograph chelsea" in page and "too few for a benchmark" in page


def test_outputs_are_checked_before_any_work(invoke, runs, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(drawing, "opened", lambda *_: pytest.fail("worked before it looked"))
    (tmp_path / "old.html").write_text("mine")
    (tmp_path / "one").mkdir()
    save_png(PHOTOS[0], tmp_path / "one" / "a.png")
    for arguments, error, words in (
        (("-o", tmp_path / "page.png"), UsageError, "ends in .html or .pdf"),
        (("-o", tmp_path / "a.pdf", "-o", tmp_path / "." / "a.pdf"), UsageError, "given twice"),
        (("-o", tmp_path / "old.html"), UsageError, "--overwrite"),
        (("-o", runs / "full.deepsim" / "page.html"), UsageError, "in the bundle"),
        ((tmp_path / "nothing",), DataError, "no such folder"),
    ):
        result = invoke(*arguments)
        assert isinstance(result.exception, error) and words in str(result.exception), arguments
    one = invoke(photographs=tmp_path / "one")
    assert isinstance(one.exception, DataError) and "two or more" in str(one.exception)
    assert (tmp_path / "old.html").read_text() == "mine"


@pytest.mark.slow
def test_a_run_is_drawn_by_the_export_that_its_bundle_would_be(tmp_path):
    run = Path(__file__).parents[2] / "data/earlier/run"
    (member,) = read_given([str(run)]).members
    export_bundle(load_run(run), tmp_path / "run.deepsim", Options("onnx"))
    own = photographs(2)
    with Inverter(tmp_path / "run.deepsim") as expected, drawing.opened(member, drawing.Engine()) as inverter:
        assert (inverter.reconstruct(own) == expected.reconstruct(own)).all()
        scratch = inverter.bundle.path
    assert not scratch.exists()
