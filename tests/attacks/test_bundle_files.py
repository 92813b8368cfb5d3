"""Bundles whose files are damaged, swapped, or not files at all: one test per malformation."""

import os
import random
import socket
from contextlib import nullcontext
from pathlib import Path

import pytest

from deepsim.runtime.bundle import Bundle
from deepsim.runtime.errors import BundleCorrupt, BundleError, BundleUnsafe
from deepsim.runtime.files import sha256
from deepsim.runtime.manifest import FileRecord
from tests.bundles import write_files

FILES = {
    "encoder.onnx": b"an encoder" * 40,
    "weights.safetensors": bytes(range(256)) * 4,
    "engines/gpu-fp16/encoder.plan": b"an engine" * 30,
    "README.md": b"",
}


@pytest.fixture
def path(tmp_path):
    return write_files(tmp_path / "b.deepsim", "tiny", FILES)


def test_whole_bundle_reads(path):
    bundle = Bundle.open(path)
    assert {name: bundle.read(name) for name in FILES} == FILES
    assert bundle.path == path and bundle.manifest.name == "tiny"


def test_bundle_behind_a_link_or_relative_path_reads(path, tmp_path, monkeypatch):
    (tmp_path / "link").symlink_to(path)
    assert Bundle.open(tmp_path / "link").read("encoder.onnx") == FILES["encoder.onnx"]
    monkeypatch.chdir(tmp_path)
    assert Bundle.open("b.deepsim").read("encoder.onnx") == FILES["encoder.onnx"]


def test_folder_missing(tmp_path):
    with pytest.raises(BundleError, match="not found"):
        Bundle.open(tmp_path / "nothing.deepsim")


def test_a_file_instead_of_a_folder(path):
    with pytest.raises(BundleError, match="a file, expected a bundle folder"):
        Bundle.open(path / "encoder.onnx")


def test_folder_without_manifest(path):
    (path / "manifest.json").unlink()
    with pytest.raises(BundleError, match=r"no manifest\.json"):
        Bundle.open(path)


def test_missing_file(path):
    (path / "encoder.onnx").unlink()
    with pytest.raises(BundleCorrupt, match="missing"):
        Bundle.open(path).read("encoder.onnx")


def test_missing_folder(path):
    (path / "engines/gpu-fp16/encoder.plan").unlink()
    (path / "engines/gpu-fp16").rmdir()
    with pytest.raises(BundleCorrupt, match="missing"):
        Bundle.open(path).read("engines/gpu-fp16/encoder.plan")


@pytest.mark.parametrize("size", [0, 1, 399, 401])
def test_truncated_or_grown_file(path, size):
    (path / "encoder.onnx").write_bytes((FILES["encoder.onnx"] + b"+")[:size])
    with pytest.raises(BundleCorrupt, match=f" {size} bytes, expected 400"):
        Bundle.open(path).read("encoder.onnx")


@pytest.mark.parametrize("name", [name for name, data in FILES.items() if data])
def test_flipped_bytes(path, name):
    rng = random.Random(name)
    for _ in range(150):
        data = bytearray(FILES[name])
        data[rng.randrange(len(data))] ^= rng.randrange(1, 256)
        (path / name).write_bytes(data)
        with pytest.raises(BundleCorrupt, match="SHA-256"):
            Bundle.open(path).read(name)


def test_files_swapped(path):
    (path / "encoder.onnx").rename(path / "spare")
    (path / "weights.safetensors").rename(path / "encoder.onnx")
    (path / "spare").rename(path / "weights.safetensors")
    for name in ("encoder.onnx", "weights.safetensors"):
        with pytest.raises(BundleCorrupt):
            Bundle.open(path).read(name)


def test_linked_file(path, tmp_path):
    (path / "encoder.onnx").rename(tmp_path / "outside")
    (path / "encoder.onnx").symlink_to(tmp_path / "outside")  # the right bytes, but from outside
    with pytest.raises(BundleUnsafe, match="links"):
        Bundle.open(path).read("encoder.onnx")


def test_linked_folder(path, tmp_path):
    (path / "engines").rename(tmp_path / "outside")
    (path / "engines").symlink_to(tmp_path / "outside")
    with pytest.raises(BundleUnsafe, match="links"):
        Bundle.open(path).read("engines/gpu-fp16/encoder.plan")


def test_linked_manifest(path, tmp_path):
    (path / "manifest.json").rename(tmp_path / "outside")
    (path / "manifest.json").symlink_to(tmp_path / "outside")
    with pytest.raises(BundleUnsafe, match="links"):
        Bundle.open(path)


def test_link_loop(path):
    (path / "encoder.onnx").unlink()
    (path / "encoder.onnx").symlink_to("encoder.onnx")
    with pytest.raises(BundleUnsafe):
        Bundle.open(path).read("encoder.onnx")


@pytest.mark.parametrize("name", ["encoder.onnx", "README.md"])  # README.md: of size 0, as every FIFO claims to be
def test_fifo_does_not_block(path, name):
    (path / name).unlink()
    os.mkfifo(path / name)
    with pytest.raises(BundleUnsafe, match="regular file"):
        Bundle.open(path).read(name)


def test_fifo_as_manifest_does_not_block(path):
    (path / "manifest.json").unlink()
    os.mkfifo(path / "manifest.json")
    with pytest.raises(BundleUnsafe, match="regular file"):
        Bundle.open(path)


def test_socket(path, monkeypatch):
    (path / "encoder.onnx").unlink()
    monkeypatch.chdir(path)  # a socket's address is short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("encoder.onnx")
        with pytest.raises(BundleUnsafe):
            Bundle.open(path).read("encoder.onnx")


def test_folder_in_place_of_a_file(path):
    (path / "encoder.onnx").unlink()
    (path / "encoder.onnx").mkdir()
    with pytest.raises(BundleUnsafe, match="regular file"):
        Bundle.open(path).read("encoder.onnx")


def test_file_in_place_of_a_folder(path):
    (path / "engines/gpu-fp16/encoder.plan").unlink()
    (path / "engines/gpu-fp16").rmdir()
    (path / "engines/gpu-fp16").write_bytes(b"x")
    with pytest.raises(BundleUnsafe):
        Bundle.open(path).read("engines/gpu-fp16/encoder.plan")


def test_unlisted_file(path):
    (path / "engines/gpu-fp16/other.plan").write_bytes(b"planted")
    with pytest.raises(BundleError, match="not in its manifest"):
        Bundle.open(path).read("engines/gpu-fp16/other.plan")


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "a/../../secret", "manifest.json", "", None])
def test_names_that_leave_the_bundle_are_not_read(path, name):
    (path.parent / "secret").write_bytes(b"s")
    with pytest.raises(BundleUnsafe):
        Bundle.open(path).read(name)


def test_size_that_the_file_does_not_have_is_not_read(path, tmp_path):
    """A manifest that claims 8 GB for a small file, and a sparse file of 8 GB for a small claim."""
    claim = {"encoder.onnx": FileRecord(8 << 30, sha256(b""))}
    write_files(path, "tiny", {}, files=claim)
    with pytest.raises(BundleCorrupt, match="400 bytes, expected 8,589,934,592"):
        Bundle.open(path).read("encoder.onnx")
    write_files(path, "tiny", FILES)
    os.truncate(path / "encoder.onnx", 8 << 30)
    with pytest.raises(BundleCorrupt, match="8,589,934,592 bytes, expected 400"):
        Bundle.open(path).read("encoder.onnx")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file(path):
    (path / "encoder.onnx").chmod(0)
    with pytest.raises(BundleError, match="Permission"):
        Bundle.open(path).read("encoder.onnx")


def test_file_replaced_between_open_and_read_is_noticed(path):
    bundle = Bundle.open(path)
    (path / "encoder.onnx").write_bytes(b"X" * 400)
    with pytest.raises(BundleCorrupt):
        bundle.read("encoder.onnx")


def test_reading_leaves_no_descriptor_open(path):
    bundle = Bundle.open(path)
    (path / "README.md").unlink()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for name in FILES:
        with pytest.raises(BundleError) if name == "README.md" else nullcontext():
            bundle.read(name)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
