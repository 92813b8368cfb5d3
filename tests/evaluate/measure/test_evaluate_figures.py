"""The figures of deepsim evaluate equal plain arithmetic on the Inverter's own pictures and features."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from PIL import Image

from deepsim.runtime.metrics import mean_pairwise_distance, normalized_error, psnr
from deepsim.runtime.pixels import Pixels


def value(record, group, name, method=0):
    figures = record["methods"][method]["figures"]
    return (figures[group] if group in figures else figures["spaces"][group])[name]["value"]


def scores(reached, wanted):
    """Return the share of other rows that correlate less than the right one."""
    n = len(wanted)
    found = np.corrcoef(reached.reshape(n, -1), wanted.reshape(n, -1))[:n, n:]
    return [(found[i] < found[i, i]).sum() / (n - 1) for i in range(n)]


def gradient_energy(pixels: Pixels) -> float:
    grey = pixels.astype(float) @ [0.299, 0.587, 0.114]
    down, right = np.diff(grey, axis=1)[:, :, :-1], np.diff(grey, axis=2)[:, :-1]
    return float((down**2 + right**2).mean())


def test_figures_equal_plain_arithmetic(evaluate, reconstructed, tmp_path):
    pixels, pictures, wanted, reached = reconstructed
    record = evaluate("--space", "pixels")
    assert value(record, "image", "normalized_error") == pytest.approx(normalized_error(pictures, pixels))
    assert value(record, "image", "psnr") == pytest.approx(psnr(pictures, pixels).mean())
    assert value(record, "mini fc6", "normalized_error") == pytest.approx(normalized_error(reached, wanted))
    assert value(record, "mini fc6", "2_way") == pytest.approx(np.mean(scores(reached, wanted)))
    assert value(record, "pixels", "2_way") == pytest.approx(np.mean(scores(pictures, pixels)))
    flat = [(a.ravel().astype(float), b.ravel()) for a, b in zip(pictures, pixels, strict=True)]
    assert value(record, "image", "pixel_correlation") == pytest.approx(np.mean([np.corrcoef(*p)[0, 1] for p in flat]))
    sharp = gradient_energy(pictures) / gradient_energy(pixels)
    assert value(record, "sharpness", "gradient_energy") == pytest.approx(sharp, rel=1e-5)
    assert -1 <= value(record, "image", "ms_ssim") <= 1 and value(record, "sharpness", "spectrum_slope") is not None
    norms = {entry["space"]: entry["mean_distance"] for entry in record["reference"]["norms"]}
    assert norms["pixels"] == pytest.approx(mean_pairwise_distance(pixels), rel=1e-12)
    assert norms["mini fc6"] == pytest.approx(mean_pairwise_distance(wanted), rel=1e-9)
    for group in ("image", "sharpness"):
        for figure in record["methods"][0]["figures"][group].values():
            assert figure["value"] is None or figure["low"] <= figure["value"] <= figure["high"]
    assert record["methods"][0]["figures"]["spaces"]["mini fc6"]["50_way"]["value"] is None  # of seven photographs


def test_tables_and_lines_of_photographs(evaluate, reconstructed, tmp_path):
    pixels, pictures, _, _ = reconstructed
    record = evaluate("--name", "ours & theirs")
    table = (tmp_path / "out/table.txt").read_text()
    image = 100 * value(record, "image", "normalized_error")
    assert f"ours & theirs  fc6    {image:.1f} [" in table and "Identification is in mini fc6 alone" in table
    assert "Dosovitskiy & Brox 2016, Table 2: the paper's own figures" in table and "55 / 48" in table
    lines = list(csv.reader((tmp_path / "out/table.csv").open()))
    assert ["ours & theirs", "fc6", "image", "psnr"] in [line[:4] for line in lines]
    (path,) = (tmp_path / "out/photographs").iterdir()
    rows = list(csv.DictReader(path.open()))
    assert [row["photograph"].rpartition("/")[2] for row in rows] == [f"p{number}.png" for number in range(7)]
    assert [float(row["psnr"]) for row in rows] == pytest.approx(psnr(pictures, pixels).tolist())
    assert {"mini fc6 distance", "mini fc6 beaten", "original gradient_energy"} <= set(rows[0])
    kept = {file.name for file in (tmp_path / "out/rows").rglob("*") if file.is_file()}
    assert kept == {"columns.npz", "job.json"}


def test_pictures_of_another_program(evaluate, reconstructed, tmp_path):
    _, pictures, _, _ = reconstructed
    for number, picture in enumerate(pictures):
        (tmp_path / "theirs").mkdir(exist_ok=True)
        Image.fromarray(picture).save(tmp_path / f"theirs/p{number}.png")
    record = evaluate("--images", f"their method@fc6={tmp_path / 'theirs'}")
    own, other = (method["figures"] for method in record["methods"])
    assert own == other
    assert [method["layer"] for method in record["methods"]] == ["fc6", "fc6"]
    assert record["methods"][1]["name"] == "their method"
    Image.fromarray(pictures[3]).resize((56, 56)).save(
        tmp_path / "theirs/p3.png"
    )  # resized to 28 before it is compared
    changed = evaluate("--images", f"their method={tmp_path / 'theirs'}", output="more")
    assert changed["methods"][0]["figures"] == own != changed["methods"][1]["figures"]
    assert changed["methods"][1]["layer"] is None
    (tmp_path / "theirs/p3.png").unlink()
    said = evaluate("--images", f"t={tmp_path / 'theirs'}", code=3, output="none")
    assert "theirs: no picture named p3, expected one for each photograph." in said


def test_pictures_alone_are_framed_by_a_space(evaluate, reconstructed, mini, tmp_path):
    pixels = reconstructed[0]
    (tmp_path / "theirs").mkdir()
    for number, picture in enumerate(pixels):
        Image.fromarray(picture).save(tmp_path / f"theirs/p{number}.jpg", quality=30)
    options = ("--images", f"jpeg@fc6={tmp_path / 'theirs'}", "--space", mini)
    record = evaluate(*options, bundles=())
    assert 0 < value(record, "image", "normalized_error") < 0.5
    assert 0 < value(record, "mini fc6", "normalized_error") < 0.5
    assert "expected a bundle or --space too" in evaluate(*options[:2], bundles=(), code=2, output="none")


def test_layers_of_a_table_and_a_second_network(evaluate, mini, reconstructed, tmp_path):
    from tests.bundles import write_bundle

    tiny = write_bundle(tmp_path, "tiny")
    record = evaluate("--space", f"{mini}:conv1,fc6", "--space", tiny)
    assert [space["name"] for space in record["spaces"]] == [
        "mini fc6",
        "mini conv1",
        "mini fc6 (mini by PyTorch)",
        "tiny fc6",
    ]
    wanted = reconstructed[2]
    norms = [entry["mean_distance"] for entry in record["reference"]["norms"] if "mini fc6" in entry["space"]]
    assert norms == pytest.approx([mean_pairwise_distance(wanted)] * 2, rel=1e-5)  # by the backend and by PyTorch
    figures = record["methods"][0]["figures"]["spaces"]
    assert 0 <= figures["mini conv1"]["2_way"]["value"] <= 1 and figures["tiny fc6"]["correlation"]["value"] is not None


def test_the_reference_gives_n(evaluate, reconstructed, photos, tmp_path):
    from deepsim.runtime.images import prepare_batch
    from tests.bundles import MINI_ENCODER

    reference = tmp_path / "reference"
    reference.mkdir()
    for number in (1, 4, 5):
        (reference / f"p{number}.png").write_bytes((photos / f"p{number}.png").read_bytes())
    pixels, pictures, _, _ = reconstructed
    record = evaluate("--reference", reference)
    three = prepare_batch(sorted(reference.iterdir()), MINI_ENCODER.framing)
    expected = normalized_error(pictures, pixels, three)
    assert value(record, "image", "normalized_error") == pytest.approx(expected)
    assert (record["reference"]["count"], record["reference"]["photographs"]) == (3, str(reference))
