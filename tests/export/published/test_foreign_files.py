"""Files that hold no weights are refused by what they are."""

import gzip
import io
import tarfile

import numpy as np
import pytest
from PIL import Image

from deepsim.export.published.reading import read_published
from deepsim.runtime.errors import CheckpointError


def written(write):
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()


def tar(buffer):
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a"))


FILES = {
    "a NumPy array": written(lambda buffer: np.save(buffer, np.zeros((2, 4096), np.float32))),
    "a picture": written(lambda buffer: Image.new("RGB", (8, 8)).save(buffer, "PNG")),
    "a gzip archive": gzip.compress(b"weights"),
    "a tar archive": written(tar),
    "a pointer of Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n",
    "a web page": b"\n<!DOCTYPE html>\n<html><body>Log in</body></html>",
    "an empty file": b"",
}


@pytest.mark.parametrize("what", FILES)
def test_what_a_file_is(tmp_path, what):
    (tmp_path / "generator.caffemodel").write_bytes(FILES[what])
    with pytest.raises(CheckpointError, match=f"generator.caffemodel: {what}, expected a Caffe model, or a state dict"):
        read_published(tmp_path / "generator.caffemodel")


@pytest.mark.parametrize("content", [b"hello", bytes(3000), b"\x00\x01\x02" * 99, b'{"a": 1}'])
def test_anything_else_is_one_line_too(tmp_path, content):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"x: .*expected") as caught:
        read_published(tmp_path / "x")
    assert "\n" not in str(caught.value)
