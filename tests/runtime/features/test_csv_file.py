"""Tables as NumPy, Excel, MATLAB and R write them, and what is refused."""

import codecs

import numpy as np
import pytest

from deepsim.runtime.errors import DataError
from deepsim.runtime.features import read_features

TABLE = np.array([[1.5, -2.25, 3e-5], [4, 0.125, 6]], np.float32)


@pytest.mark.parametrize(
    "text",
    [
        "1.5,-2.25,3e-5\r\n4,.125,6\r\n",
        "1,5;-2,25;3e-5\n4;0,125;6\n",  # Excel where a comma is the decimal mark
        "1.5;-2.25;3e-5\n4;0.125;6",
        "1.5\t-2.25\t3e-5\n4\t0.125\t6\n\n\n",
        " 1.5  -2.25 3e-5\n4 0.125  6\n",  # numpy.savetxt, MATLAB's save -ascii
        "1,5 -2,25 0,00003\n4,0 0,125 6,0\n",
        "1.5,-2.25,3e-5\r4,.125,6\r",
        "sep=;\r\n1,5;-2,25;3e-5\r\n4;0,125;6\r\n",
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
        (b"1|2\n3|4\n", "unreadable"),
        (b'a,"1,2\n', "unreadable"),
        (b'"a;b.jpg",1,2\n', "unreadable"),
        (b"x" * 200_000, "unreadable"),
        (b"1,2\n3\n", "unreadable"),
        (b"1,2\n3,4,5\n", "unreadable"),
        (b"a,1,2\nb,3\n", "different lengths"),
        (b"a,1,2\nb,3,4,5\n", "different lengths"),
        (b"# x y\n1 2\n", "a header"),
        (b"\n \n", "empty"),
        (b"1,2\n3,x\n", "unreadable"),
    ],
)
def test_tables_that_are_not_guessed_at(tmp_path, data, words):
    (tmp_path / "f.csv").write_bytes(data)
    with pytest.raises(DataError, match=words):
        read_features(tmp_path / "f.csv")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("named", [False, True])
def test_tables_larger_than_a_block_are_read_in_pieces(tmp_path, monkeypatch, encoding, named):
    monkeypatch.setattr("deepsim.runtime.features.csv_file._BLOCK", 97)
    monkeypatch.setattr("deepsim.runtime.features.csv_file.BLOCK_BYTES", 200)  # the first blocks stay parsed
    values = np.random.default_rng(0).standard_normal((50, 7)).astype(np.float32)
    names = [f"ü {row}\n.jpg" for row in range(50)]
    cells = [[f'"{name}"'] * named + [f"{value:.9g}" for value in row] for name, row in zip(names, values, strict=True)]
    (tmp_path / "f.csv").write_text("\r\n".join(map(",".join, cells)), encoding, newline="")
    found = read_features(tmp_path / "f.csv")
    assert found.shape == (50, 7) and found.names == (names if named else None)
    for start, stop in ((0, 1), (13, 14), (3, 41), (0, 50)):
        np.testing.assert_array_equal(found.part(0, start, stop), values[start:stop])
    np.testing.assert_array_equal(found.part(1, 2, 5), values[:, 2:5])
    (tmp_path / "f.csv").write_text("1,2,3\n" * 9)
    with pytest.raises(DataError, match="unreadable"):
        found.part(0, 40, 50)
