"""Manifests that lie: one test per malformation. All carry a correct checksum unless the checksum is the attack."""

import json
import random

import pytest

from deepsim.runtime.bundle import Bundle
from deepsim.runtime.errors import BundleCorrupt, BundleError, BundleUnsafe
from deepsim.runtime.manifest import MAX_BYTES, FileRecord, _canonical
from tests.bundles import write_files

FILES = {"encoder.onnx": b"an encoder", "engines/gpu-fp16/encoder.plan": b"an engine"}
SHA = "0" * 64


@pytest.fixture
def path(tmp_path):
    return write_files(tmp_path / "b.deepsim", "tiny", FILES)


def record_of(path):
    record = json.loads((path / "manifest.json").read_bytes())
    record.pop("zz_checksum")
    return record


def put(path, record):
    (path / "manifest.json").write_bytes(_canonical(record))


@pytest.mark.parametrize(
    "name",
    [
        *("../secret", "a/../../secret", "a/..", "..", ".", "./encoder.onnx", "/etc/passwd", "//etc/passwd"),
        *("a//b", "a/", "", "a\\b", "..\\secret", "C:\\secret", "C:secret", ".hidden", "a/.hidden", "~/secret"),
        *("a\0b", "a\nb", "encoder.onnx\n", " a", "a b", "\u202egnp.exe", "ä", "-rf", "a/b/c/d/e", "x" * 101),
        *("manifest.json", "%2e%2e/secret", "a:b", "a|b"),
    ],
)
def test_names_that_escape_or_mislead(path, name):
    write_files(path, "tiny", {}, files={name: FileRecord(1, SHA)})
    with pytest.raises(BundleUnsafe, match="file name"):
        Bundle.open(path)


@pytest.mark.parametrize("size", [-1, (8 << 30) + 1, 1 << 64, 1.0, True, "1", None, [1]])
def test_sizes(path, size):
    write_files(path, "tiny", {}, files={"encoder.onnx": FileRecord(size, SHA)})
    with pytest.raises(BundleUnsafe, match="size"):
        Bundle.open(path)


@pytest.mark.parametrize("digest", ["", "0" * 63, "0" * 65, "g" * 64, "A" * 64, "0" * 64 + "\n", 0, None])
def test_hashes(path, digest):
    write_files(path, "tiny", {}, files={"encoder.onnx": FileRecord(1, digest)})
    with pytest.raises(BundleUnsafe, match="sha256"):
        Bundle.open(path)


@pytest.mark.parametrize(
    "engine",
    [
        {"path": "engines/other-fp16"},  # not listed, so without a hash
        {"path": "engines/gpu-fp1"},  # only the beginning of a name
        {"path": "../engines"},
        {"path": "/engines"},
        {"path": None},
        {},
        "engines/gpu-fp16",
        7,
    ],
)
def test_engines_without_a_hash(path, engine):
    write_files(path, "tiny", FILES, engines=(engine,))
    with pytest.raises(BundleUnsafe):
        Bundle.open(path)


def test_listed_engine_is_fine(path):
    write_files(path, "tiny", FILES, engines=({"path": "engines/gpu-fp16", "target": "gpu", "precision": "fp16"},))
    assert Bundle.open(path).manifest.engines[0]["target"] == "gpu"


def test_every_byte_flipped(tmp_path):
    path = write_files(tmp_path / "b.deepsim", "tiny-rgb", FILES)
    whole = (path / "manifest.json").read_bytes()
    rng = random.Random(1)
    for index in range(len(whole)):
        damaged = bytearray(whole)
        damaged[index] ^= rng.randrange(1, 256)
        (path / "manifest.json").write_bytes(damaged)
        with pytest.raises(BundleError):
            Bundle.open(path)


def test_truncated_anywhere(path):
    whole = (path / "manifest.json").read_bytes()
    for length in range(0, len(whole), 7):
        (path / "manifest.json").write_bytes(whole[:length])
        with pytest.raises(BundleCorrupt):
            Bundle.open(path)


def test_value_changed_without_the_checksum(path):
    data = (path / "manifest.json").read_bytes()
    (path / "manifest.json").write_bytes(data.replace(b'"size": 10', b'"size": 11'))
    with pytest.raises(BundleCorrupt, match="checksum"):
        Bundle.open(path)


@pytest.mark.parametrize(
    "data",
    [b"", b"not json", b"[]", b"null", b"7", b'"schema"', b"{}", b"\xff\xfe\x00", b'{"schema": 1', b"PK\x03\x04"],
)
def test_not_a_manifest(path, data):
    (path / "manifest.json").write_bytes(data)
    with pytest.raises(BundleCorrupt):
        Bundle.open(path)


def test_huge_manifest(path):
    (path / "manifest.json").write_bytes(b" " * (MAX_BYTES + 1))
    with pytest.raises(BundleUnsafe, match="at most"):
        Bundle.open(path)


@pytest.mark.parametrize("place", ["top", "file"])
def test_duplicate_keys(path, place):
    text = (path / "manifest.json").read_text()
    if place == "top":
        text = text.replace('  "layer":', '  "layer": "fc7",\n  "layer":', 1)
    else:
        text = text.replace('"size": 10', '"size": 3, "size": 10', 1)
    (path / "manifest.json").write_text(text)
    with pytest.raises(BundleUnsafe, match="twice"):
        Bundle.open(path)


@pytest.mark.parametrize("depth", [100, 300, 500, 900, 990, 1100, 100_000])
@pytest.mark.parametrize("brackets", ["[]", "{}"])
def test_deep_nesting(path, depth, brackets):
    opened, closed = ('{"a":', "}") if brackets == "{}" else ("[", "]")
    text = '{"schema": 1, "provenance": ' + opened * depth + "1" + closed * depth + "}"
    (path / "manifest.json").write_text(text)
    with pytest.raises(BundleError):
        Bundle.open(path)


@pytest.mark.parametrize("schema", [0, 3, "1", None, 1.5, [1], True])
def test_wrong_schema(path, schema):
    record = record_of(path)
    record["schema"] = schema
    if schema is True:  # equal to 1 in Python
        record["files"] = 3
    put(path, record)
    with pytest.raises(BundleError):
        Bundle.open(path)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999", "9" * 5000])
def test_numbers_that_json_does_not_have(path, number):
    text = (path / "manifest.json").read_text().replace('"size": 10', f'"size": {number}', 1)
    (path / "manifest.json").write_text(text)
    with pytest.raises(BundleError):
        Bundle.open(path)


@pytest.mark.parametrize(
    "key", ["name", "layer", "geometry", "encoder", "generator", "files", "engines", "verification"]
)
@pytest.mark.parametrize("value", [None, 7, "text", [], {}, [[]], {"a": []}, "missing"])
def test_fields_of_other_types(path, key, value):
    """Whatever stands in a field, opening gives a bundle or a BundleError, never another exception."""
    record = record_of(path)
    if value == "missing":
        del record[key]
    else:
        record[key] = value
    put(path, record)
    try:
        Bundle.open(path)
    except BundleError:
        return
    may_be = key in ("name", "layer", "files", "engines", "verification")  # free text, or empty
    assert may_be or (key == "encoder" and value is None)  # a bundle that decodes only


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("stride", value) for value in (0, -1, 1.5, "4", None, True, 10**30)),
        *(("kernel", value) for value in (0, -3, 1 << 40, 1e9)),
        *(("groups", value) for value in (0, -1, "1")),
        *(("outputs", value) for value in (1 << 40, -8, 8.0, None)),
        *(("padding", value) for value in (1 << 20, -1, -(10**9))),
        *(("kind", value) for value in ("eval", None, 3)),
        *(("activation", value) for value in ("exec", None)),
        *(("name", value) for value in (None, 3)),
        ("unknown", 1),
    ],
)
def test_absurd_layers(path, field, value):
    record = record_of(path)
    record["encoder"]["layers"][0][field] = value
    put(path, record)
    with pytest.raises(BundleError):
        Bundle.open(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record["encoder"].update(layers=[]),
        lambda record: record["generator"].update(layers=[]),
        lambda record: record["encoder"]["layers"].pop(),
        lambda record: record["generator"]["layers"].pop(),
        lambda record: record["encoder"].update(input_shape=[3, 256, 256]),
        lambda record: record["encoder"].update(input_shape=["3", 227, 227]),
        lambda record: record["generator"].update(input_shape=[21]),
        lambda record: record["generator"]["pixels"].update(order="GBR"),
        lambda record: record["generator"]["pixels"].update(mean=[1, 2]),
        lambda record: record["generator"]["pixels"].update(mean=["a", 2, 3]),
        lambda record: record["generator"]["pixels"].update(scale=[0, 1, 1]),
        lambda record: record["geometry"]["photograph"].update(side=226),
        lambda record: record["geometry"]["photograph"].update(size=226),
        lambda record: record["geometry"]["photograph"].update(resize="stretch"),
        lambda record: record["geometry"]["photograph"].update(interpolation="nearest"),
        lambda record: record["geometry"]["photograph"].update(more=1),
        lambda record: record["geometry"]["photograph"].pop("size"),
        lambda record: record["geometry"]["generated"].update(side=228),
        lambda record: record["geometry"]["generated"].update(side=0),
        lambda record: record["geometry"]["generated"].update(side=226.0),
        lambda record: record["geometry"]["generated"].update(side=100, offset=157),
        lambda record: record["generator"]["layers"][0].update(output_padding=1),
        lambda record: record["generator"]["layers"][-1].update(output_padding="1"),
        lambda record: record["generator"]["layers"][-1].update(output_padding=2),
        lambda record: record.update(
            generator=None, geometry={**record["geometry"], "generated": {"side": 5, "offset": 0}}
        ),
        lambda record: record["geometry"]["generated"].update(offset=-1),
        lambda record: record["geometry"]["generated"].update(offset=30),
        lambda record: record["geometry"]["generated"].update(offset=14.0),
        lambda record: record["encoder"].update(kind="module"),
        lambda record: record["encoder"].pop("kind"),
        lambda record: record["encoder"].update(kind="graph"),
        lambda record: record.update(schema=3),
        lambda record: record.update(schema=True),
        lambda record: record.update(schema=1, encoder=None),
    ],
)
def test_networks_that_do_not_fit(path, change):
    record = record_of(path)
    change(record)
    put(path, record)
    with pytest.raises(BundleError):
        Bundle.open(path)
