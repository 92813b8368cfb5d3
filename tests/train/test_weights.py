"""Weights on disk: what is read is what was written, nothing is run, and what cannot be read is one line."""

import os
import pickle

import pytest

torch = pytest.importorskip("torch")

import safetensors  # noqa: E402

from deepsim.runtime.errors import CheckpointError  # noqa: E402
from deepsim.train.weights import read_weights, write_weights  # noqa: E402

TENSORS = {"b.weight": torch.arange(12.0).view(3, 4).t(), "a.bias": torch.tensor([1.5, -2.0])}


def same(found):
    return set(found) == set(TENSORS) and all(torch.equal(found[name], value) for name, value in TENSORS.items())


def test_a_round_trip_whatever_the_strides(tmp_path):
    path = tmp_path / "w.safetensors"
    write_weights(path, {name: torch.nn.Parameter(value) for name, value in TENSORS.items()})
    assert same(read_weights(path))
    with safetensors.safe_open(path, "pt") as file:
        assert list(file.keys()) == ["a.bias", "b.weight"]


def test_the_order_of_the_names_changes_no_byte(tmp_path):
    for name, tensors in (("x", TENSORS), ("y", dict(reversed(TENSORS.items())))):
        write_weights(tmp_path / f"{name}.safetensors", tensors)
    assert (tmp_path / "x.safetensors").read_bytes() == (tmp_path / "y.safetensors").read_bytes()


@pytest.mark.parametrize("suffix", [".pt", ".pth"])
@pytest.mark.parametrize("wrap", [lambda tensors: tensors, lambda tensors: {"epoch": 3, "state_dict": tensors}])
def test_pytorchs_files_with_the_state_dict_itself_or_around_it(tmp_path, suffix, wrap):
    path = tmp_path / f"w{suffix}"
    torch.save(wrap(TENSORS), path)
    assert same(read_weights(path))


def test_a_name_that_is_no_utf_8(tmp_path):
    path = tmp_path / os.fsdecode(b"w\xff.safetensors")
    write_weights(path, TENSORS)
    assert same(read_weights(path))


class Deed:
    """Runs something when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("run-by-the-file",)


def test_no_code_of_a_file_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.pt", "b.pth"):
        (tmp_path / name).write_bytes(pickle.dumps({"w": Deed()}, 2))
        with pytest.raises(CheckpointError, match=rf"{name}: not readable as weights"):
            read_weights(tmp_path / name)
    torch.save({"w": Deed()}, tmp_path / "c.pt")
    with pytest.raises(CheckpointError, match=r"c\.pt: not readable as weights"):
        read_weights(tmp_path / "c.pt")
    assert not (tmp_path / "run-by-the-file").exists()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("gone.pt", None, "no such file, expected weights"),
        ("w.npz", b"PK", r"\.npz, expected \.safetensors, \.pt or \.pth"),
        ("w", b"", r"no suffix, expected \.safetensors"),
        ("w.safetensors", b"", "not readable as weights"),
        ("w.safetensors", b"\xff" * 64, "not readable as weights"),
        ("w.pt", b"not a zip", "not readable as weights"),
    ],
)
def test_what_is_no_weights_file_is_one_line(tmp_path, name, content, words):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=words) as caught:
        read_weights(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [[torch.ones(2)], {"w": 3}, torch.ones(2), {"outer": {"w": torch.ones(2)}}])
def test_what_holds_no_state_dict_is_named(tmp_path, content):
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match="not a state dict, expected names mapped to tensors"):
        read_weights(tmp_path / "w.pt")


def test_a_cut_file_is_refused(tmp_path):
    path = tmp_path / "w.safetensors"
    write_weights(path, TENSORS)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"w\.safetensors: not readable as weights"):
        read_weights(path)
