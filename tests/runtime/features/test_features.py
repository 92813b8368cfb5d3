import io
import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepsim.runtime.errors import DataError, DeepsimError, DtypeError, ShapeError, UsageError
from deepsim.runtime.features import (
    SUFFIXES,
    Labels,
    Rows,
    fit_rows,
    layout_of,
    output_files,
    read_features,
    write_features,
)

VALUES = np.random.default_rng(0).standard_normal((3, 2, 4, 5)).astype(np.float32)
NAMES = ("a.jpg", "ü b.png", "c")
LABELS = Labels(NAMES, (0, 2, 7))
PACKAGES = {".h5": "h5py", ".hdf5": "h5py", ".mat": "scipy"}


@pytest.fixture(params=SUFFIXES)
def path(request, tmp_path):
    if request.param in PACKAGES:
        pytest.importorskip(PACKAGES[request.param])
    return tmp_path / f"features{request.param}"


def test_what_is_written_is_read(path):
    write_features(path, VALUES, LABELS)
    found = read_features(path)
    np.testing.assert_array_equal(fit_rows(found.values, (2, 4, 5), "f"), VALUES)  # exact, also through text
    assert (found.names, found.index) == (NAMES, (0, 2, 7))
    assert found.values.dtype == np.float32
    assert sorted(path.parent.iterdir()) == sorted(output_files(path))


def test_without_names_and_one_row(path):
    write_features(path, VALUES[:1, 0, 0])
    found = read_features(path)
    np.testing.assert_array_equal(found.values, VALUES[:1, 0, 0])
    assert found.names is None


def test_damaged_files_give_typed_errors(path):
    write_features(path, VALUES, LABELS)
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
    with pytest.raises(ShapeError, match=r"read as C.*--axes C"):
        layout_of(read_features(tmp_path / "flat.npy").shape, (20,), "flat.npy")
    np.save(tmp_path / "number.npy", np.float32(1))
    with pytest.raises(ShapeError, match="a single number"):
        read_features(tmp_path / "number.npy")
    (tmp_path / "words.csv").write_text("unit 1,unit 2\n1,2\n")
    with pytest.raises(DataError, match="unreadable"):
        read_features(tmp_path / "words.csv")


def test_rows_are_read_when_they_are_asked_for(path):
    write_features(path, VALUES, LABELS)
    found = read_features(path)
    if path.suffix != ".csv":
        np.testing.assert_array_equal(found.part(0, 1, 3), VALUES[1:3])
        np.testing.assert_array_equal(found.part(2, 1, 2), VALUES[:, :, 1:2])
    if path.suffix in (".npy", ".h5"):
        path.write_bytes(path.read_bytes()[:-8] if path.suffix == ".npy" else b"")
        with pytest.raises(DataError, match="unreadable"):
            found.part(0, 2, 3)


def test_fortran_order_and_old_headers(tmp_path):
    np.save(tmp_path / "f.npy", np.asfortranarray(VALUES))
    np.testing.assert_array_equal(read_features(tmp_path / "f.npy").part(0, 1, 2), VALUES[1:2])
    np.savez_compressed(tmp_path / "f.npz", codes=VALUES)
    np.testing.assert_array_equal(read_features(tmp_path / "f.npz").values, VALUES)


@pytest.mark.parametrize("order", ["C", "F"])
def test_only_what_is_asked_for_is_read(tmp_path, monkeypatch, order):
    np.save(tmp_path / "f.npy", np.asarray(VALUES, order=order))
    found, counts, preadv = read_features(tmp_path / "f.npy"), [], os.preadv

    def counted(descriptor, buffers, offset):
        counts.append(preadv(descriptor, buffers, offset))
        return counts[-1]

    monkeypatch.setattr(os, "preadv", counted)
    for axis in (0, 1, 3):
        for start in range(VALUES.shape[axis]):
            part = VALUES[(slice(None),) * axis + (slice(start, start + 1),)]
            np.testing.assert_array_equal(found.part(axis, start, start + 1), part)
            assert sum(counts) == part.nbytes
            counts.clear()


def test_rows_are_written_block_by_block(path, monkeypatch):
    monkeypatch.setattr("deepsim.runtime.features.records.BLOCK_BYTES", 2 * VALUES[:1].nbytes)
    met = []

    def blocks():
        for block in (VALUES[:2], VALUES[2:]):
            met.append(len(block))
            yield np.ascontiguousarray(block)

    write_features(path, Rows(VALUES.shape, blocks), LABELS)
    assert met == [2, 1]
    np.testing.assert_array_equal(fit_rows(read_features(path).values, (2, 4, 5), "f"), VALUES)


@pytest.mark.parametrize("kind", ["csr", "csc"])
def test_sparse_matrices_of_scipy(tmp_path, kind):
    sparse = pytest.importorskip("scipy.sparse")
    codes = np.where(np.random.default_rng(0).random((4, 6)) < 0.4, 1.5, 0).astype(np.float32)
    sparse.save_npz(tmp_path / "f.npz", sparse.csr_matrix(codes).asformat(kind))
    found = read_features(tmp_path / "f.npz")
    np.testing.assert_array_equal(found.values, codes)
    np.testing.assert_array_equal(found.part(0, 1, 3), codes[1:3])
    sparse.save_npz(tmp_path / "f.npz", sparse.coo_matrix(codes))
    with pytest.raises(DataError):
        read_features(tmp_path / "f.npz")


STRANGE = ("caf\udce9.jpg", "nul\0.png", "写真 📷.png", 'line\nbreak, "quoted".jpg', "\ud800")


def test_names_that_are_not_utf_8_and_other_strange_ones(path):
    write_features(path, np.zeros((5, 3), np.float32), Labels(STRANGE))
    shown = (r"caf\xe9.jpg", r"nul\x00.png", "写真 📷.png", STRANGE[3], r"\ud800")
    assert read_features(path).names == shown
    for name in read_features(path).names:
        name.encode()


def test_a_damaged_file_of_names(tmp_path):
    write_features(tmp_path / "f.npy", VALUES, LABELS)
    (tmp_path / "f.npy.names.csv").write_text("name\na\n")
    with pytest.raises(DataError, match=r"names\.csv: expected lines"):
        read_features(tmp_path / "f.npy")


HOLD = "import h5py, sys; file = h5py.File(sys.argv[1], 'r+'); print(flush=True); sys.stdin.read()"


def test_hdf5_is_read_without_a_lock(tmp_path):
    pytest.importorskip("h5py")
    write_features(tmp_path / "f.h5", VALUES, LABELS)
    command = [sys.executable, "-c", HOLD, str(tmp_path / "f.h5")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:  # holds HDF5's lock
        other.stdout.readline()
        np.testing.assert_array_equal(read_features(tmp_path / "f.h5").values, VALUES)


@pytest.mark.parametrize("suffix", ["npy", "csv"])
def test_features_never_have_the_names_of_others(tmp_path, monkeypatch, suffix):
    path = tmp_path / f"f.{suffix}"
    write_features(path, VALUES, LABELS)

    def fail(*arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(DeepsimError):
        patch.setattr(f"deepsim.runtime.features.{suffix}_file.write", fail)
        write_features(path, VALUES[:2], Labels(("x", "y"), (0, 1)))
    assert read_features(path).names == NAMES  # the old ones of the old features
    with monkeypatch.context() as patch, pytest.raises(DeepsimError):
        patch.setattr("deepsim.runtime.features.names_file.write", fail)
        write_features(path, VALUES[:2], Labels(("x", "y"), (0, 1)))
    assert read_features(path).names == NAMES and len(read_features(path).values) == 3
    old = path.read_bytes()
    write_features(path, VALUES[::-1], Labels(("x", "y", "z"), (0, 1, 2)))
    path.write_bytes(old)  # as if the process had been killed between the two renames
    with pytest.raises(DataError, match="names of other features than"):
        read_features(path)
    write_features(path, VALUES)
    assert read_features(path).names is None


def test_names_with_every_line_break(tmp_path):
    names = ("a\rb.jpg", "c\nd", "e\r\nf", "\u2028", '"', "")
    write_features(tmp_path / "f.npy", np.zeros((6, 2), np.float32), Labels(names, tuple(range(6))))
    assert read_features(tmp_path / "f.npy").names == names


@pytest.mark.parametrize("content", ["index,name\n" + "9" * 5000 + ",a\n", "index,name\n0," + "x" * 200_000])
def test_files_of_names_that_are_absurd(tmp_path, content):
    write_features(tmp_path / "f.npy", VALUES)
    (tmp_path / "f.npy.names.csv").write_text(content)
    with pytest.raises(DataError, match=r"names\.csv"):
        read_features(tmp_path / "f.npy")


@pytest.mark.parametrize("shape", ["(5, 96, }", "(-5, 4)"])
def test_headers_that_are_no_shapes(tmp_path, shape):
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (117 - len(header)) + b"\n"
    (tmp_path / "f.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + b"\0" * 64)
    with pytest.raises(DataError, match="unreadable"):
        read_features(tmp_path / "f.npy")


def test_a_dataset_that_holds_nothing(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["features"] = h5py.Empty("f4")
    with pytest.raises(DataError, match="holds nothing"):
        read_features(tmp_path / "f.h5")
