"""Held-out photographs: which ones, never trained on, the same after resuming; what is said where there are none."""

import json
import os
import shutil

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from deepsim.runtime.errors import CheckpointError, DataError  # noqa: E402
from deepsim.runtime.geometry import CAFFE_FRAMING  # noqa: E402
from deepsim.runtime.images import save_png  # noqa: E402
from deepsim.train import held_out, loop  # noqa: E402
from deepsim.train.data import batches, mean_image  # noqa: E402
from deepsim.train.datasets import FolderDataset  # noqa: E402
from deepsim.train.held_out import Asked, choose_images, draw  # noqa: E402
from tests.train.runs import TINY  # noqa: E402


@pytest.fixture
def photos(tmp_path):
    """Forty 256x256 photographs; each has one colour, of which red is its number."""
    for number in range(40):
        save_png(np.full((256, 256, 3), (number, 9, 7), np.uint8), tmp_path / "photos" / f"{number:02}.png")
    return tmp_path / "photos"


def numbers(dataset):
    return {int(dataset.photo(index)[0, 0, 0]) for index in range(len(dataset))}


def held_numbers(images):
    return {int(entry["name"][:2]) for entry in images.record["held_out"]}


def run_of(folder, images, resume="never"):
    device = torch.device("cpu")
    return loop.Run(folder, images.training, images.validation, device, resume=resume, quiet=True, record=images.record)


def test_eight_of_forty_are_held_out_and_never_met(photos):
    images = choose_images(Asked((str(photos),)), seed=3)
    assert images.kind == "held-out"
    assert len(images.validation) == 8
    assert numbers(images.validation) == held_numbers(images)
    assert numbers(images.training) == set(range(40)) - held_numbers(images)
    met = {
        int(n)
        for step, batch in zip(range(12), batches(images.training, CAFFE_FRAMING, 8, 3, 0, True, 0.5), strict=False)
        for n in batch[:, 0, 0, 0]
    }  # three epochs
    assert met == set(range(40)) - held_numbers(images)
    assert mean_image(images.training, CAFFE_FRAMING)[0, 0, 0] == pytest.approx(np.mean(sorted(met)))
    assert images.described == "8 photographs, held out"


def test_the_seed_decides_which(photos):
    chosen = [held_numbers(choose_images(Asked((str(photos),)), seed)) for seed in (0, 0, 1)]
    assert chosen[0] == chosen[1] != chosen[2]


@pytest.mark.parametrize(("count", "expected"), [(1, 0), (2, 0), (9, 0), (10, 2), (24, 4), (39, 7), (40, 8), (1000, 8)])
def test_how_many_are_held_out(monkeypatch, count, expected):
    dataset = FolderDataset.of([f"{number}.png" for number in range(count)])
    monkeypatch.setattr(FolderDataset, "readable", lambda self, index: True)
    assert len(set(draw(dataset, 0))) == expected


def test_an_unreadable_photograph_is_not_drawn(photos):
    first = held_numbers(choose_images(Asked((str(photos),)), 0))
    broken = photos / f"{min(first):02}.png"
    broken.write_bytes(broken.read_bytes()[:60])
    again = held_numbers(choose_images(Asked((str(photos),)), 0))
    assert min(first) not in again
    assert len(again) == 8


@pytest.mark.parametrize("count", [1, 9])
def test_of_few_photographs_none_is_held_out_and_that_is_said(photos, count):
    for number in range(count, 40):
        (photos / f"{number:02}.png").unlink()
    images = choose_images(Asked((str(photos),)), 0)
    assert (images.kind, images.record["held_out"], len(images.training)) == ("training", [], count)
    assert images.described == "the training images themselves, none is held out"


def test_leaves_of_another_seed_are_held_out():
    images = choose_images(Asked(leaves=30), seed=4)
    assert (images.kind, len(images.training), len(images.validation)) == ("held-out", 30, 8)
    trained = {images.training.load(index).tobytes() for index in range(30)}
    assert not trained & {images.validation.load(index).tobytes() for index in range(8)}
    assert len(choose_images(Asked(), 4).training) == 10_000


def test_photographs_and_leaves_are_mixed_in_equal_shares(photos):
    images = choose_images(Asked((str(photos),), 70), 0)
    names = [images.training.name(index) for index in range(len(images.training))]
    leaves = sum(name.startswith("dead leaves") for name in names)
    assert (len(names) - leaves, leaves) == (96, 70)  # 32 photographs, three times
    assert images.training.description == "32 photographs and 70 procedural images (dead leaves)"
    assert numbers(images.validation) == held_numbers(images)


def test_given_validation_holds_nothing_out_and_is_not_trained_on(photos, tmp_path, caplog):
    (photos / "val").mkdir()
    for number in (3, 5):
        (photos / f"{number:02}.png").rename(photos / "val" / f"{number:02}.png")
    shutil.copy(photos / "val" / "03.png", photos / "copy.png")
    images = choose_images(Asked((str(photos),), validation=(str(photos / "val"),)), 0)
    assert (images.kind, images.record["held_out"], numbers(images.validation)) == ("given", [], {3, 5})
    assert numbers(images.training) == set(range(40)) - {3, 5}
    assert "3 of its photographs are among the validation images" in caplog.text
    with pytest.raises(DataError, match="all its photographs are in --validation"):
        choose_images(Asked((str(photos),), validation=(str(photos),)), 0)


def test_copies_and_links_of_a_held_out_photograph_are_not_trained_on(photos):
    held = sorted(held_numbers(choose_images(Asked((str(photos),)), 0)))
    (photos / "sub").mkdir()
    shutil.copy(photos / f"{held[0]:02}.png", photos / "sub" / "copy.png")
    (photos / "sub" / "link.png").symlink_to(photos / f"{held[1]:02}.png")
    os.link(photos / f"{held[2]:02}.png", photos / "sub" / "hard.png")
    dataset = FolderDataset([photos])
    apart = [dataset.paths[number] for number in held]
    found = {dataset.paths[index].rsplit("/", 1)[1] for index in held_out.same_pictures(dataset.paths, apart)}
    assert found == {"copy.png", "link.png", "hard.png", *(f"{number:02}.png" for number in held)}
    images = choose_images(Asked((str(photos), str(photos / "sub"))), 0)
    assert not numbers(images.training) & numbers(images.validation)


def test_a_resumed_run_holds_out_the_same_ones(photos, tmp_path, monkeypatch, caplog):
    begun = choose_images(Asked((str(photos),)), 0)
    loop.train(TINY.updated({"steps": 2}), run_of(tmp_path / "r", begun))
    record = json.loads((tmp_path / "r/data.json").read_text())
    assert record["held_out"] == begun.record["held_out"]
    assert record["validation_on"] == "held-out"
    monkeypatch.chdir(photos)
    for asked in (Asked(), Asked((".",))):  # no folders, or the same by another name
        again = choose_images(asked, 0, tmp_path / "r")
        assert held_numbers(again) == held_numbers(begun)
        assert again.training.paths[0].endswith(begun.training.paths[0].rsplit("/", 1)[1])
    save_png(np.full((256, 256, 3), 99, np.uint8), photos / "00-new.png")
    more = choose_images(Asked(), 0, tmp_path / "r")
    assert held_numbers(more) == held_numbers(begun)
    assert 99 in numbers(more.training)
    assert "training images: 33 photographs; when the run began: 32 photographs." in caplog.text
    loop.train(TINY.updated({"steps": 3}), run_of(tmp_path / "r", more, "auto"))
    assert json.loads((tmp_path / "r/data.json").read_text())["held_out"] == begun.record["held_out"]


@pytest.mark.parametrize("change", ["missing", "changed"])
def test_a_held_out_photograph_that_is_gone_or_changed_is_named(photos, tmp_path, change):
    begun = choose_images(Asked((str(photos),)), 0)
    loop.train(TINY.updated({"steps": 1}), run_of(tmp_path / "r", begun))
    name = begun.record["held_out"][2]["name"]
    (photos / name).unlink()
    if change == "changed":
        save_png(np.zeros((256, 256, 3), np.uint8), photos / name)
    with pytest.raises(DataError, match=rf"{name}: held out when the run began.*\n?.*Restore it"):
        choose_images(Asked(), 0, tmp_path / "r")


def test_a_run_from_before_says_that_its_error_is_on_training_images(photos, tmp_path, caplog):
    images = choose_images(Asked((str(photos),)), 0)
    loop.train(TINY.updated({"steps": 1}), run_of(tmp_path / "r", images))
    (tmp_path / "r/data.json").write_text(json.dumps({"training": "40 photographs", "validation": "40 photographs"}))
    for expected in (1, 1):  # said once: afterwards the record says it
        old = choose_images(Asked((str(photos),)), 0, tmp_path / "r")
        assert (old.kind, len(old.training)) == ("training", 40)
        assert caplog.text.count("begun before photographs were held out") == expected
        (tmp_path / "r/data.json").write_text(json.dumps(old.record))
    (tmp_path / "r/data.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"data\.json: not readable"):
        choose_images(Asked((str(photos),)), 0, tmp_path / "r")


def test_a_run_that_began_on_leaves_holds_photographs_out_when_they_come(photos, tmp_path, caplog):
    leaves = choose_images(Asked(leaves=20), 0)
    loop.train(TINY.updated({"steps": 1}), run_of(tmp_path / "r", leaves))
    mixed = choose_images(Asked((str(photos),), 20), 0, tmp_path / "r")
    assert (mixed.kind, len(held_numbers(mixed))) == ("held-out", 8)
    assert "when the run began: 20 procedural images" in caplog.text
    (tmp_path / "r/data.json").write_text(json.dumps(mixed.record))
    back = choose_images(Asked(leaves=20), 0, tmp_path / "r")
    assert held_numbers(back) == held_numbers(mixed)  # so that a third part still leaves them out
    again = choose_images(Asked(), 0, tmp_path / "r")
    assert len(again.training) == len(mixed.training)


def test_other_validation_images_begin_the_best_anew(photos, tmp_path, caplog):
    loop.train(TINY.updated({"steps": 1}), run_of(tmp_path / "r", choose_images(Asked((str(photos),)), 0)))
    other = photos.parent / "other"
    for number in (60, 90):
        save_png(np.full((256, 256, 3), number, np.uint8), other / f"{number}.png")
    given = choose_images(Asked(validation=(str(other),)), 0, tmp_path / "r")
    assert (given.kind, len(given.training)) == ("given", 32)  # what was held out stays so
    loop.train(TINY.updated({"steps": 2}), run_of(tmp_path / "r", given, "auto"))
    assert "validated on other images so far" in caplog.text
    assert (tmp_path / "r/checkpoints/best").read_text().strip() == "step-00000002"
