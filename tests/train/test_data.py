"""Training data: which bytes each step holds, resuming, workers, shards, zoom, and unreadable files."""

import itertools
import logging
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from deepsim.runtime.errors import DataError, UsageError
from deepsim.runtime.geometry import CAFFE_FRAMING
from deepsim.runtime.images import prepare, save_png
from deepsim.train import data, datasets
from deepsim.train.data import Dataset, DeadLeavesDataset, FolderDataset, MixedDataset, batches

SEED = 11


class Numbered(Dataset):
    """Images that name themselves: red = index, green = row, blue = column (256x256, so the warp changes nothing)."""

    def __init__(self, count):
        super().__init__()
        self.count = count

    def __len__(self):
        return self.count

    @property
    def description(self):
        return "numbered images"

    def name(self, index):
        return f"numbered {index}"

    def load(self, index):
        rows, columns = np.mgrid[:256, :256]
        return np.stack([np.full_like(rows, index), rows, columns], axis=-1).astype(np.uint8)


def take(iterator, count):
    """Return the next batches as one array (count, B, 227, 227, 3)."""
    return torch.stack(list(itertools.islice(iterator, count))).numpy()


def stream(dataset, batch, start_step=0, seed=SEED, mirror=True, zoom=0.0, **options):
    """Call batches with the usual settings."""
    return batches(dataset, CAFFE_FRAMING, batch, seed, start_step, mirror, zoom, **options)


def indices(images):
    """Return which images of Numbered a batch holds."""
    return images[..., 0, 0, 0].ravel().tolist()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder of twelve noise photographs, larger than 256 so that zoom has room."""
    path = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    for number in range(12):
        coarse = rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)
        save_png(np.kron(coarse, np.ones((20, 18, 1), np.uint8)), path / f"{number:02}.png")
    return path


@pytest.fixture
def copy(folder, tmp_path):
    """Return a copy of the folder that a test may damage."""
    return shutil.copytree(folder, tmp_path / "photographs")


def test_a_batch_is_uint8_rgb(folder):
    batch = next(stream(FolderDataset([folder]), 3, zoom=0.5))
    assert (batch.shape, batch.dtype) == ((3, 227, 227, 3), torch.uint8)
    assert batch.is_contiguous()


def test_the_same_position_gives_the_same_bytes(folder):
    dataset = FolderDataset([folder])
    first, again = (take(stream(dataset, 5, zoom=0.7), 4) for _ in range(2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, take(stream(dataset, 5, zoom=0.7, seed=SEED + 1), 4))


@pytest.mark.parametrize("start", [1, 3, 5])
def test_resuming_continues_the_sequence(folder, start):
    whole = take(stream(FolderDataset([folder]), 5, zoom=0.7), 7)  # an epoch of 12 ends inside batches 2 and 4
    resumed = take(stream(FolderDataset([folder]), 5, start, zoom=0.7), 7 - start)
    assert np.array_equal(whole[start:], resumed)


def test_resuming_far_away_decodes_nothing_before_it(monkeypatch):
    loaded = []
    load = Numbered.load
    monkeypatch.setattr(Numbered, "load", lambda self, index: loaded.append(index) or load(self, index))
    next(stream(Numbered(50), 2, start_step=10**9))
    assert len(loaded) == 2


@pytest.mark.parametrize("zoom", [0.0, 0.7])
def test_workers_change_nothing(folder, zoom):
    alone = take(stream(FolderDataset([folder]), 4, 2, zoom=zoom), 5)
    helped = take(stream(FolderDataset([folder]), 4, 2, zoom=zoom, workers=2), 5)
    assert np.array_equal(alone, helped)


def test_shards_make_up_the_whole_batch():
    whole = take(stream(Numbered(10), 6), 5)
    halves = [take(stream(Numbered(10), 3, rank=rank, world_size=2), 5) for rank in range(2)]
    assert np.array_equal(np.concatenate(halves, axis=1), whole)


def test_an_epoch_shows_every_image_once():
    shown = indices(take(stream(Numbered(10), 4), 5))  # two epochs; the first ends inside the third batch
    assert sorted(shown[:10]) == sorted(shown[10:]) == list(range(10))
    assert shown[:10] != shown[10:]
    assert shown[:10] != list(range(10))


def test_a_batch_may_hold_several_epochs():
    shown = indices(take(stream(Numbered(3), 11), 1))
    assert [sorted(shown[start : start + 3]) for start in (0, 3, 6)] == [[0, 1, 2]] * 3


def test_crops_are_spread_over_all_offsets():
    images = take(stream(Numbered(40), 40, mirror=False), 10).reshape(-1, 227, 227, 3)
    for channel in (1, 2):  # rows, columns
        offsets = images[:, 0, 0, channel]
        assert offsets.min() == 0 or offsets.max() == 29
        assert set(offsets.tolist()) <= set(range(30))
        assert len(set(offsets.tolist())) >= 28
    assert not np.array_equal(images[:, 0, 0, 1], images[:, 0, 0, 2])
    assert (images[:, :, 0, 1].astype(int) - images[:, :1, 0, 1] == np.arange(227)).all()


def test_mirror_flips_half_of_the_images_and_nothing_else():
    plain = take(stream(Numbered(50), 50, mirror=False), 4).reshape(-1, 227, 227, 3)
    mixed = take(stream(Numbered(50), 50, mirror=True), 4).reshape(-1, 227, 227, 3)
    flipped = mixed[:, 0, 0, 2] > mixed[:, 0, 226, 2]
    assert 70 < flipped.sum() < 130
    assert np.array_equal(np.where(flipped[:, None, None, None], mixed[:, :, ::-1], mixed), plain)


def test_zoom_is_the_share_of_zoomed_images(folder):
    dataset = FolderDataset([folder])
    plain, half, full = (take(stream(dataset, 40, zoom=zoom), 3).reshape(-1, 227 * 227 * 3) for zoom in (0, 0.5, 1))
    same = (plain == half).all(axis=1)
    assert 30 < same.sum() < 90
    assert np.array_equal(full[~same], half[~same])  # a zoomed sample's region does not depend on the share
    assert (plain == full).all(axis=1).sum() == 0


def test_zoom_leaves_small_images_alone():
    assert np.array_equal(take(stream(Numbered(5), 5, zoom=1.0), 1), take(stream(Numbered(5), 5, zoom=0.0), 1))


def test_random_region():
    rows, columns = np.mgrid[:600, :900]
    photo = np.stack([rows // 4, columns // 4, rows * 0], axis=-1).astype(np.uint8)
    rng = np.random.default_rng(0)
    regions = [data.random_region(photo, rng, 256) for _ in range(300)]
    areas = np.array([region.shape[0] * region.shape[1] / (600 * 900) for region in regions])
    ratios = np.array([region.shape[1] / region.shape[0] for region in regions])
    assert areas.min() == pytest.approx(0.25, abs=0.02)
    assert 0.85 < areas.max() <= 1
    assert 0.74 < ratios.min() < 0.8
    assert 1.25 < ratios.max() <= 1.5  # wide photographs: clipped at their height
    assert min(region[0, 0, 0] for region in regions) == 0
    assert max(region[-1, -1, 0] for region in regions) == 149
    assert max(region[-1, -1, 1] for region in regions) == 224


def test_random_region_keeps_256_squared_pixels():
    rng = np.random.default_rng(0)
    regions = [data.random_region(np.zeros((300, 400, 3), np.uint8), rng, 256) for _ in range(100)]
    assert min(region.shape[0] * region.shape[1] for region in regions) > 0.98 * 256**2


def test_the_global_generator_is_left_alone(folder):
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    take(stream(FolderDataset([folder]), 2), 2)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_file_is_replaced_by_the_next(copy, caplog, workers):
    names = sorted(copy.iterdir())
    names[4].write_bytes(names[4].read_bytes()[:200])  # the header is whole
    dataset = FolderDataset([copy])
    with caplog.at_level(logging.WARNING, "deepsim"):
        damaged = take(stream(dataset, 6, workers=workers), 4)  # two epochs
    shutil.copy(names[5], names[4])
    assert np.array_equal(damaged, take(stream(FolderDataset([copy]), 6), 4))
    assert len(caplog.messages) == 1
    assert str(names[4]) in caplog.messages[0]


def test_the_last_file_is_replaced_by_the_first(copy):
    names = sorted(copy.iterdir())
    names[-1].write_bytes(b"")
    dataset = FolderDataset([copy])
    assert data.scan(dataset) == [str(names[-1])]
    damaged = take(stream(dataset, 12), 1)
    shutil.copy(names[0], names[-1])
    assert np.array_equal(damaged, take(stream(FolderDataset([copy]), 12), 1))


@pytest.mark.parametrize("workers", [0, 2])
def test_too_many_unreadable_files_stop_training(copy, workers):
    names = sorted(copy.iterdir())
    for name in names[3:5]:
        name.write_bytes(name.read_bytes()[:200])
    with pytest.raises(DataError, match=r"03\.png, .*04\.png: 2 of 12 images unreadable") as caught:
        take(stream(FolderDataset([copy]), 4, workers=workers), 6)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(("bad", "count", "fails"), [(1, 10, 0), (2, 10, 1), (2, 200, 0), (3, 200, 1), (3, 300, 0)])
def test_one_percent_rule(bad, count, fails):
    dataset = Numbered(count)
    for index in range(bad - 1):
        dataset.skip(index, "broken")
    if fails:
        with pytest.raises(DataError, match=f"{bad} of {count}"):
            dataset.skip(bad, "broken")
    else:
        dataset.skip(bad, "broken")


@pytest.mark.parametrize("workers", [0, 1])
def test_nothing_readable(tmp_path, workers):
    (tmp_path / "only.png").write_bytes(b"broken")
    dataset = FolderDataset([tmp_path])
    for _ in range(2):
        with pytest.raises(DataError, match=r"only\.png: 1 of 1 images unreadable"):
            next(stream(dataset, 2, workers=workers))


def test_scan_opens_every_header(copy, caplog):
    names = sorted(copy.iterdir())
    assert data.scan(FolderDataset([copy])) == []
    names[7].write_bytes(b"a text")
    assert data.scan(MixedDataset([(FolderDataset([copy]), 3), (Numbered(2), 1)])) == [str(names[7])]
    assert len(caplog.messages) == 1
    names[8].write_bytes(b"")
    with pytest.raises(DataError, match="2 of 12"):
        data.scan(FolderDataset([copy]))


def test_scan_leaves_large_sources_to_training(copy, monkeypatch):
    sorted(copy.iterdir())[0].write_bytes(b"a text")
    monkeypatch.setattr(datasets, "SCAN_LIMIT", 11)
    assert data.scan(FolderDataset([copy])) == []


def test_mixed_source_repeats_its_parts(folder):
    photographs, numbered = FolderDataset([folder]), Numbered(4)
    mixed = MixedDataset([(photographs, 2), (numbered, 3), (MixedDataset([(numbered, 1)]), 1)])
    assert len(mixed) == 2 * 12 + 3 * 4 + 4
    assert mixed.locate(13) == (photographs, 1)
    assert mixed.name(25) == mixed.name(37) == "numbered 1"
    assert np.array_equal(mixed.photo(29), numbered.photo(1))
    assert np.array_equal(mixed.photo(12), photographs.photo(0))


def test_a_bad_file_of_a_mixed_source_is_replaced_inside_its_part(copy, caplog):
    names = sorted(copy.iterdir())
    names[-1].write_bytes(b"")
    mixed = MixedDataset([(FolderDataset([copy]), 2), (Numbered(200), 1)])
    damaged = take(stream(mixed, 32), 7)
    assert len(caplog.messages) == 1
    shutil.copy(names[0], names[-1])
    again = MixedDataset([(FolderDataset([copy]), 2), (Numbered(200), 1)])
    assert np.array_equal(damaged, take(stream(again, 32), 7))


def test_validation_takes_the_central_crop(folder):
    batch = data.validation_batch(Numbered(5), 3, CAFFE_FRAMING)
    assert (batch.shape, batch.dtype) == ((3, 227, 227, 3), torch.uint8)
    assert batch[:, 0, 0].tolist() == [[0, 14, 14], [1, 14, 14], [2, 14, 14]]
    photographs = data.validation_batch(FolderDataset([folder]), 12, CAFFE_FRAMING).numpy()
    assert np.array_equal(photographs[5], prepare(sorted(folder.iterdir())[5], CAFFE_FRAMING))
    assert data.validation_batch(Numbered(5), 0, CAFFE_FRAMING).shape == (0, 227, 227, 3)


def test_validation_skips_unreadable_files(copy):
    names = sorted(copy.iterdir())
    names[1].write_bytes(b"")
    batch = data.validation_batch(FolderDataset([copy]), 11, CAFFE_FRAMING).numpy()
    assert np.array_equal(batch[1], prepare(names[2], CAFFE_FRAMING))
    with pytest.raises(DataError, match="11 readable, expected 12"):
        data.validation_batch(FolderDataset([copy]), 12, CAFFE_FRAMING)


def test_mean_image():
    mean = data.mean_image(Numbered(7), CAFFE_FRAMING)
    assert (mean.shape, mean.dtype) == ((227, 227, 3), np.float32)
    assert mean[0, 5].tolist() == [3, 14, 19]
    assert data.mean_image(Numbered(10), CAFFE_FRAMING, limit=5)[0, 0, 0] == np.mean([0, 2, 4, 6, 8])
    with pytest.raises(DataError, match="no readable image"):
        data.mean_image(Numbered(0), CAFFE_FRAMING)


@pytest.mark.parametrize(
    "wrong",
    [{"zoom": 1.5}, {"zoom": -0.1}, {"batch": 0}, {"start_step": -1}, {"seed": -1}, {"rank": 2, "world_size": 2}],
)
def test_figures_out_of_range(wrong):
    with pytest.raises(UsageError, match="expected"):
        stream(Numbered(3), **{"batch": 2, **wrong})
    with pytest.raises(DataError, match="none, expected at least one"):
        stream(Numbered(0), 2)


def test_images_stay_in_memory_while_there_is_room(monkeypatch):
    loaded = []
    load = Numbered.load
    monkeypatch.setattr(Numbered, "load", lambda self, index: loaded.append(index) or load(self, index))
    monkeypatch.setattr(datasets, "CACHE_BYTES", 2 * 256 * 256 * 3)
    dataset = Numbered(3)
    for index in (0, 1, 2, 0, 1, 2):
        assert dataset.photo(index)[0, 0, 0] == index
    assert loaded == [0, 1, 2, 2]


def test_dead_leaves_source():
    dataset = DeadLeavesDataset(3, seed=5)
    assert len(dataset) == 3
    assert dataset.name(2) == "dead leaves 2 (seed 5)"
    assert dataset.photo(2).shape == (256, 256, 3)
    assert np.array_equal(dataset.photo(2), DeadLeavesDataset(9, seed=5).photo(2))
    assert not np.array_equal(dataset.photo(2), DeadLeavesDataset(3, seed=6).photo(2))
    assert not np.array_equal(dataset.photo(2), dataset.photo(1))
    assert Image.fromarray(dataset.photo(0)).mode == "RGB"
