"""Statistics: merged in one pass, kept, and read from the files of others."""

import numpy as np
import pytest
import scipy.io

from deepsim.runtime.errors import DataError, ShapeError
from deepsim.runtime.features.statistics import Gathering, Statistics, read_statistics
from tests.runtime.features.files_of_others import write_bdpy

SHAPE = (3, 4, 5)


@pytest.mark.parametrize("shape", [(11,), SHAPE])
@pytest.mark.parametrize("sizes", [(40,), (1, 39), (7, 0, 1, 32), (1,) * 40])
def test_batches_are_merged_as_if_they_were_one(shape, sizes):
    values = (np.random.default_rng(0).random((40, *shape)) * 3 + 1e4).astype(np.float32)  # sums of squares would fail
    gathering, start = Gathering(shape), 0
    for size in sizes:
        gathering.add(values[start : start + size])
        start += size
    found, exact = gathering.result(), values.astype(np.float64)
    assert found.count == 40
    np.testing.assert_allclose(found.mean, exact.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.sd, exact.std(axis=0, ddof=1), rtol=1e-9)
    np.testing.assert_array_equal(found.minimum, exact.min(axis=0))
    np.testing.assert_array_equal(found.maximum, exact.max(axis=0))
    within = exact.reshape(40, shape[0] if len(shape) > 1 else 1, -1).std(axis=2, ddof=1).mean(axis=0)
    np.testing.assert_allclose(found.channel_sd, within, rtol=1e-9)
    np.testing.assert_allclose(found.upper(3), found.mean + 3 * found.sd)


def test_one_photograph_has_no_sd():
    gathering = Gathering((2,))
    gathering.add(np.ones((1, 2), np.float32))
    with pytest.raises(DataError, match="1 photographs, expected 2 or more"):
        gathering.result()


def test_what_is_written_is_read(tmp_path):
    rng = np.random.default_rng(0)
    kept = Statistics(*(rng.random(SHAPE) for _ in range(4)), rng.random(3), 9)
    (tmp_path / "statistics.npz").write_bytes(kept.to_bytes(upper=kept.upper(3)))
    found = read_statistics([tmp_path / "statistics.npz"], SHAPE, "pool5")
    for name, value in kept.given().items():
        np.testing.assert_array_equal(getattr(found, name), value)


def test_files_of_others_add_what_they_have(tmp_path):
    rng = np.random.default_rng(0)
    mean, norm = rng.random((1, 60)).astype(np.float32), rng.random((1, 60)).astype(np.float32)
    write_bdpy(tmp_path / "y_mean.mat", mean, "y_mean")
    write_bdpy(tmp_path / "y_norm.mat", norm, "y_norm")
    name = "estimated_cnn_feat_std_net_ImgSize_227x227_chwise_dof1.mat"
    scipy.io.savemat(tmp_path / name, {"conv3": np.ones((1, 3)), "relu3": np.array([[2.0, 3.0, 4.0]]), "fc6": 7.0})
    found = read_statistics([tmp_path / each for each in ("y_mean.mat", "y_norm.mat", name)], SHAPE, "conv3")
    np.testing.assert_array_equal(found.mean, mean.reshape(SHAPE))
    np.testing.assert_array_equal(found.sd, norm.reshape(SHAPE))
    np.testing.assert_array_equal(found.channel_sd, [2, 3, 4])  # after the ReLU
    np.testing.assert_array_equal(read_statistics([tmp_path / name], (60,), "fc6").channel_sd, [7])


def test_files_that_are_no_statistics(tmp_path):
    np.savez(tmp_path / "a.npz", codes=np.ones(60))
    np.savez(tmp_path / "b.npz", mean=np.ones(59))
    np.savez(tmp_path / "c.npz", mean=np.full(60, np.nan))
    (tmp_path / "d.npz").write_bytes(b"PK damaged")
    (tmp_path / "other.mat").write_bytes(b"")
    cases = {"a": "holds codes", "b": "59 values", "c": "NaN", "d": "unreadable", "missing": "no such file"}
    for name, words in cases.items():
        with pytest.raises(DataError, match=words):
            read_statistics([tmp_path / f"{name}.npz"], SHAPE, "pool5")
    with pytest.raises(DataError, match="its name tells no statistic"):
        read_statistics([tmp_path / "other.mat"], SHAPE, "pool5")
    with pytest.raises(ShapeError):
        read_statistics([tmp_path / "b.npz"], SHAPE, "pool5")
