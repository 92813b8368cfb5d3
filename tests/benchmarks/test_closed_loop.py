"""The benchmark of closed loops: what it compares decodes the same images, and what does not is refused."""

import json

import numpy as np
import pytest

pytest.importorskip("torch")

from click.testing import CliRunner

from deepsim.benchmarks import closed_loop
from deepsim.runtime.bundle import Bundle
from deepsim.runtime.errors import NumericError
from tests.bundles import write_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_bundle(tmp_path_factory.mktemp("bundles"), "mini")


def test_figures(bundle, tmp_path):
    options = ["--optimizer", "genetic", "--repeats", "2", "-o", str(tmp_path / "figures.json")]
    done = CliRunner().invoke(closed_loop.main, [str(bundle), *options])
    assert done.exit_code == 0, (done.output, done.exception)
    record = json.loads((tmp_path / "figures.json").read_text())
    assert record["codes"] == 20 and len(record["search_seconds"]) == 6
    names = ["deepsim", "plain PyTorch", "plain PyTorch, channels last"]
    assert list(record["median_seconds"]) == names and all(f"{name} " in done.output for name in names)
    for own in record["seconds"].values():
        assert all(whole > part > 0 for whole, part in zip(own["generation"], own["decode"], strict=True))


def test_other_images_are_refused(bundle):
    decoders = closed_loop.contenders(Bundle.open(bundle), 4)
    codes = np.random.RandomState(0).randn(4, 20).astype(np.float32)
    assert closed_loop.check(decoders, codes)["plain PyTorch"]["grey_levels"] <= 1
    decoders["swapped"] = lambda codes: decoders["deepsim"](codes)[..., ::-1]
    with pytest.raises(NumericError, match="swapped: differs from deepsim"):
        closed_loop.check(decoders, codes)
