"""The weights that the repository keeps: small, whole, with a card, and good enough for what the card says."""

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("skimage")

from deepsim.export.sources import load_run  # noqa: E402
from deepsim.export.torch_networks import decode, encode, tensors  # noqa: E402
from deepsim.runtime.images import prepare_batch  # noqa: E402
from deepsim.runtime.metrics import normalized_error  # noqa: E402
from deepsim.train.networks import scored, to_pixels  # noqa: E402
from deepsim.train.photographs import write_photographs  # noqa: E402

KEPT = Path(__file__).resolve().parents[2] / "train/kept"
RUNS = sorted(path.parent for path in KEPT.glob("*/config.json"))


def test_all_together_are_small():
    assert RUNS
    assert sum(path.stat().st_size for path in KEPT.rglob("*") if path.is_file()) <= 20e6


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_each_has_a_card_that_names_conditions_and_licence(run):
    card = (run / "README.md").read_text()
    for word in ("photographs", "image error", "Licence:", "seed"):
        assert word in card


def test_norm2_reconstructs_photographs_as_its_card_says(tmp_path):
    source = load_run(KEPT / "norm2")
    write_photographs(tmp_path / "photographs")
    photos = prepare_batch(sorted((tmp_path / "photographs/held-out").iterdir()), source.geometry.framing)
    features = encode(source.table, source.layer, tensors(source.encoder_weights), photos)
    whole = torch.from_numpy(decode(source.generator_table, tensors(source.generator_weights), features))
    images = to_pixels(scored(whole, source.geometry)).numpy()
    assert normalized_error(images, photos) == pytest.approx(0.154, abs=0.002)
