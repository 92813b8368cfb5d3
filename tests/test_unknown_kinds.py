"""Every reader of layers refuses a kind or an activation that it does not know; none takes it for the identity."""

import ctypes
import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from deepsim.kernels import reference
from deepsim.kernels.activations import ACTIVATIONS, Activation, UnknownLayerError
from deepsim.kernels.layers import KINDS, Layer, macs, shapes
from deepsim.runtime.errors import BundleError
from deepsim.runtime.generators import GeneratorSpec
from deepsim.runtime.geometry import CAFFE_FRAMING, Geometry
from deepsim.runtime.manifest import Manifest, _canonical
from deepsim.runtime.native_library import Options, call
from deepsim.runtime.networks import CAFFENET
from tests.bundles import write_bundle

ROOT = Path(__file__).resolve().parents[1]
KNOWN = {
    "conv": Layer("made", "conv", 3, 3, 3, 1, 1, activation="lrelu"),
    "pool": Layer("made", "pool", kernel=3),
}


def invent(layer, **fields):
    """Return the layer with fields that Layer itself would refuse."""
    made = replace(layer)
    for name, value in fields.items():
        object.__setattr__(made, name, value)
    return made


@pytest.fixture(params=["bypassed", "in the table"])
def table(request, monkeypatch):
    """Invent behind Layer's check, or in the tables: then Layer agrees, and the readers alone can refuse."""
    if request.param == "in the table":
        monkeypatch.setitem(ACTIVATIONS, "swish", Activation("swish"))
        monkeypatch.setitem(KINDS, "attention", True)
        monkeypatch.setitem(KINDS, "upsample", False)
    return request.param


INVENTED = {
    "activation": invent(KNOWN["conv"], activation="swish"),
    "activation of a pool": invent(KNOWN["pool"], activation="swish"),
    "kind with weights": invent(KNOWN["conv"], kind="attention"),
    "kind without weights": invent(KNOWN["pool"], kind="upsample"),
}
WEIGHTS = {"made.weight": np.ones((3, 3, 3, 3), np.float32), "made.bias": np.ones(3, np.float32)}
X = np.ones((2, 3, 8, 8), np.float32)


def numpy_reference(layer):
    reference.apply_layer(layer, X, WEIGHTS)


def pytorch(layer):
    torch = pytest.importorskip("torch")
    from deepsim.kernels.torch_layers import apply_layer

    apply_layer(layer, torch.from_numpy(X), *(torch.from_numpy(value) for value in WEIGHTS.values()))


def frozen_table(layer):
    torch = pytest.importorskip("torch")
    from deepsim.train.frozen import FrozenTable
    from deepsim.train.optimize.place import Place

    weights = {name: torch.from_numpy(value) for name, value in WEIGHTS.items()}
    made = FrozenTable("made", (layer,), (3, 8, 8), weights, Place().put).run(torch.from_numpy(X))
    made.backward(lambda tap, features, incoming: incoming, torch.ones_like(made.output))


def onnx(layer):
    pytest.importorskip("onnx")
    from deepsim.export.onnx_from_layers import generator_onnx

    last = Layer("last", "conv", 3, 3, 3, 1, 1)
    weights = {**WEIGHTS, **{name.replace("made", "last"): value for name, value in WEIGHTS.items()}}
    generator_onnx(GeneratorSpec("made", (3, 230, 230), (layer, last)), Geometry(CAFFE_FRAMING, 1), weights)


def ranges(layer):
    torch = pytest.importorskip("torch")
    from deepsim.export.ranges import scan_ranges

    weights = {name: torch.from_numpy(value) for name, value in WEIGHTS.items()}
    scan_ranges((layer,), torch.from_numpy(X), weights)


def exported_in_half(layer):
    torch = pytest.importorskip("torch")
    from deepsim.export.torch_networks import apply_layers, tensors

    apply_layers((layer,), torch.from_numpy(X), tensors(WEIGHTS), half=True)


def random_weights(layer):
    pytest.importorskip("torch")
    from deepsim.export.random_weights import random_generator_weights

    random_generator_weights(GeneratorSpec("made", (3, 8, 8), (layer,)), X)


def random_encoder(layer):
    pytest.importorskip("torch")
    from deepsim.train.encoders import random_encoder

    random_encoder(replace(CAFFENET, layers=(layer,)), layer.name, 0)


def initialised_generator(layer):
    torch = pytest.importorskip("torch")
    from deepsim.train.networks import Generator, initialise_generator

    generator = Generator(GeneratorSpec("made", (3, 8, 8), (layer,)))
    initialise_generator(generator, torch.Generator())
    generator(torch.from_numpy(X))


def torch_backend(layer):
    torch = pytest.importorskip("torch")
    from deepsim.runtime.backends.torch import TorchBackend, _Network

    backend = object.__new__(TorchBackend)
    backend._torch, backend.device = torch, "cpu"
    weights = {f"generator.{name}": torch.from_numpy(value) for name, value in WEIGHTS.items()}
    with pytest.raises(BundleError, match=r"torch: .*(swish|attention|upsample)"), backend._guarded():
        _Network(GeneratorSpec("made", (3, 8, 8), (layer,)), weights, "generator", "cpu")(torch.from_numpy(X))
    raise UnknownLayerError("as expected")


READERS = [
    numpy_reference, pytorch, frozen_table, onnx, ranges, exported_in_half,
    random_weights, random_encoder, initialised_generator, torch_backend,
]  # fmt: skip


@pytest.mark.parametrize("name", INVENTED)
@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.__name__)
def test_every_reader_refuses(table, reader, name):
    with pytest.raises(UnknownLayerError):
        reader(INVENTED[name])


@pytest.mark.parametrize("reader", READERS[:7], ids=lambda reader: reader.__name__)
def test_every_reader_takes_what_is_in_the_tables(reader):
    for layer in KNOWN.values():
        reader(layer)


def test_the_gpu_benchmark_refuses_an_activation(table):
    torch = pytest.importorskip("torch")
    from deepsim.benchmarks.gpu.checks import _levels

    source = SimpleNamespace(generator_table=SimpleNamespace(layers=(INVENTED["activation"],), pixels=CAFFENET.pixels))
    with pytest.raises(UnknownLayerError):
        _levels(source, torch.ones(1, 3, 240, 240))
    source.generator_table.layers = (replace(KNOWN["conv"], activation="tanh255"),)
    assert _levels(source, torch.ones(1, 3, 240, 240))[0, 0, 0].tolist() == [255, 255, 255]
    assert _levels(source, torch.zeros(1, 3, 240, 240))[0, 0, 0].tolist() == [123, 117, 104]


@pytest.mark.parametrize("name", ["kind with weights", "kind without weights"])
def test_shapes_and_counts_refuse_a_kind(table, name):
    with pytest.raises(UnknownLayerError):
        shapes((INVENTED[name],), (3, 8, 8))
    with pytest.raises(UnknownLayerError):
        macs((INVENTED[name],), (3, 8, 8))
    if table == "bypassed":
        with pytest.raises(UnknownLayerError):
            _ = INVENTED[name].weight_shape


@pytest.mark.parametrize("fields", [{"kind": "attention"}, {"activation": "swish"}], ids=str)
def test_a_manifest_with_it_is_refused_by_python_and_by_the_library(tmp_path, fields):
    pytest.importorskip("onnx")
    path = write_bundle(tmp_path / "b.deepsim", "tiny")
    record = json.loads((path / "manifest.json").read_bytes())
    record.pop("zz_checksum")
    record["generator"]["layers"][0].update(fields)
    data = _canonical(record)
    (path / "manifest.json").write_bytes(data)
    (word,) = fields.values()
    with pytest.raises(BundleError, match=word):
        Manifest.from_bytes(data)
    options, handle = Options(size=ctypes.sizeof(Options), max_batch=1), ctypes.c_void_p()
    with pytest.raises(BundleError, match=rf"not a valid manifest \(\w+ '{word}'\)"):
        call("deepsim_open", str(path).encode(), ctypes.byref(options), ctypes.byref(handle))


def test_switches_over_our_enumerations_have_no_default():
    """With -Werror=switch a new kind does not compile until each switch names it; a default would swallow it."""
    foreign = {"runtime/native/src/cuda/driver.cpp"}  # the driver's results are plain integers
    sources = [*(ROOT / "runtime/native").rglob("*.[ch]*"), *(ROOT / "kernels").rglob("*.[ch]*")]
    assert len(sources) > 60
    found = {str(path.relative_to(ROOT)) for path in sources if re.search(r"^\s*default:", path.read_text(), re.M)}
    assert found == foreign
    assert re.search(r"target_compile_options\(\w+ PRIVATE -Werror=switch\)", (ROOT / "CMakeLists.txt").read_text())
