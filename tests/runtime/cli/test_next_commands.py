"""What a command names as the next one can run on the same bundle."""

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
