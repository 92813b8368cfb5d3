"""Rows of features from files and folders as other programs write them."""

import os
import zipfile

import numpy as np
import pytest
import scipy.io

from deepsim.runtime.errors import DataError, ShapeError, UsageError
from deepsim.runtime.features import read_features
from deepsim.runtime.features.rows import open_rows
from deepsim.runtime.features.trees import Selection
from tests.runtime.features.files_of_others import write_bdpy, write_bdpy_sparse, write_block

CODES = np.random.default_rng(0).standard_normal((12, 5)).astype(np.float32)
MAPS = np.random.default_rng(1).standard_normal((4, 2, 3, 5)).astype(np.float32)


def values_of(rows):
    return np.stack([row for _, row in rows.read(range(len(rows)))]).astype(np.float32)


@pytest.mark.parametrize("python", [True, False])
@pytest.mark.parametrize("suffix", [".mat", ".h5"])
def test_axes_of_version_73_are_reversed(tmp_path, python, suffix):
    path = write_bdpy(tmp_path / f"f{suffix}", MAPS, python=python)
    if suffix == ".h5" and not python:  # any program's HDF5
        assert read_features(path).shape == MAPS.shape[::-1]
        return
    np.testing.assert_array_equal(read_features(path).values, MAPS)
    np.testing.assert_array_equal(values_of(open_rows(path, (2, 3, 5))), MAPS)


@pytest.mark.parametrize("background", [0, 1.5])
@pytest.mark.parametrize("shape", [(1, 20), (1, 2, 3, 4)])
def test_sparse_arrays_of_bdpy(tmp_path, shape, background):
    dense = np.where(np.random.default_rng(2).random(shape) < 0.3, 2.5, background).astype(np.float32)
    np.testing.assert_array_equal(
        read_features(write_bdpy_sparse(tmp_path / "s.mat", dense, "feat", background)).values, dense
    )
    empty = np.full(shape, background, np.float32)
    np.testing.assert_array_equal(
        read_features(write_bdpy_sparse(tmp_path / "e.mat", empty, "feat", background)).values, empty
    )


def test_a_sparse_array_with_an_index_outside(tmp_path):
    import h5py

    path = write_bdpy_sparse(tmp_path / "s.mat", np.eye(3, dtype=np.float32))
    with h5py.File(path, "r+") as file:
        file[file["feat/index"][0, 0]][0, 0] = 9
    with pytest.raises(DataError, match="index outside"):
        read_features(path)


TREES = {
    "Features": ("{layer}/{label}.mat", {}),
    "DecodedFeatures": ("{layer}/S1/VC/{label}.mat", {}),
    "with folds": ("{layer}/S1/VC/f2/decoded_features/{label}.mat", {"fold": "f2"}),
    "older": ("{layer}/S1/VC/decoded_features/{label}.mat", {}),
    "figshare": ("decoded/caffenet/{layer}/S1/VC/decoded-caffenet-{layer}-S1-VC-{label}.mat", {}),
}


@pytest.mark.parametrize("kind", TREES)
def test_trees_of_bdpy(tmp_path, kind):
    pattern, chosen = TREES[kind]
    labels = ("Img0001", "Img0010", "Img0002", "n01443537_22563.JPEG")
    for layer, sign in (("relu6", 1), ("fc6", -1), ("relu7", 9)):
        for label, code in zip(labels, CODES, strict=False):
            for other in ("S1", "S2") if "S1" in pattern and kind != "figshare" else ("S1",):
                path = tmp_path / pattern.format(layer=layer, label=label).replace("S1", other)
                write_bdpy(path, sign * code[None] + (other == "S2"))
    (tmp_path / "statistics.pkl").write_bytes(b"never read")
    if "S1" in pattern and kind != "figshare":
        with pytest.raises(UsageError, match=r"folders S1, S2, expected one subject\. Name it with --subject"):
            open_rows(tmp_path, (5,), "fc6")
        chosen = {**chosen, "subject": "S1"}
    found = open_rows(tmp_path, (5,), "fc6", selection=Selection(**chosen))
    assert list(found.names) == ["Img0001", "Img0002", "Img0010", "n01443537_22563.JPEG"]
    np.testing.assert_array_equal(values_of(found), CODES[[0, 2, 1, 3]])  # relu6, not fc6, which is before the ReLU
    assert any("relu6" in note for note in found.notes)
    before = open_rows(tmp_path, (5,), "fc6", selection=Selection("fc6", **chosen))
    np.testing.assert_array_equal(values_of(before), -CODES[[0, 2, 1, 3]])


@pytest.mark.parametrize(
    ("selection", "words"),
    [
        (Selection(layer="fc9"), "folders pool5, relu6, expected one named fc9"),
        (Selection(subject="S3"), "folders S1, S2, expected one subject S3"),
        (Selection(subject="S1", roi="V9"), "folders VC, expected one roi V9"),
        (Selection(subject="S1", fold="1"), "--fold 1: .* feature files already"),
    ],
)
def test_what_a_tree_does_not_have(tmp_path, selection, words):
    for layer in ("relu6", "pool5"):
        for subject in ("S1", "S2"):
            write_bdpy(tmp_path / layer / subject / "VC/a.mat", CODES[:1])
    with pytest.raises(UsageError, match=words):
        open_rows(tmp_path, (5,), "fc6", selection=selection)


def test_a_folder_within_a_tree_may_be_given(tmp_path):
    for subject in ("S1", "S2"):
        write_bdpy(tmp_path / "fc6/relu6" / subject / "VC/a.mat", CODES[:1])
    for root, selection in (
        ("fc6", Selection(subject="S2")),
        ("fc6/relu6", Selection(subject="S2")),
        ("fc6/relu6/S2", None),
    ):
        assert len(open_rows(tmp_path / root, (5,), "fc6", selection=selection)) == 1
    with pytest.raises(UsageError, match="no folder"):
        open_rows(tmp_path / "fc6/relu6/S2/VC/a.mat", (5,), "fc6", selection=Selection(subject="S2"))


@pytest.mark.parametrize("shape", [(5,), (1, 5), (5, 1), (1, 5, 1, 1)])
def test_one_code_in_each_file_in_natural_order(tmp_path, shape):
    for number in (0, 2, 10, 9, 100):
        np.save(tmp_path / f"gen{number}_x.npy", (CODES[0] + number).reshape(shape))
        (tmp_path / f"gen{number}_x.png").write_bytes(b"")
    np.savez(tmp_path / "genealogy_gen004.npz", genealogy=np.arange(3))
    found = open_rows(tmp_path, (5,), "fc6")
    assert list(found.names) == [f"gen{number}_x" for number in (0, 2, 9, 10, 100)]
    np.testing.assert_array_equal(values_of(found), CODES[0] + np.array([[0], [2], [9], [10], [100]], np.float32))


@pytest.mark.parametrize("stored", [(2, 3, 5), (1, 2, 3, 5), (30,), (1, 30)])
def test_one_map_in_each_file(tmp_path, stored):
    for number, value in enumerate(MAPS):
        np.save(tmp_path / f"{number}.npy", value.reshape(stored))
    np.testing.assert_array_equal(values_of(open_rows(tmp_path, (2, 3, 5), "pool5")), MAPS)
    np.save(tmp_path / "0.npy", MAPS[0].T)
    with pytest.raises(ShapeError, match="can be read as WHC"):
        open_rows(tmp_path, (2, 3, 5), "pool5")
    np.save(tmp_path / "0.npy", MAPS[0])
    np.save(tmp_path / "2.npy", MAPS[:2])
    errors = [row for _, row in open_rows(tmp_path, (2, 3, 5), "pool5").read(range(4)) if isinstance(row, DataError)]
    assert [str(error).partition(":")[0] for error in errors] == [str(tmp_path / "2.npy")]


def test_blocks_of_codes_of_an_experiment(tmp_path):
    for block, start in ((0, 0), (1, 4), (10, 8)):
        ids = [f"gen{block:03d}_{number:06d}" for number in range(start, start + 4)]
        write_block(tmp_path / f"block{block:03d}_thread000_code.mat", CODES[start : start + 4], ids)
    scipy.io.savemat(tmp_path / "space_opts.mat", {"opts": np.arange(4)})
    found = open_rows(tmp_path, (5,), "fc6")
    np.testing.assert_array_equal(values_of(found), CODES)
    assert list(found.names)[3:5] == ["gen000_000003", "gen001_000004"] and len(set(found.names)) == 12
    assert [number for number, _ in found.read([3, 5, 11])] == [3, 5, 11]


def test_one_file_with_a_variable_for_each_layer(tmp_path):
    layers = {"conv1_1": MAPS[0], "fc6": -CODES[:1], "relu6": CODES[:1], "fc7": CODES[1:2]}
    scipy.io.savemat(tmp_path / "f.mat", layers)
    found = open_rows(tmp_path / "f.mat", (5,), "fc6")
    np.testing.assert_array_equal(values_of(found), CODES[:1])
    assert found.notes == (f"{tmp_path / 'f.mat'}: reads the array relu6",)
    np.testing.assert_array_equal(values_of(open_rows(tmp_path / "f.mat", (5,), "fc7")), CODES[1:2])
    np.testing.assert_array_equal(values_of(open_rows(tmp_path / "f.mat", (5,), "fc7", key="fc6")), -CODES[:1])
    with pytest.raises(DataError, match="4 arrays"):
        open_rows(tmp_path / "f.mat", (5,), "fc8")


@pytest.mark.parametrize("kind", [">f4", ">f8", "<f2", "f8", ">i4"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_number_types_and_orders_of_npy(tmp_path, monkeypatch, kind, order):
    values = np.round(CODES * 4).astype(kind)
    np.save(tmp_path / "f.npy", np.asarray(values, order=order))
    monkeypatch.setattr("deepsim.runtime.features.rows.BLOCK_BYTES", 3 * values[0].nbytes)
    found = open_rows(tmp_path / "f.npy", (5,))
    np.testing.assert_array_equal(values_of(found), values.astype(np.float32))
    for numbers in ([0], [11], [2, 3, 9], range(1, 8)):
        read = dict(found.read(numbers))
        assert list(read) == list(numbers)
        np.testing.assert_array_equal(list(read.values()), values[list(numbers)])


@pytest.mark.parametrize("suffix", ["npy", "npz", "mat"])
def test_every_byte_is_read_once(tmp_path, monkeypatch, suffix):
    """Also where rows are columns: then a block of columns is read, and kept."""
    values = np.random.default_rng(3).standard_normal((64, 200)).astype(np.float32)
    if suffix == "npy":
        np.save(tmp_path / "f.npy", np.asfortranarray(values))
    elif suffix == "npz":
        np.savez(tmp_path / "f.npz", features=values)
    else:
        scipy.io.savemat(tmp_path / "f.mat", {"features": values})
    monkeypatch.setattr("deepsim.runtime.features.rows.BLOCK_BYTES", 16 * 200 * 4)
    found, counts, preadv = open_rows(tmp_path / f"f.{suffix}", (200,)), [], os.preadv

    def counted(descriptor, buffers, offset):
        counts.append(preadv(descriptor, buffers, offset))
        return counts[-1]

    monkeypatch.setattr(os, "preadv", counted)
    np.testing.assert_array_equal(values_of(found), values)
    assert sum(counts) == values.nbytes and max(counts) <= 16 * 200 * 4


def test_mixed_formats_and_empty_folders(tmp_path):
    with pytest.raises(DataError, match="no features in it"):
        open_rows(tmp_path, (5,))
    np.save(tmp_path / "a.npy", CODES[0])
    (tmp_path / "b.csv").write_text("1,2,3,4,5\n")
    with pytest.raises(DataError, match=r"1 \.npy and 1 \.csv files, expected one format"):
        open_rows(tmp_path, (5,))


def test_versions_tell_changed_files(tmp_path):
    for number in range(3):
        np.save(tmp_path / f"{number}.npy", CODES[number])
    found = open_rows(tmp_path, (5,))
    before = [found.version(number) for number in range(3)]
    np.save(tmp_path / "1.npy", CODES[3])
    os.utime(tmp_path / "1.npy", ns=(1, 1))
    assert [found.version(number) == old for number, old in enumerate(before)] == [True, False, True]


@pytest.mark.parametrize("order", ["C", "F"])
def test_compressed_archives_are_read_as_a_stream(tmp_path, monkeypatch, order):
    values = np.random.default_rng(4).random((300, 40)).astype(np.float32)
    np.savez_compressed(tmp_path / "f.npz", codes=np.asarray(values, order=order), names=[f"n{n}" for n in range(300)])
    found, read, passed = read_features(tmp_path / "f.npz"), zipfile.ZipExtFile.read, []

    def counted(self, size=-1):
        data = read(self, size)
        passed.append(len(data))
        return data

    monkeypatch.setattr(zipfile.ZipExtFile, "read", counted)
    for start in range(0, 300, 30):
        np.testing.assert_array_equal(found.part(0, start, start + 30), values[start : start + 30])
    assert order == "F" or sum(passed) <= values.nbytes + 200  # rows in order: decompressed once
    np.testing.assert_array_equal(found.part(0, 7, 9), values[7:9])  # and again from the begin
    np.testing.assert_array_equal(found.part(1, 7, 9), values[:, 7:9])
    np.testing.assert_array_equal(values_of(open_rows(tmp_path / "f.npz", (40,))), values)


def test_files_that_claim_far_more_than_they_hold(tmp_path):
    import h5py

    with h5py.File(tmp_path / "rows.h5", "w") as file:
        file.create_dataset("features", (1 << 40, 5), np.float32, chunks=(64, 5))
    with pytest.raises(DataError, match="claims 1,099,511,627,776 features"):
        open_rows(tmp_path / "rows.h5", (5,))
    with h5py.File(tmp_path / "names.h5", "w") as file:
        file["features"] = CODES
        file.create_dataset("index", (1 << 40,), np.int64, chunks=(64,))
    with pytest.raises(DataError, match="index claims 8,796,093,022,208 bytes"):
        open_rows(tmp_path / "names.h5", (5,))
    np.savez_compressed(tmp_path / "f.npz", features=CODES, index=np.zeros(4 << 20, np.int64))
    with pytest.raises(DataError, match=r"index\.npy claims 33,554,560 bytes"):
        open_rows(tmp_path / "f.npz", (5,))
    scipy.io.savemat(tmp_path / "f.mat", {"codes": CODES}, do_compression=True)
    assert len(open_rows(tmp_path / "f.mat", (5,))) == 12
