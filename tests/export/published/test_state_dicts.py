"""State dicts are read from every format that PyTorch has written, and nothing that a file asks for is run."""

import io
import pickle
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import safetensors.torch
import scipy.io
import torch

from deepsim.export.published.ports import port_layouts
from deepsim.export.published.state_dicts import is_state_dict, read_port, read_state_dict
from deepsim.runtime.errors import CheckpointError


def tensors():
    rng = torch.Generator().manual_seed(1)
    return {"a.weight": torch.randn(3, 4, generator=rng), "a.bias": torch.randn(3, generator=rng)}


def legacy(content, path):
    torch.save(content, path, _use_new_zipfile_serialization=False)


WRITERS = {
    "zip": torch.save,
    "legacy": legacy,
    "ordered": lambda content, path: torch.save(OrderedDict(content), path),
    "nested": lambda content, path: torch.save({"epoch": 3, "state_dict": content}, path),
    "parameters": lambda content, path: torch.save(
        {name: torch.nn.Parameter(value) for name, value in content.items()}, path
    ),
    "safetensors": safetensors.torch.save_file,
    "not contiguous": lambda content, path: torch.save(
        {name: value.t().contiguous().t() for name, value in content.items()}, path
    ),
    "double": lambda content, path: torch.save({name: value.double() for name, value in content.items()}, path),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_formats_are_told_by_content(tmp_path, writer):
    path = tmp_path / "weights.any"
    WRITERS[writer](tensors(), path)
    assert is_state_dict(path.read_bytes()[:64])
    found = read_state_dict(path)
    assert list(found.tensors) == ["a.weight", "a.bias"] or writer == "safetensors"
    for name, value in tensors().items():
        assert found.tensors[name].dtype == np.float32 and found.tensors[name].flags.c_contiguous
        np.testing.assert_array_equal(found.tensors[name], value.numpy())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_becomes_float32(tmp_path, dtype):
    half = {name: value.to(dtype) for name, value in tensors().items()}
    torch.save(half, tmp_path / "half.pt")
    found = read_state_dict(tmp_path / "half.pt").tensors
    np.testing.assert_array_equal(found["a.bias"], half["a.bias"].float().numpy())


class Module(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)


def compressed(path):
    """Write what a few kilobytes would unpack to."""
    torch.save({"a": torch.zeros(1 << 20)}, path)
    with zipfile.ZipFile(path) as whole:
        entries = {entry.filename: whole.read(entry) for entry in whole.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, data in entries.items():
            packed.writestr(name, data)


def archive(path, **content):
    with zipfile.ZipFile(path, "w") as file:
        for name, data in content.items():
            file.writestr(name.replace("__", "/").replace("_DOT_", "."), data)


REFUSED = {
    "whole module": (lambda path: torch.save(Module(), path), r"a pickled object \(\S*Module\).*save model.state_dict"),
    "module, legacy": (lambda path: legacy(Module(), path), r"a pickled object \(\S*Module\)"),
    "numpy arrays": (lambda path: torch.save({"a": np.zeros(2)}, path), "numpy arrays, expected tensors"),
    "a program": (lambda path: torch.jit.script(Module().layer).save(str(path)), "a TorchScript program, expected a"),
    "a list": (lambda path: torch.save([torch.zeros(2)], path), "a list, expected names mapped to tensors"),
    "an array": (lambda path: torch.save(torch.zeros(2), path), "a Tensor, expected names mapped to tensors"),
    "empty": (lambda path: torch.save({}, path), "an empty dictionary"),
    "numbers": (lambda path: torch.save({"a": 3}, path), "'a' is a int"),
    "integers": (lambda path: torch.save({"a": torch.zeros(2, dtype=torch.int64)}, path), "a is int64"),
    "complex": (lambda path: torch.save({"a": torch.zeros(2, dtype=torch.complex64)}, path), "a is complex64"),
    "sparse": (lambda path: torch.save({"a": torch.zeros(2, 2).to_sparse()}, path), "a is sparse"),
    "nan": (lambda path: torch.save({"a": torch.tensor([1.0, np.nan])}, path), "a has values that are not finite"),
    "beyond float32": (
        lambda path: torch.save({"a": torch.tensor([1e300], dtype=torch.float64)}, path),
        "not finite in float32",
    ),
    "repeated": (lambda path: torch.save({"a": torch.zeros(1).expand(9, 9)}, path), "a repeats its values"),
    "compressed": (compressed, "data.pkl is compressed"),
    "pickle": (lambda path: path.write_bytes(pickle.dumps({"a": 1})), "a pickle that PyTorch did not write"),
    "npz": (lambda path: np.savez(path.open("wb"), a=np.zeros(2)), r"numpy arrays \(.npz\)"),
    "release": (
        lambda path: archive(path, fc6__generator_DOT_caffemodel=b"x"),
        "holds fc6/generator.caffemodel.*Unpack it",
    ),
    "archive": (lambda path: archive(path, readme_DOT_txt=b"x"), "an archive with readme.txt"),
    "matlab": (
        lambda path: scipy.io.savemat(path, {"a": np.zeros(2)}, appendmat=False),
        "generator.caffemodel: import",
    ),
    "text": (lambda path: path.write_text("hello there, this is no state dict"), "neither PyTorch's nor safetensors"),
    "nothing": (lambda path: path.write_bytes(b""), "neither PyTorch's nor safetensors"),
    "missing": (lambda path: None, "no such file"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_refused_is_named(tmp_path, kind):
    write, message = REFUSED[kind]
    write(tmp_path / "weights.pt")
    with pytest.raises(CheckpointError, match=message) as caught:
        read_state_dict(tmp_path / "weights.pt")
    assert str(caught.value).startswith(f"{tmp_path / 'weights.pt'}: ") and "expected" in str(caught.value)


class Runs:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("save", [torch.save, legacy])
def test_nothing_that_a_file_asks_for_is_run(tmp_path, save):
    save({"a": Runs(str(tmp_path / "made"))}, tmp_path / "weights.pt")
    with pytest.raises(CheckpointError, match=r"a pickled object .*no code of a file is run"):
        read_state_dict(tmp_path / "weights.pt")
    assert not (tmp_path / "made").exists()


def generator(network="norm1 or norm2", port="XDream"):
    """Return a port's names with small tensors of the right ranks."""
    layout = next(each for each in port_layouts() if (each.network, each.port) == (network, port))
    rng = torch.Generator().manual_seed(2)
    found = {}
    for layer in (layer for layer in layout.layers if layer.has_weights):
        shape = (2, 3, *layer.weight_shape[2:]) if layer.kind == "deconv" else (3, 2, *layer.weight_shape[2:])
        found |= dict.fromkeys(layout.spellings[f"{layer.name}.weight"], torch.randn(shape, generator=rng))
        if f"{layer.name}.bias" not in layout.optional:
            found[layout.spellings[f"{layer.name}.bias"][0]] = torch.randn(3, generator=rng)
    return found


def test_biases_that_a_port_leaves_out_are_0(tmp_path):
    torch.save(generator(), tmp_path / "norm1.pt")
    found = read_port(tmp_path / "norm1.pt")
    assert found.weights["deconv4.bias"].tolist() == [0, 0, 0] and found.weights["conv4_1.bias"].tolist() == [0, 0, 0]
    assert found.weights["Rconv6.bias"].all()
    assert found.format == "PyTorch state dict (XDream)"
    assert found.notes == (
        "biases of deconv4, conv4_1, deconv3, conv3_1, deconv2, conv2_1, deconv1, conv1_1: not in the file, taken as 0",
    )


def test_two_names_of_one_tensor(tmp_path):
    aliased = generator(port="release names, bdpy")
    torch.save({**aliased, **both_biases(aliased)}, tmp_path / "equal.pt")
    found = read_port(tmp_path / "equal.pt")
    np.testing.assert_array_equal(found.weights["deconv4.weight"], aliased["deconv.0.weight"].numpy())
    assert found.renaming.names["Rconv7.bias"] == ("Rconv7.bias", "rconv.2.bias")
    for name, value in (("deconv.0.weight", aliased["deconv.0.weight"] + 1e-6), ("deconv.13.weight", torch.zeros(1))):
        torch.save({**aliased, name: value}, tmp_path / "different.pt")
        with pytest.raises(CheckpointError, match=rf"(deconv4|conv1_1).weight and {name} differ"):
            read_port(tmp_path / "different.pt")


def both_biases(aliased):
    return {f"rconv.{2 * place}.bias": aliased[f"Rconv{6 + place}.bias"] for place in range(3)}


def test_a_buffer_beside_the_weights_is_told_and_not_used(tmp_path):
    mean = torch.tensor([104.0, 117.0, 123.0]).view(3, 1, 1).expand(3, 5, 5).clone()
    torch.save({**generator(), "mean_img": mean}, tmp_path / "norm1.pt")
    found = read_port(tmp_path / "norm1.pt")
    assert "mean_img" not in found.weights
    assert (
        found.notes[1] == "mean_img (channel means 104, 117, 123): in the file, not used; the mean is the one of --mean"
    )


def damaged(data, seed, count):
    """Yield files cut at places and with a bit flipped at places, all over the file."""
    rng = np.random.default_rng(seed)
    for place in rng.integers(0, len(data), count):
        yield data[:place]
    for place in rng.integers(0, len(data), count):
        flipped = bytearray(data)
        flipped[place] ^= 1 << int(rng.integers(0, 8))
        yield bytes(flipped)


@pytest.mark.parametrize("writer", ["zip", "legacy", "safetensors"])
def test_damaged_files_are_refused_or_the_same(tmp_path, writer):
    """Where the format has no checksum (older .pt, safetensors), a changed value is a value; a changed name is none."""
    content, path = generator(), tmp_path / "weights.pt"
    WRITERS[writer](content, path)
    expected, whole, refused = read_port(path).weights, path.read_bytes(), 0
    for data in damaged(whole, 3, 100):
        path.write_bytes(data)
        try:
            found = read_port(path).weights
        except CheckpointError as error:
            refused += 1
            assert "\n" not in str(error) and str(path) in str(error)
            continue
        assert list(found) == list(expected) and all(np.isfinite(value).all() for value in found.values())
        if writer == "zip":
            assert all(np.array_equal(found[name], value) for name, value in expected.items())
    assert refused >= 100  # every cut


def test_a_changed_byte_of_a_value_is_found(tmp_path):
    """PyTorch itself reads it without a word."""
    buffer = io.BytesIO()
    torch.save({"a": torch.arange(1000.0)}, buffer)
    data = buffer.getvalue().replace(np.float32(500).tobytes(), np.float32(501).tobytes(), 1)
    assert torch.load(io.BytesIO(data), weights_only=True)["a"][500] == 501
    (tmp_path / "a.pt").write_bytes(data)
    with pytest.raises(CheckpointError, match=r"damaged .*CRC"):
        read_state_dict(tmp_path / "a.pt")


def test_an_archive_without_checksums_is_read(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(tensors(), tmp_path / "a.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    np.testing.assert_array_equal(read_state_dict(tmp_path / "a.pt").tensors["a.bias"], tensors()["a.bias"].numpy())
