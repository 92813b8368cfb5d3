"""Search the readers of published files for crashes: python tests/fuzz/fuzz_published.py TARGET [libFuzzer's options].

Targets: caffemodel, prototxt, hdf5, mean. Only typed errors may leave a reader; what it returns must be finite and fit
its layers. Needs atheris (Linux, Python 3.11 to 3.13).
"""

from __future__ import annotations

import io
import re
import sys
import tempfile
from pathlib import Path

import atheris

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
with atheris.instrument_imports(include=["deepsim.export.published", "google.protobuf.text_format"]):
    from google.protobuf import text_format  # noqa: F401

    import runtime  # noqa: F401  # makes the checkout importable as deepsim
    from deepsim.export.published import caffe_files, caffe_prototxt, mean_image

import h5py  # noqa: E402
import numpy as np  # noqa: E402

from deepsim.runtime.errors import DeepsimError  # noqa: E402
from tests.export.published import caffe_messages as messages  # noqa: E402

DATA = ROOT / "tests/data/caffe"
TEXT = re.sub(r"num_output: (4|8|2|1)\b", "num_output: 1", (DATA / "fc8.prototxt").read_text())
TEXT = TEXT.replace("dim: 1000", "dim: 2").replace("num_output: 64", "num_output: 16").replace("dim: 4", "dim: 1", 1)


def tiny():
    """Return the arrays and layers of a generator from two numbers, some kilobytes in all."""
    from deepsim.export.published.layouts import GENERATORS, widened

    shapes = {}
    for entry in GENERATORS[0].layers:
        if entry.has_weights:
            first = {"defc7": (16, 2), "defc5": (16, 16), "defc6": (16, 16)}.get(entry.name, (1, 1))
            last = (1, 3) if entry.name == "deconv0" else first
            shapes[f"{entry.name}.weight"] = (*last, *entry.weight_shape[2:])
    layers = widened(GENERATORS[0], shapes, "tiny")
    return messages.random_weights(layers), layers


WEIGHTS, LAYERS = tiny()
MODEL = messages.chain(LAYERS, WEIGHTS, "feat")


def hdf5():
    file = io.BytesIO()
    with h5py.File(file, "w", libver="earliest") as opened:
        for name, values in WEIGHTS.items():
            layer, kind = name.split(".")
            opened.require_group(f"data/{layer}").create_dataset(str(int(kind == "bias")), data=values)
    return file.getvalue()


def seeds(target):
    """Return whole files to begin with."""
    if target == "prototxt":
        return [TEXT.encode(), *(path.read_bytes() for path in sorted(DATA.glob("*.prototxt")))]
    if target == "hdf5":
        return [hdf5()]
    if target == "mean":
        return [
            (DATA / "mean.binaryproto").read_bytes(),
            npy(np.full((3, 2, 2), 100.0)),
            npy(np.array([104.0, 117, 123])),
        ]
    bare = messages.named_only(WEIGHTS)
    old = messages.v0_layer("fc6", "innerproduct", "a", "b", [messages.legacy_blob(np.ones(4, "f4"), (1, 1, 2, 2))])
    return [MODEL, bare, old, MODEL[: len(MODEL) // 2]]


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def check(networks):
    for network in networks:
        for name, values in network.weights.items():
            assert values.dtype == np.float32 and np.isfinite(values).all(), name
        for entry in network.layers:
            if entry.has_weights:
                assert network.weights[f"{entry.name}.weight"].shape == entry.weight_shape


def try_model(data):
    check(caffe_files.read_bytes(data, "fuzzed").networks(layer="codes"))


def try_prototxt(data):
    caffe_prototxt.read_prototxt(data, "fuzzed")
    check(caffe_files.read_bytes(MODEL, "tiny", (data, "fuzzed")).networks(layer="codes"))


def try_mean(data):
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:
        file.write(data)
        file.flush()
        found = mean_image.read_mean_image(Path(file.name))
    assert all(0 <= value <= 255 for value in found.mean)


TARGETS = {"caffemodel": try_model, "prototxt": try_prototxt, "hdf5": try_model, "mean": try_mean}


def main():
    target = sys.argv.pop(1)
    run = TARGETS[target]

    def one(data):
        try:
            run(data)
        except DeepsimError as error:
            assert str(error) and "\n" not in str(error)

    with tempfile.TemporaryDirectory() as folder:
        for index, data in enumerate(seeds(target)):
            one(data)
            (Path(folder) / str(index)).write_bytes(data)
        limits = ["-rss_limit_mb=1500", "-malloc_limit_mb=64", "-timeout=20", "-max_len=65536"]
        atheris.Setup([sys.argv[0], *limits, *sys.argv[1:], folder], one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
