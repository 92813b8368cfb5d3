"""Runs of deepsim evaluate: killed, resumed, with bad photographs, and what it refuses."""

from __future__ import annotations

import json
from importlib.util import find_spec

import numpy as np
import pytest

from deepsim.evaluate.measure import passes
from deepsim.evaluate.measure.pictures import PictureMeasures
from deepsim.evaluate.metrics import pairwise
from deepsim.runtime.inverter import Inverter
from tests.bundles import write_bundle, write_kind


def figures(record):
    return [method["figures"] for method in record["methods"]]


@pytest.fixture
def counted(monkeypatch):
    """Count the pictures that are encoded and decoded; optionally end the run at one of them as Ctrl-C does."""
    counts = {"encode": 0, "decode": 0, "ends at": None}

    def counting(name):
        whole = getattr(Inverter, name)

        def call(self, values, *rest, **named):
            counts[name] += len(values)
            if counts["ends at"] is not None and counts[name] > counts["ends at"]:
                raise KeyboardInterrupt
            return whole(self, values, *rest, **named)

        monkeypatch.setattr(Inverter, name, call)

    counting("encode")
    counting("decode")
    return counts


@pytest.mark.parametrize("ends_at", [3, 9])  # among the photographs, and among their reconstructions
def test_a_killed_run_goes_on(evaluate, counted, monkeypatch, tmp_path, ends_at):
    monkeypatch.setattr("deepsim.evaluate.measure.store._EVERY", 0.0)
    whole = evaluate("--max-batch", 2, output="whole")
    assert (counted["encode"], counted["decode"]) == (14, 7)
    counted.update({"encode": 0, "decode": 0, "ends at": ends_at})
    assert "interrupted" in evaluate("--max-batch", 2, code=130)
    assert not (tmp_path / "out/evaluation.json").exists()
    before = dict(counted)
    counted["ends at"] = None
    assert "Pass --resume to go on" in evaluate("--max-batch", 2, code=2)
    resumed = evaluate("--max-batch", 2, "--resume")
    assert figures(resumed) == figures(whole)
    again = counted["encode"] + counted["decode"] - before["encode"] - before["decode"]
    assert again <= 21 - (ends_at - 2) + 4  # what was under way is made again, what was on the disk is not


def test_a_kill_in_n_loses_one_block(evaluate, monkeypatch, tmp_path):
    whole = evaluate(output="whole")
    monkeypatch.setattr("deepsim.evaluate.measure.norms.BLOCK_BYTES", 2 * 28 * 28 * 3)
    distances, blocks = pairwise._distances_from, []

    def counting(rows, part, later):
        blocks.append(part)
        if len(blocks) == 3:
            raise KeyboardInterrupt
        return distances(rows, part, later)

    monkeypatch.setattr(pairwise, "_distances_from", counting)
    evaluate(code=130)
    (path,) = (tmp_path / "out").glob("norm-*.jsonl")
    assert len([line for line in path.read_text().splitlines() if line]) == 2
    with path.open("a") as file:
        file.write('{"block": 2, "to')  # a line that the kill cut off
    resumed = evaluate("--resume")
    assert [part.start for part in blocks[3:5]] == [4, 6]
    assert figures(resumed)[0]["image"]["normalized_error"]["value"] == pytest.approx(
        figures(whole)[0]["image"]["normalized_error"]["value"], rel=1e-12
    )
    assert not list((tmp_path / "out").glob("norm-*.jsonl"))


def test_a_finished_method_is_not_computed_again(evaluate, counted, mini, tmp_path):
    first = evaluate()
    done = dict(counted)
    again = evaluate("--resume")
    assert counted == done and figures(again) == figures(first)
    other = write_bundle(tmp_path, "mini").rename(tmp_path / "other.deepsim")  # the same weights, another name
    both = evaluate("--resume", "--name", "mini", "--name", "other", bundles=(mini, other))
    assert figures(both) == [*figures(first), *figures(first)]
    assert counted["decode"] == done["decode"] + 7
    assert "Pass --overwrite to begin anew" in evaluate("--resume", "--limit", 3, code=2)


def test_two_bundles_of_one_encoder_share_its_features(evaluate, counted, mini, tmp_path):
    other = write_bundle(tmp_path, "mini").rename(tmp_path / "other.deepsim")
    record = evaluate(bundles=(mini, other))
    assert [method["name"] for method in record["methods"]] == ["mini", "other"]
    assert counted["encode"] == 7 + 2 * 7 and len(record["spaces"]) == 1


def test_bad_photographs_stop_or_are_left_out(evaluate, photos, tmp_path, caplog):
    (photos / "p2.png").write_bytes(b"no image")
    said = evaluate("--max-batch", 1, code=3)
    assert "p2.png" in said and "2 of 7 are done: go on with --resume or --on-error skip" in said
    record = evaluate("--resume", "--on-error", "skip")
    assert (record["photographs"]["count"], record["photographs"]["left_out"]) == (6, 1)
    assert any("left out" in message and "p2.png" in message for message in caplog.messages)
    (path,) = (tmp_path / "out/photographs").iterdir()
    assert "p2.png" not in path.read_text() and "p3.png" in path.read_text()
    for photo in photos.iterdir():
        photo.write_bytes(b"no image")
    assert "all 7 left out" in evaluate("--on-error", "skip", code=3, output="none")


def test_another_jobs_rows_are_refused(evaluate, photos, tmp_path):
    evaluate("--keep")
    assert (tmp_path / "out/rows").is_dir() and list((tmp_path / "out/rows").rglob("*.u8"))
    evaluate("--resume", "--keep")
    (photos / "p1.png").write_bytes((photos / "p3.png").read_bytes())  # another photograph under the same name
    said = evaluate("--resume", "--keep", code=2)
    assert "rows of" in said and "Pass --overwrite to begin anew" in said
    assert evaluate("--overwrite")["photographs"]["count"] == 7


def test_neighbours_drift_and_interpolation(evaluate, photos, tmp_path, reconstructed):
    from deepsim.runtime.images import read_image

    pixels, pictures, _, _ = reconstructed
    evaluate("--neighbours", photos, "--k", 2, "--drift", 5, "--interpolation", 3, "--shown", 2)
    (folder,) = (tmp_path / "out/neighbours",)
    near = json.loads((folder / "mini.json").read_text())
    assert [each["space"] for each in near] == ["pixels", "mini fc6"]
    distances = np.linalg.norm(pictures.reshape(7, 1, -1).astype(float) - pixels.reshape(1, 7, -1), axis=2)
    assert near[0]["own_first"] == pytest.approx((distances.argmin(1) == np.arange(7)).mean())
    assert near[0]["mean_distance_of_first"] == pytest.approx(distances.min(1).mean())
    assert len((folder / "mini.csv").read_text().splitlines()) == 1 + 2 * 7 * 2
    drift = json.loads((tmp_path / "out/reencoding/mini.json").read_text())
    assert len(drift["errors_rmse"]) == len(drift["sharpness"]) == 5 and len(drift["steps_rmse"]) == 4
    chosen = pixels[[0, 3]].astype(float)
    expected = np.sqrt(((pictures[[0, 3]] - chosen) ** 2).mean((1, 2, 3))).mean()
    assert drift["errors_rmse"][0] == pytest.approx(expected) and drift["photographs"] == 2
    strip = read_image(tmp_path / "out/reencoding/mini.png")
    assert strip.shape == (2 * 28 + 4, 5 * 28 + 4 * 4, 3)  # the photograph, then 1, 2, 4, 5
    np.testing.assert_array_equal(strip[:28, :28], pixels[0])
    np.testing.assert_array_equal(strip[:28, 32:60], pictures[0])
    assert read_image(tmp_path / "out/interpolation/mini.png").shape == (28, 3 * 28 + 2 * 4, 3)


def test_what_makes_no_sense_is_refused_before_any_work(evaluate, mini, photos, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(passes.MethodRows, "gather", lambda *_: pytest.fail("worked before it looked"))
        assert "neither a bundle nor --images" in evaluate(bundles=(), code=2)
        assert "--name: 1 names for 2 bundles" in evaluate("--name", "a", bundles=(mini, mini), code=2)
        assert "named twice" in evaluate("--name", "a", "--name", "a", bundles=(mini, mini), code=2)
        assert "no such layer here" in evaluate("--images", f"a@fc9={photos}", "--space", mini, bundles=(), code=2)
        assert "expected NAME=FOLDER" in evaluate("--images", "folder", code=2)
        assert "no layer 'conv9'" in evaluate("--space", f"{mini}:conv9", code=2)
        alone, decoder = write_kind(tmp_path / "k", "table-alone"), write_kind(tmp_path / "k", "none")
        assert "encodes only, expected a generator too. Pass it as --space" in evaluate(bundles=(alone,), code=2)
        assert "has no encoder" in evaluate(bundles=(decoder,), code=2)
        known = find_spec("lpips") is not None  # else the missing extra is what is said
        missing = evaluate("--lpips-weights", tmp_path / "none.pth", code=3 if known else 4)
        assert ("no such file" if known else "this needs deepsim[perceptual]") in missing
        assert "is the input" in evaluate(output="photos", code=2)
    evaluate()
    assert "exists already" in evaluate(code=2)


def test_one_photograph_has_no_n(evaluate):
    record = evaluate("--limit", 1)
    image = record["methods"][0]["figures"]["image"]
    assert image["normalized_error"]["value"] is None and image["psnr"]["value"] is not None
    assert record["methods"][0]["figures"]["spaces"]["mini fc6"]["2_way"]["value"] is None


def test_equal_pictures_have_a_plain_record(evaluate, reconstructed, tmp_path, photos):
    from PIL import Image

    (tmp_path / "same").mkdir()
    for number, pixels in enumerate(reconstructed[0]):
        Image.fromarray(pixels).save(tmp_path / f"same/p{number}.png")
    own = evaluate("--images", f"same={tmp_path / 'same'}")["methods"][1]["figures"]
    assert own["image"]["psnr"]["value"] is None  # infinite
    assert own["image"]["normalized_error"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    for name in ("gradient_energy", "aligned_gradient", "spectrum_slope", "octave_4"):
        assert own["sharpness"][name]["value"] == pytest.approx(1)
    assert own["spaces"]["mini fc6"]["first"]["value"] == 1


def test_lpips_is_one_more_column(evaluate, monkeypatch, tmp_path):
    monkeypatch.setattr(
        "deepsim.evaluate.measure.run.Lpips", lambda path: lambda a, b: np.abs(a.astype(float) - b).mean((1, 2, 3))
    )
    record = evaluate("--lpips-weights", tmp_path / "alexnet.pth")
    assert record["methods"][0]["figures"]["image"]["lpips"]["value"] > 0
    assert PictureMeasures(28, lambda a, b: a).columns[-1] == "lpips"
