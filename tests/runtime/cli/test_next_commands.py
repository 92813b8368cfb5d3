"""What a command names as the next one can run on the same bundle."""

import json

import numpy as np
import pytest

from tests.bundles import write_kind


@pytest.mark.parametrize(("kind", "following"), [("table", "encode"), ("none", "info")])
def test_after_decode_and_bench_comes_what_the_bundle_can(deepsim, tmp_path, kind, following):
    bundle = write_kind(tmp_path, kind)
    np.save(tmp_path / "f.npy", np.ones((2, 4, 8, 8), np.float32))
    decoded = deepsim("decode", bundle, tmp_path / "f.npy", "-o", tmp_path / "images")
    assert f"Next: deepsim {following} {bundle}" in decoded.stderr
    options = ("--backend", "cpu", "--batches", 1, "--seconds", 0.01, "-o", tmp_path / "b.json")
    after = "report" if kind == "table" else "info"
    assert f"Next: deepsim {after} {bundle}" in deepsim("bench", bundle, *options).stderr


@pytest.mark.parametrize("kind", ["table-alone", "graph-alone"])
def test_an_encoder_alone_is_encoded_with_and_benched(deepsim, photos, tmp_path, kind):
    pytest.importorskip("onnxruntime")
    bundle = write_kind(tmp_path, kind)
    encoded = deepsim("encode", bundle, photos, "-o", tmp_path / "f.npy", "--backend", "cpu")
    assert f"Next: deepsim info {bundle}" in encoded.stderr
    assert np.load(tmp_path / "f.npy").shape == (3, 4, 8, 8)
    options = ("--backend", "cpu", "--batches", 1, "--seconds", 0.01, "--memory", "-o", tmp_path / "b.json")
    benched = deepsim("bench", bundle, *options)
    assert f"Next: deepsim info {bundle}" in benched.stderr
    found = json.loads((tmp_path / "b.json").read_text(encoding="utf-8"))
    assert {row["what"] for row in found["rows"]} == {"encode"} and found["memory"]["cpu"]["peak_bytes"] > 1e6


def test_commands_that_decode_say_that_there_is_no_generator(deepsim, photos, tmp_path):
    bundle = write_kind(tmp_path, "table-alone")
    np.save(tmp_path / "f.npy", np.ones((2, 4, 8, 8), np.float32))
    line = f"{bundle}: has no generator, so it encodes photographs only."
    for command in (
        ("decode", bundle, tmp_path / "f.npy", "-o", tmp_path / "a"),
        ("reconstruct", bundle, photos, "-o", tmp_path / "b"),
        ("reencode", bundle, photos, "-o", tmp_path / "c"),
        ("interpolate", bundle, photos / "p0.png", photos / "p1.png", "-o", tmp_path / "d.png"),
    ):
        assert line in deepsim(*command, code=2).stderr
