"""docs/one-image.md names the files of one image in the order in which they first run."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deepsim.runtime import Inverter
from deepsim.runtime.files import sha256
from deepsim.runtime.manifest import FileRecord, Manifest
from deepsim.runtime.networks import GraphEncoder
from tests.bundles import NETWORKS, geometry_of, write_bundle

ROOT = Path(__file__).resolve().parents[1]


def tables(heading):
    """Return the Python files of each table of a section, in order."""
    section = re.split(r"^## ", (ROOT / "docs/one-image.md").read_text(), flags=re.MULTILINE)
    found = next(part for part in section if part.startswith(heading))
    blocks = re.findall(r"(?:^\|.*\n)+", found, re.MULTILINE)
    return [re.findall(r"^\| `([\w/]+\.py)`", block, re.MULTILINE) for block in blocks]


def order(call, among):
    """Return the files of ``among`` in the order in which ``call`` first runs a function of each."""
    met = {}

    def note(frame, event, argument):
        code = frame.f_code
        if event == "call" and not code.co_name.startswith("<"):
            met.setdefault(code.co_filename)

    sys.setprofile(note)
    try:
        result = call()
    finally:
        sys.setprofile(None)
    names = (Path(path).resolve() for path in met)
    ours = [str(path.relative_to(ROOT)) for path in names if path.is_relative_to(ROOT)]
    return result, [name for name in ours if name in among]


@pytest.fixture
def photo(tmp_path):
    Image.fromarray(np.full((300, 400, 3), 99, np.uint8)).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.fixture
def graph(tmp_path):
    """Return a bundle whose encoder is known as a graph alone."""
    path = write_bundle(tmp_path, "tiny-rgb")
    encoder, generator = NETWORKS["tiny-rgb"]
    record = GraphEncoder("made:net", generator.layer, encoder.framing, encoder.pixels, generator.input_shape)
    files = {file: (path / file).read_bytes() for file in ("encoder.onnx", "generator.onnx", "weights.safetensors")}
    records = {name: FileRecord(len(data), sha256(data)) for name, data in files.items()}
    manifest = Manifest("graph", geometry_of("tiny-rgb"), record, generator, records)
    (path / "manifest.json").write_bytes(manifest.to_bytes())
    return path


def test_a_table_encoder(tmp_path, photo):
    bundle = write_bundle(tmp_path, "norm2")
    Inverter(bundle, "cpu")  # what is imported and loaded once per process
    opening, _ = tables("Open the bundle")
    inverter, met = order(lambda: Inverter(bundle, "cpu"), opening)
    assert met == opening
    call, _ = tables("Reconstruct the photograph")
    assert order(lambda: inverter.reconstruct([photo]), call)[1] == call


def test_a_graph_encoder(graph, photo):
    pytest.importorskip("onnxruntime")
    Inverter(graph, "cpu")
    opening, call = tables("With a graph encoder")
    inverter, met = order(lambda: Inverter(graph, "cpu"), ["runtime/native_inverter.py", *opening])
    assert met == ["runtime/native_inverter.py", *opening]
    assert order(lambda: inverter.reconstruct([photo]), call)[1] == call
