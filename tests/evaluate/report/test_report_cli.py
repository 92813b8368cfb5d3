from __future__ import annotations

import json
import re
from contextlib import nullcontext

import numpy as np
import pytest
from click.testing import CliRunner

from deepsim.evaluate.report import cli
from deepsim.evaluate.report.figures import choose
from deepsim.runtime.errors import DataError, DeviceError, UsageError
from deepsim.runtime.files import reserved
from deepsim.runtime.inverter import Inverter
from deepsim.runtime.networks import VGG16
from tests.bundles import random_weights, write_files
from tests.evaluate.report.report_fakes import FakeInverter, write_photos, write_run


@pytest.fixture
def invoke(tmp_path, monkeypatch):
    monkeypatch.setattr(cli, "open_inverter", lambda *_: nullcontext(FakeInverter()))
    write_photos(tmp_path / "photos", ["b.png", "a.png", "more/c.png"])

    def call(*options: str):
        arguments = ["x.deepsim", "--photos", str(tmp_path / "photos"), "-o", str(tmp_path / "page.html"), *options]
        return CliRunner().invoke(cli.report, arguments)

    return call


def test_writes_the_page_and_prints_margins(invoke, tmp_path):
    result = invoke("--seconds", "0", "--run", str(write_run(tmp_path / "run")))
    assert result.exit_code == 0, result.output
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")
    lines = result.stdout.splitlines()
    assert [line.split("  ")[0] for line in lines[1:5]] == [
        "the reconstruction",
        "the mean training image",
        "the blurred best constant image",
        "each photograph\u2019s own mean colour",
    ]
    assert lines[-1] == "re-encoding settles (3 photographs)"
    assert "page.html" in result.stderr and "page.html" not in result.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"page.html", "photos", "run"}


def test_json_holds_every_figure(invoke):
    record = json.loads(invoke("--json", "--seconds", "0", "--limit", "2").stdout)
    assert [photo["name"] for photo in record["per_photograph"]] == ["a.png", "b.png"]
    assert (record["photographs"], record["photographs_found"]) == (2, 3)
    baseline, own = record["baselines"][0], record["reconstruction"]
    assert baseline["margin"] == pytest.approx(1 - own["distance"] / baseline["distance"])
    assert len(record["reencoding"]["errors_rmse"]) == 8
    assert "training" not in record and "throughput" not in record


def test_refuses_to_overwrite_before_any_work(invoke, tmp_path, monkeypatch):
    page = tmp_path / "page.html"
    page.write_text("mine")
    with monkeypatch.context() as patch:
        patch.setattr(cli, "open_inverter", lambda *_: pytest.fail("worked before it looked"))
        result = invoke()
    assert isinstance(result.exception, UsageError) and "--overwrite" in str(result.exception)
    assert page.read_text() == "mine"
    assert invoke("--overwrite", "--seconds", "0").exit_code == 0
    assert page.read_text() != "mine"


def test_what_is_left_out_of_the_photographs_is_said_once(invoke, tmp_path, caplog):
    (tmp_path / "photos/notes.txt").write_text("no image")
    assert invoke("--seconds", "0").exit_code == 0
    assert caplog.text.count("left out 1 .txt") == 1


def test_a_page_never_replaces_what_it_reads(invoke, tmp_path):
    run = write_run(tmp_path / "run")
    for name in ("photos/a.png", "run/log.jsonl", "run/config.json"):
        before = (tmp_path / name).read_bytes()
        result = invoke("--overwrite", "--run", str(run), "-o", str(tmp_path / "photos" / ".." / name))
        assert result.exit_code != 0 and "is the input" in str(result.exception or result.output)
        assert (tmp_path / name).read_bytes() == before


def test_a_failing_write_leaves_the_old_page(invoke, tmp_path, monkeypatch):
    page = tmp_path / "page.html"
    page.write_text("old")

    def torn(*_):
        raise OSError("disk")

    monkeypatch.setattr("os.fsync", torn)
    assert invoke("--overwrite", "--seconds", "0").exit_code != 0
    assert page.read_text() == "old"
    assert {path.name for path in tmp_path.iterdir()} == {"page.html", "photos"}


def test_a_failing_measurement_writes_nothing(invoke, tmp_path):
    (tmp_path / "photos" / "z.png").write_bytes(b"not an image")
    assert isinstance(invoke("--seconds", "0").exception, DataError)
    assert not (tmp_path / "page.html").exists()


def test_bench_file_is_used_instead_of_measuring(invoke, tmp_path, monkeypatch):
    monkeypatch.setattr(cli, "measure", lambda *_: pytest.fail("measured"))
    row = {"backend": "torch", "what": "decode", "batch": 4, "images_per_second": 77.0}
    (tmp_path / "bench.json").write_text(json.dumps({"layer": "norm2", "rows": [row], "devices": {"torch": "cpu"}}))
    result = invoke("--bench", str(tmp_path / "bench.json"))
    assert result.exit_code == 0, result.output
    assert "77.0 images per second decoded in batches of 4" in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"rows": [{}]}', '{"rows": [{"what": 1, "batch": 1, "images_per_second": 0}]}']
)
def test_useless_bench_files_are_refused(invoke, tmp_path, text):
    (tmp_path / "bench.json").write_text(text)
    result = invoke("--bench", str(tmp_path / "bench.json"))
    assert isinstance(result.exception, DataError) and "bench.json" in str(result.exception)


def test_figures_of_another_layer_are_refused(invoke, tmp_path):
    row = {"what": "decode", "batch": 4, "images_per_second": 77.0}
    (tmp_path / "bench.json").write_text(json.dumps({"layer": "fc6", "rows": [row]}))
    assert isinstance(invoke("--bench", str(tmp_path / "bench.json")).exception, UsageError)
    assert isinstance(invoke("--run", str(write_run(tmp_path / "run", layer="fc6"))).exception, UsageError)


def test_measures_throughput_by_itself(invoke, monkeypatch):
    def measure(inverter, batches, seconds, progress):
        progress("decode x 1")
        return [{"what": "decode", "batch": batches[0], "images_per_second": 5.0 * seconds}]

    monkeypatch.setattr(cli, "measure", measure)
    record = json.loads(invoke("--json", "--seconds", "3").stdout)
    assert record["throughput"]["rows"] == [{"what": "decode", "batch": 1, "images_per_second": 15.0}]
    assert record["throughput"]["devices"] == {"onnxruntime": "cpu"}


@pytest.mark.parametrize(
    ("count", "limit", "expected"), [(3, 5, [0, 1, 2]), (10, 5, [0, 2, 4, 6, 8]), (7, 3, [0, 2, 4])]
)
def test_photographs_are_spread_evenly(count, limit, expected):
    assert choose(list(range(count)), limit) == expected


def test_a_real_bundle_end_to_end(tmp_path):
    for package in ("onnx", "onnxruntime", "safetensors"):
        pytest.importorskip(package)
    from tests.bundles import write_bundle

    bundle, page = write_bundle(tmp_path), tmp_path / "page.html"
    photos = write_photos(tmp_path / "photos", ["a.png", "b.png"])
    options = ["--photos", str(tmp_path / "photos"), "-o", str(page), "--backend", "onnxruntime", "--seconds", "0.01"]
    result = CliRunner().invoke(cli.report, [str(bundle), *options, "--json"])
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    with Inverter(bundle, backend="onnxruntime") as inverter:
        images = inverter.reconstruct(np.stack(photos))
    expected = [
        np.sqrt(((image.astype(float) - photo) ** 2).mean()) for image, photo in zip(images, photos, strict=True)
    ]
    assert [photo["rmse"] for photo in record["per_photograph"]] == pytest.approx(expected)
    assert {row["what"] for row in record["throughput"]["rows"]} == {"encode", "decode", "reencode"}
    assert "tiny, layer fc6 (20 values)" in page.read_text()


def test_a_bundle_of_another_size_has_its_own_sides(invoke, tmp_path, monkeypatch):
    monkeypatch.setattr(cli, "open_inverter", lambda *_: nullcontext(FakeInverter("v", VGG16, "conv3_1")))
    rows = [{"what": "decode", "batch": 1, "images_per_second": 2.0}]
    (tmp_path / "bench.json").write_text(json.dumps({"rows": rows, "whole_images": False}))
    result = invoke("--bench", str(tmp_path / "bench.json"))
    assert result.exit_code == 0, result.output
    page = (tmp_path / "page.html").read_text()
    assert "VGG-16, layer conv3_1" in page and "227" not in re.sub(r"base64,[^\"]*|<svg.*?</svg>", "", page)
    assert "the 224 \u00d7 224 \u00d7 3 grey levels" in page and "central 224 \u00d7 224 pixels" in page
    assert page.count('width="224" height="224"') > 10


def test_a_run_of_another_size_is_refused(invoke, tmp_path, monkeypatch):
    monkeypatch.setattr(cli, "open_inverter", lambda *_: nullcontext(FakeInverter("v", VGG16, "conv3_1")))
    result = invoke("--seconds", "0", "--run", str(write_run(tmp_path / "run", layer="conv3_1")))
    assert isinstance(result.exception, UsageError) and not (tmp_path / "page.html").exists()
    assert str(result.exception).endswith("photographs of 227x227 pixels, expected the bundle's 224x224.")


def test_a_bundle_without_an_encoder_is_one_line(tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy")
    weights = {f"generator.{name}": value for name, value in random_weights("tiny")[1].items()}
    contents = {"weights.safetensors": safetensors.save(weights)}
    bundle = write_files(tmp_path / "d.deepsim", "tiny", contents, encoder=None)
    write_photos(tmp_path / "photos", ["a.png"])
    arguments = [str(bundle), "--photos", str(tmp_path / "photos"), "-o", str(tmp_path / "page.html")]
    result = CliRunner().invoke(cli.report, [*arguments, "--backend", "cpu"])
    assert isinstance(result.exception, UsageError) and not (tmp_path / "page.html").exists()
    assert str(result.exception) == f"{bundle}: has no encoder, so it decodes features only."


def test_a_page_that_another_process_writes_is_refused_before_any_work(invoke, tmp_path, monkeypatch):
    monkeypatch.setattr(cli, "collect", lambda *_: pytest.fail("worked before it looked"))
    with reserved(tmp_path / "page.html"):
        result = invoke()
    assert isinstance(result.exception, UsageError) and "page.html: in use by process" in str(result.exception)


@pytest.mark.parametrize("missing", ["matplotlib", "jinja2"])
def test_without_its_extra_it_names_it_before_any_work(invoke, tmp_path, monkeypatch, missing):
    monkeypatch.setattr(cli, "find_spec", lambda name: None if name == missing else name)
    error = invoke().exception
    assert isinstance(error, DeviceError) and not (tmp_path / "page.html").exists()
    assert str(error).startswith(f"{missing}: not installed, this needs deepsim[evaluate].")
