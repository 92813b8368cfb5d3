import io
import os
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepsim.runtime.errors import DataError, DeepsimError, DtypeError, ShapeError, UsageError
from deepsim.runtime.features import SUFFIXES, fit_rows, read_features, write_features

VALUES = np.random.default_rng(0).standard_normal((3, 2, 4, 5)).astype(np.float32)
NAMES = ("a.jpg", "ü b.png", "c")
PACKAGES = {".h5": "h5py", ".hdf5": "h5py", ".mat": "scipy"}


@pytest.fixture(params=SUFFIXES)
def path(request, tmp_path):
    if request.param in PACKAGES:
        pytest.importorskip(PACKAGES[request.param])
    return tmp_path / f"features{request.param}"


def test_what_is_written_is_read(path):
    write_features(path, VALUES, NAMES)
    found = read_features(path)
    np.testing.assert_array_equal(fit_rows(found.values, (2, 4, 5), "f"), VALUES)  # exact, also through text
    assert found.names == (None if path.suffix in (".npy", ".csv") else NAMES)
    assert found.values.dtype == np.float32
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_without_names_and_one_row(path):
    write_features(path, VALUES[:1, 0, 0])
    found = read_features(path)
    np.testing.assert_array_equal(found.values, VALUES[:1, 0, 0])
    assert found.names is None


def test_damaged_files_give_typed_errors(path):
    write_features(path, VALUES, NAMES)
    whole = path.read_bytes()
    rng = np.random.default_rng(1)
    for length in range(0, min(len(whole), 600), 23):
        path.write_bytes(whole[:length])
        _read_or_typed_error(path)
    for _ in range(100):
        damaged = bytearray(whole)
        for index in rng.integers(0, len(whole), 3):
            damaged[index] = rng.integers(256)
        path.write_bytes(damaged)
        _read_or_typed_error(path)


@settings(max_examples=50, deadline=None)
@given(data=st.binary(max_size=300), suffix=st.sampled_from([".npy", ".npz", ".csv"]))
def test_any_bytes_give_typed_errors(tmp_path_factory, data, suffix):
    path = tmp_path_factory.mktemp("any") / f"f{suffix}"
    path.write_bytes(data)
    _read_or_typed_error(path)


def _read_or_typed_error(path):
    try:
        read_features(path)
    except DeepsimError as error:
        assert path.name in str(error) and "\n" not in str(error)


def test_missing_file_fifo_and_folder(path):
    with pytest.raises(DataError, match="no such file"):
        read_features(path)
    os.mkfifo(path)
    with pytest.raises(DataError, match="not a regular file"):
        read_features(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(DataError, match="not a regular file"):
        read_features(path)


def test_unknown_suffix():
    for name in ("features.txt", "features", "features.pkl"):
        with pytest.raises(UsageError, match=r"\.npy"):
            read_features(name)
        with pytest.raises(UsageError, match=r"\.npy"):
            write_features(name, VALUES)


def test_key_chooses_among_several(tmp_path):
    np.savez(tmp_path / "f.npz", fc6=VALUES[:, 0], fc7=VALUES[:, 1], names=np.array(NAMES))
    np.testing.assert_array_equal(read_features(tmp_path / "f.npz", "fc7").values, VALUES[:, 1])
    with pytest.raises(DataError, match=r"2 arrays \(fc6, fc7\).*--key"):
        read_features(tmp_path / "f.npz")
    with pytest.raises(DataError, match="fc6, fc7"):
        read_features(tmp_path / "f.npz", "fc8")
    write_features(tmp_path / "f.npy", VALUES)
    with pytest.raises(UsageError, match="--key"):
        read_features(tmp_path / "f.npy", "fc6")


def test_the_sole_array_needs_no_key_whatever_its_name(tmp_path):
    np.savez(tmp_path / "f.npz", anything=VALUES)
    np.testing.assert_array_equal(read_features(tmp_path / "f.npz").values, VALUES)


class Boom:
    def __reduce__(self):
        return (print, ("unpickled",))


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_pickles_are_never_loaded(tmp_path, capsys, suffix):
    array = np.array([[Boom(), Boom()]], dtype=object)
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    if suffix == ".npy":
        (tmp_path / "f.npy").write_bytes(buffer.getvalue())
    else:
        with zipfile.ZipFile(tmp_path / "f.npz", "w") as archive:
            archive.writestr("features.npy", buffer.getvalue())
    with pytest.raises(DataError):
        read_features(tmp_path / f"f{suffix}")
    assert "unpickled" not in capsys.readouterr().out


def test_header_that_claims_more_than_the_file_holds(tmp_path):
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776, 4096), }"
    header += b" " * (117 - len(header)) + b"\n"
    (tmp_path / "f.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + b"\0" * 64)
    with pytest.raises(DataError, match="unreadable"):
        read_features(tmp_path / "f.npy")


def test_numbers_only_and_rows_only(tmp_path):
    np.save(tmp_path / "text.npy", np.array([["a", "b"]]))
    with pytest.raises(DtypeError, match="--key"):
        read_features(tmp_path / "text.npy")
    np.save(tmp_path / "flat.npy", np.zeros(20, np.float32))
    with pytest.raises(ShapeError, match="one row per photograph"):
        read_features(tmp_path / "flat.npy")
    (tmp_path / "words.csv").write_text("unit 1,unit 2\n1,2\n")
    with pytest.raises(DataError, match="unreadable"):
        read_features(tmp_path / "words.csv")


def test_fit_rows_and_its_hints():
    flat = VALUES.reshape(3, 40)
    np.testing.assert_array_equal(fit_rows(flat, (2, 4, 5), "f"), VALUES)
    assert fit_rows(VALUES, (2, 4, 5), "f") is VALUES
    for transposed in (flat.T, VALUES.T, np.moveaxis(VALUES, 0, -1)):
        with pytest.raises(ShapeError, match="--transpose"):
            fit_rows(transposed, (2, 4, 5), "f")
    with pytest.raises(ShapeError, match="layer of this bundle"):
        fit_rows(flat[:, :39], (2, 4, 5), "f")


def test_mat_file_as_matlab_users_write_it(tmp_path):
    io_module = pytest.importorskip("scipy.io")
    io_module.savemat(tmp_path / "codes.mat", {"codes": VALUES[:, 0, 0].astype(np.float64).T})
    found = read_features(tmp_path / "codes.mat")
    assert found.values.shape == (5, 3) and found.values.dtype == np.float64
    with pytest.raises(ShapeError, match="--transpose"):
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
