import codecs
import io
import os
import re
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
    check_writable,
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


def test_fit_rows_and_its_hints():
    flat = VALUES.reshape(3, 40)
    np.testing.assert_array_equal(fit_rows(flat, (2, 4, 5), "f"), VALUES)
    assert np.shares_memory(fit_rows(VALUES, (2, 4, 5), "f"), VALUES)
    for other, order in ((flat.T, "(CHW)N"), (VALUES.T, "WHCN"), (np.moveaxis(VALUES, 0, -1), "CHWN")):
        with pytest.raises(ShapeError, match=re.escape(f"--axes {order}")):
            fit_rows(other, (2, 4, 5), "f")
        np.testing.assert_array_equal(fit_rows(other, (2, 4, 5), "f", order), VALUES)
    with pytest.raises(ShapeError, match="layer of this bundle"):
        fit_rows(flat[:, :39], (2, 4, 5), "f")


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


@pytest.mark.parametrize(
    ("axes", "turned"),
    [
        ("NCHW", lambda f: f),
        ("NHWC", lambda f: f.transpose(0, 2, 3, 1)),
        ("HWCN", lambda f: f.transpose(2, 3, 1, 0)),
        ("WHCN", lambda f: f.T),
        ("whcn", lambda f: f.T),
        ("CHWN", lambda f: f.transpose(1, 2, 3, 0)),
        ("N(CHW)", lambda f: f.reshape(len(f), -1)),
        ("N(CWH)", lambda f: f.transpose(0, 1, 3, 2).reshape(len(f), -1)),
        ("(HWC)N", lambda f: f.transpose(2, 3, 1, 0).reshape(-1, len(f))),
        ("C(HW)N", lambda f: f.transpose(1, 2, 3, 0).reshape(2, 9, -1)),
    ],
)
def test_any_order_of_axes_that_is_named(axes, turned):
    square = np.random.default_rng(1).standard_normal((5, 2, 3, 3)).astype(np.float32)
    np.testing.assert_array_equal(fit_rows(turned(square), (2, 3, 3), "f", axes), square)


def test_what_could_be_read_in_two_ways_is_asked_for():
    square = np.zeros((3, 3, 2, 5), np.float32)  # MatConvNet's, or an NCHW array as MATLAB sees it
    with pytest.raises(ShapeError, match="can be read as HWCN or WHCN"):
        fit_rows(square, (2, 3, 3), "f")
    for both in (np.zeros((4, 4)), np.zeros((18, 18))):
        with pytest.raises(ShapeError, match="can be read as"):
            fit_rows(both, (4,) if len(both) == 4 else (2, 3, 3), "f")
    assert fit_rows(np.zeros((4, 4)), (4,), "f", "NC").shape == (4, 4)


def test_trailing_axes_that_matlab_drops():
    values = np.arange(6, dtype=np.float32).reshape(1, 2, 3, 1)  # one photograph; one column
    for axes, seen in (("NCHW", values[..., 0]), ("HWCN", values.transpose(2, 3, 1, 0)[..., 0]), ("CHW", values[0])):
        np.testing.assert_array_equal(fit_rows(seen, (2, 3, 1), "f", axes), values)
    np.testing.assert_array_equal(fit_rows(values[0, 0, :, 0], (3,), "f", "C"), values[:1, 0, :, 0])


@pytest.mark.parametrize("axes", ["NCH", "NCHWW", "ABCD", "N(CH)", "(NC)HW", "NCHW ", "", "N((CHW))", "CN"])
def test_an_order_that_is_none(axes):
    with pytest.raises(UsageError, match="expected each of NCHW once"):
        fit_rows(VALUES, (2, 4, 5), "f", axes)


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


def test_features_too_large_for_the_format_are_refused_before_the_work(tmp_path):
    pytest.importorskip("scipy")
    for name in ("f.h5", "f.npz", "f.npy", "f.csv"):
        if name != "f.h5" or pytest.importorskip("h5py"):
            check_writable(tmp_path / name, (26_000, 256, 13, 13))
    with pytest.raises(UsageError, match=r"4,499,456,000 bytes.*\.h5, \.npy or \.npz"):
        check_writable(tmp_path / "f.mat", (26_000, 256, 13, 13))
    check_writable(tmp_path / "f.mat", (1000, 256, 13, 13))


STRANGE = ("caf\udce9.jpg", "nul\0.png", "写真 📷.png", 'line\nbreak, "quoted".jpg', "\ud800")


def test_names_that_are_not_utf_8_and_other_strange_ones(path):
    write_features(path, np.zeros((5, 3), np.float32), Labels(STRANGE))
    shown = (r"caf\xe9.jpg", r"nul\x00.png", "写真 📷.png", STRANGE[3], r"\ud800")
    assert read_features(path).names == shown
    for name in read_features(path).names:
        name.encode()


TABLE = np.array([[1.5, -2.25, 3e-5], [4, 0.125, 6]], np.float32)


@pytest.mark.parametrize(
    "text",
    [
        "1.5,-2.25,3e-5\r\n4,.125,6\r\n",
        "1,5;-2,25;3e-5\n4;0,125;6\n",  # Excel where a comma is the decimal mark
        "1.5;-2.25;3e-5\n4;0.125;6",
        "1.5\t-2.25\t3e-5\n4\t0.125\t6\n\n\n",
        '"1.5","-2.25","3e-5"\n"4","0.125","6"\n',  # R
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_tables_as_excel_and_others_write_them(tmp_path, text, encoding):
    (tmp_path / "f.csv").write_bytes(text.encode(encoding))
    np.testing.assert_array_equal(read_features(tmp_path / "f.csv").values, TABLE)


def test_a_first_column_of_names(tmp_path):
    (tmp_path / "f.csv").write_bytes(codecs.BOM_UTF8 + b'a.jpg;1,5;-2,25;3e-5\n"b;2.jpg";4;0,125;6\n')
    found = read_features(tmp_path / "f.csv")
    np.testing.assert_array_equal(found.values, TABLE)
    assert found.names == ("a.jpg", "b;2.jpg")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"unit 1,unit 2\n1,2\n", "'unit 1', a header"),
        (b",0,1\n0,1.5,2.5\n", "row numbers"),
        (b"0,1,2\n5,6,7\n", "counts 0, 1, 2"),
        (b"1.5;2,5\n3;4\n", "one decimal mark"),
        ("prénom,1\n".encode("latin-1"), "UTF-8"),
        (b"1,2\n3\n", "unreadable"),
        (b"1,2\n3,x\n", "unreadable"),
    ],
)
def test_tables_that_are_not_guessed_at(tmp_path, data, words):
    (tmp_path / "f.csv").write_bytes(data)
    with pytest.raises(DataError, match=words):
        read_features(tmp_path / "f.csv")


def test_a_damaged_file_of_names(tmp_path):
    write_features(tmp_path / "f.npy", VALUES, LABELS)
    (tmp_path / "f.npy.names.csv").write_text("name\na\n")
    with pytest.raises(DataError, match=r"names\.csv: expected lines"):
        read_features(tmp_path / "f.npy")


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


HOLD = "import h5py, sys; file = h5py.File(sys.argv[1], 'r+'); print(flush=True); sys.stdin.read()"


def test_hdf5_is_read_without_a_lock(tmp_path):
    pytest.importorskip("h5py")
    write_features(tmp_path / "f.h5", VALUES, LABELS)
    command = [sys.executable, "-c", HOLD, str(tmp_path / "f.h5")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:  # holds HDF5's lock
        other.stdout.readline()
        np.testing.assert_array_equal(read_features(tmp_path / "f.h5").values, VALUES)
