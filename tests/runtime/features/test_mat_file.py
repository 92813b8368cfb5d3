"""MATLAB's files: versions 4 to 7.3, sparse matrices, names, and what is refused."""

from pathlib import Path

import numpy as np
import pytest

from deepsim.runtime.errors import DataError, ShapeError, UsageError
from deepsim.runtime.features import check_writable, fit_rows, read_features

VALUES = np.random.default_rng(0).standard_normal((3, 2, 4, 5)).astype(np.float32)
NAMES = ("a.jpg", "ü b.png", "c")


def test_mat_file_as_matlab_users_write_it(tmp_path):
    io_module = pytest.importorskip("scipy.io")
    io_module.savemat(tmp_path / "codes.mat", {"codes": VALUES[:, 0, 0].astype(np.float64).T})
    found = read_features(tmp_path / "codes.mat")
    assert found.values.shape == (5, 3) and found.values.dtype == np.float64
    with pytest.raises(ShapeError, match="--axes CN"):
        fit_rows(found.values, (5,), "codes.mat")


def test_mat_73_has_matlabs_axes(tmp_path):
    h5py = pytest.importorskip("h5py")
    pytest.importorskip("scipy")
    with h5py.File(tmp_path / "f.mat", "w", userblock_size=512) as file:
        file["codes"] = VALUES[:, 0, 0].T  # MATLAB stores (3, 5) by columns
    text = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM"
    data = bytearray((tmp_path / "f.mat").read_bytes())
    data[:128] = text
    (tmp_path / "f.mat").write_bytes(data)
    np.testing.assert_array_equal(read_features(tmp_path / "f.mat").values, VALUES[:, 0, 0])


def test_features_too_large_for_the_format_are_refused_before_the_work(tmp_path):
    pytest.importorskip("scipy")
    for name in ("f.h5", "f.npz", "f.npy", "f.csv"):
        if name != "f.h5" or pytest.importorskip("h5py"):
            check_writable(tmp_path / name, (26_000, 256, 13, 13))
    with pytest.raises(UsageError, match=r"4,499,456,000 bytes.*\.h5, \.npy or \.npz"):
        check_writable(tmp_path / "f.mat", (26_000, 256, 13, 13))
    check_writable(tmp_path / "f.mat", (1000, 256, 13, 13))


def test_sparse_matrices(tmp_path):
    sparse, io_module = pytest.importorskip("scipy.sparse"), pytest.importorskip("scipy.io")
    codes = np.where(np.random.default_rng(0).random((4, 6)) < 0.4, 1.5, 0).astype(np.float64)
    for compressed in (False, True):
        io_module.savemat(
            tmp_path / "f.mat", {"codes": sparse.csc_matrix(codes), "subject": "S1"}, do_compression=compressed
        )
        found = read_features(tmp_path / "f.mat")
        np.testing.assert_array_equal(found.values, codes)
        np.testing.assert_array_equal(found.part(0, 1, 3), codes[1:3])
        np.testing.assert_array_equal(found.part(1, 2, 5), codes[:, 2:5])
    io_module.savemat(tmp_path / "f.mat", {"codes": sparse.csc_matrix((3, 4))})  # all 0
    np.testing.assert_array_equal(read_features(tmp_path / "f.mat").values, np.zeros((3, 4)))


def write_73(path, fill):
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w", userblock_size=512) as file:
        fill(file)
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")


@pytest.mark.parametrize("codes", [[[0, 1.5, 0], [2.5, 0, 0]], [[0, 0, 0], [0, 0, 0]]])
def test_sparse_matrices_of_version_73(tmp_path, codes):
    sparse = pytest.importorskip("scipy.sparse")
    stored = sparse.csc_matrix(np.array(codes))

    def fill(file):
        group = file.create_group("codes")
        group.attrs["MATLAB_sparse"], group.attrs["MATLAB_class"] = np.uint64(2), np.bytes_("double")
        group["jc"] = stored.indptr.astype(np.uint64)
        if stored.nnz:
            group["data"], group["ir"] = stored.data, stored.indices.astype(np.uint64)

    write_73(tmp_path / "f.mat", fill)
    np.testing.assert_array_equal(read_features(tmp_path / "f.mat").values, codes)


def test_sparse_matrices_whose_indices_lie_outside(tmp_path):
    pytest.importorskip("scipy.sparse")

    def fill(file):
        group = file.create_group("codes")
        group.attrs["MATLAB_sparse"] = np.uint64(2)
        group["jc"], group["data"], group["ir"] = np.array([0, 1, 2]), np.ones(2), np.array([0, 1 << 40])

    write_73(tmp_path / "f.mat", fill)
    with pytest.raises(DataError, match="unreadable"):
        read_features(tmp_path / "f.mat")


@pytest.mark.parametrize("ends", [[0, 489, 0], [0, 2, 1], [1, 1, 2]])
def test_sparse_matrices_whose_columns_do_not_follow_each_other(tmp_path, ends):
    """SciPy crashes where the last end is 0 and another is not."""
    pytest.importorskip("scipy.sparse")

    def fill(file):
        group = file.create_group("codes")
        group.attrs["MATLAB_sparse"] = np.uint64(3)
        group["jc"], group["data"], group["ir"] = np.array(ends), np.ones(2), np.array([0, 1])

    write_73(tmp_path / "f.mat", fill)
    with pytest.raises(DataError, match="do not follow each other"):
        read_features(tmp_path / "f.mat").part(0, 0, 3)


def test_names_and_texts_of_version_73(tmp_path):
    h5py = pytest.importorskip("h5py")

    def fill(file):
        texts = [
            file.create_dataset(f"#refs#/{i}", data=np.array([[ord(c)] for c in name], np.uint16))
            for i, name in enumerate(NAMES)
        ]
        file.create_dataset("names", (1, 3), data=[[text.ref for text in texts]], dtype=h5py.ref_dtype)
        file["names"].attrs["MATLAB_class"] = np.bytes_("cell")
        file["subject"] = np.array([[83], [49]], np.uint16)
        file["subject"].attrs["MATLAB_class"] = np.bytes_("char")
        file["codes"] = VALUES[:, 0, 0].T

    write_73(tmp_path / "f.mat", fill)
    found = read_features(tmp_path / "f.mat")
    assert found.names == NAMES
    np.testing.assert_array_equal(found.values, VALUES[:, 0, 0])
    with pytest.raises(DataError, match="no array 'elsewhere', it holds codes, subject"):
        read_features(tmp_path / "f.mat", "elsewhere")


@pytest.mark.parametrize("options", [{}, {"do_compression": True}, {"format": "4"}])
@pytest.mark.parametrize("kind", ["f8", "f4", "u1", "i8", ">f8"])
def test_numbers_that_scipy_writes(tmp_path, kind, options):
    io_module = pytest.importorskip("scipy.io")
    values = np.arange(12).reshape(3, 4).astype(kind)
    if options.get("format") == "4" and kind == "i8":
        pytest.skip("version 4 has no such numbers")
    io_module.savemat(tmp_path / "f.mat", {"codes": values}, **options)
    found = read_features(tmp_path / "f.mat")
    np.testing.assert_array_equal(found.values, values)
    if "format" not in options:
        assert found.dtype == values.dtype.newbyteorder("<")


def test_other_variables_do_not_need_a_key(tmp_path):
    io_module = pytest.importorskip("scipy.io")
    others = {"subject": "S1", "labels": np.array(["a", "b"], object), "info": {"day": 1}}
    io_module.savemat(tmp_path / "f.mat", {"codes": VALUES[:, 0, 0], "names": np.array(NAMES, object), **others})
    assert read_features(tmp_path / "f.mat").names == NAMES
    with pytest.raises(DataError, match="char, no numbers"):
        read_features(tmp_path / "f.mat", "subject")
    io_module.savemat(tmp_path / "f.mat", {"codes": VALUES[:, 0, 0] * 1j})
    with pytest.raises(DataError, match="complex"):
        read_features(tmp_path / "f.mat")


def test_a_sparse_logical_matrix_of_matlab(tmp_path):
    io_module = pytest.importorskip("scipy.io")
    example = Path(io_module.__file__).parent / "matlab/tests/data/logical_sparse.mat"
    if not example.exists():
        pytest.skip("this SciPy has no test data")
    (wanted,) = (value for name, value in io_module.loadmat(example).items() if not name.startswith("__"))
    np.testing.assert_array_equal(read_features(example).values, wanted.toarray())


def test_files_that_begin_with_zeros(tmp_path):
    pytest.importorskip("scipy.io")
    for size in (100, 600):
        (tmp_path / "f.mat").write_bytes(bytes(size))
        with pytest.raises(DataError, match="unreadable"):
            read_features(tmp_path / "f.mat")


def test_empty_names_of_version_73(tmp_path):
    h5py = pytest.importorskip("h5py")

    def fill(file):
        text = file.create_dataset("#refs#/0", data=np.array([0, 0], np.uint64))
        text.attrs["MATLAB_empty"] = np.uint8(1)
        file.create_dataset("names", (1, 1), data=[[text.ref]], dtype=h5py.ref_dtype)
        file["nothing"] = np.array([0, 0], np.uint64)
        file["nothing"].attrs["MATLAB_empty"] = np.uint8(1)
        file["chosen"] = np.ones((4, 1), np.uint8)
        file["chosen"].attrs["MATLAB_class"] = np.bytes_("logical")

    write_73(tmp_path / "f.mat", fill)
    found = read_features(tmp_path / "f.mat")
    assert found.names is None or found.names == ("",)
    np.testing.assert_array_equal(found.values, np.ones((1, 4)))


def test_texts_that_claim_more_rows_than_characters(tmp_path):
    io_module = pytest.importorskip("scipy.io")
    io_module.savemat(tmp_path / "f.mat", {"names": np.array(["abc", "xyz"]), "codes": np.ones((2, 4))})
    assert read_features(tmp_path / "f.mat").names == ("abc", "xyz")
    extents = np.array([2, 3], "<i4").tobytes()
    data = (tmp_path / "f.mat").read_bytes()
    assert data.count(extents) == 1
    (tmp_path / "f.mat").write_bytes(data.replace(extents, np.array([1 << 30, 3], "<i4").tobytes()))
    with pytest.raises(DataError, match="6 characters in 1,073,741,824 rows"):
        read_features(tmp_path / "f.mat")


def test_texts_of_a_cell_that_end_before_their_characters(tmp_path):
    io_module = pytest.importorskip("scipy.io")
    names = np.array(["abc", "xyz"], object)
    io_module.savemat(tmp_path / "f.mat", {"names": names, "codes": np.ones((2, 4))})
    assert read_features(tmp_path / "f.mat").names == ("abc", "xyz")
    data = bytearray((tmp_path / "f.mat").read_bytes())
    matrix = np.array([14], "<u4").tobytes()  # the type of a cell's entry
    place = data.index(matrix, data.index(b"names"))
    data[place + 4 : place + 8] = np.array([40], "<u4").tobytes()  # flags, extents and name, and no more
    (tmp_path / "f.mat").write_bytes(data)
    with pytest.raises(DataError, match="an element is missing"):
        read_features(tmp_path / "f.mat")
