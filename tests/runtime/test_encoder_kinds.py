"""Bundles whose encoder is a table, a graph or missing, and whose geometry is not CaffeNet's."""

import hashlib
import json
import pickle

import numpy as np
import pytest

from deepsim.kernels import reference
from deepsim.runtime.backends import onnxruntime as onnxruntime_backend
from deepsim.runtime.bundle import Bundle
from deepsim.runtime.errors import BundleError, BundleUnsafe, DeviceError, ShapeError, UsageError
from deepsim.runtime.geometry import Framing, Geometry
from deepsim.runtime.images import prepare_batch, save_png
from deepsim.runtime.inverter import Inverter
from deepsim.runtime.networks import GraphEncoder
from tests.bundles import NETWORKS, geometry_of, random_weights, write_files, write_kind
from tests.runtime.conftest import UNDER_TEST

pytest.importorskip("onnx")


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kinds")
    return {kind: write_kind(folder, kind) for kind in ("table", "graph", "none", "table-alone", "graph-alone")}


@pytest.fixture(scope="module", params=UNDER_TEST)
def opened(request, kinds):
    """One bundle of each kind in a backend."""
    if request.param in ("onnxruntime", "torch"):
        pytest.importorskip(request.param)
    device = "auto" if request.param == "cuda" else "cpu"
    return {kind: Inverter(path, request.param, device, 3) for kind, path in kinds.items()}


def photos_of(count=4, size=(90, 131), seed=0):
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 6, 6, 3), dtype=np.uint8)
    return coarse.repeat(22, axis=1).repeat(22, axis=2)[:, : size[0], : size[1]]


def test_a_table_and_a_graph_give_what_the_reference_does(opened):
    encoder, generator = NETWORKS["small"]
    weights, generator_weights = random_weights("small")
    photos = photos_of()
    pixels = prepare_batch(photos, encoder.framing)
    wanted = reference.apply_layers(encoder.layers, encoder.pixels.to_network(pixels), weights)
    limit = {"rtol": 2e-3, "atol": 2e-3} if opened["table"].backend == "cuda" else {"rtol": 1e-4, "atol": 1e-4}
    for kind in ("table", "graph", "table-alone", "graph-alone"):
        np.testing.assert_allclose(opened[kind].encode(photos), wanted, **limit)
    network = reference.apply_layers(generator.layers, wanted.astype(np.float32), generator_weights)
    whole = generator.pixels.to_pixels(network)
    assert whole.std() > 10
    for inverter in (opened[kind] for kind in ("table", "graph", "none")):
        full = inverter.decode(wanted.astype(np.float32), full=True)
        assert full.shape == (4, 80, 80, 3) and np.abs(full.astype(int) - whole).max() <= 2
        crop = inverter.decode(wanted.astype(np.float32))
        assert crop.shape == (4, 64, 64, 3)
        np.testing.assert_array_equal(crop, full[:, 1:65, 1:65])  # the offset is the manifest's, not the centre


def test_sizes_are_the_bundles(opened):
    for kind, inverter in opened.items():
        full = 64 if kind.endswith("alone") else 80
        assert (inverter.image_size, inverter.full_image_size, inverter.feature_shape) == (64, full, (4, 8, 8))
        assert inverter.layer == "conv1"
        assert inverter.geometry.framing == Framing("shorter", 72, 64, "bicubic")


@pytest.mark.parametrize("kind", ["table", "graph"])
def test_the_loop_is_reconstruct_again_and_again(opened, kind):
    inverter, photos = opened[kind], photos_of(5)
    strips = inverter.reencode(photos, iterations=3, keep=(1, 3))
    assert strips.shape == (5, 2, 64, 64, 3)
    once = inverter.reconstruct(photos)
    np.testing.assert_array_equal(strips[:, 0], once)
    np.testing.assert_array_equal(strips[:, 1], inverter.reconstruct(inverter.reconstruct(once)))
    frames = inverter.interpolate(photos[0], photos[1], steps=3)
    np.testing.assert_array_equal(frames[0], once[0])


def test_photographs_are_streamed_through_a_graph(opened, tmp_path):
    for index, photo in enumerate(photos_of(5)):
        save_png(photo, tmp_path / f"{index}.png")
    batches = list(opened["graph"].stream(sorted(tmp_path.iterdir()), batch=2, features=True))
    assert [len(batch) for batch in batches] == [2, 2, 1]
    assert batches[0].features.shape == (2, 4, 8, 8) and batches[0].shape == (2, 64, 64, 3)


def test_repr_says_what_runs_a_graph(opened):
    inverter = opened["graph"]
    assert (inverter.encoder_backend, inverter.encoder_device) == ("onnxruntime", "cpu")
    told = "" if inverter.backend == "onnxruntime" else " run by onnxruntime on cpu"
    assert f"encoder='tests:small'{told}, layer='conv1', backend='{inverter.backend}'" in repr(inverter)
    assert "encoder='small', layer" in repr(opened["table"])


def test_without_an_encoder_codes_are_decoded_and_interpolated(opened):
    inverter = opened["none"]
    assert inverter.encoder_backend is None and "encoder=None" in repr(inverter)
    codes = np.abs(np.random.default_rng(1).standard_normal((2, 4, 8, 8), np.float32))
    frames = inverter.interpolate(codes[0], codes[1], steps=4)
    np.testing.assert_array_equal(frames[[0, 3]], inverter.decode(codes))


@pytest.mark.parametrize(
    "call",
    [
        lambda inverter, photos: inverter.encode(photos),
        lambda inverter, photos: inverter.reconstruct(photos),
        lambda inverter, photos: inverter.reencode(photos),
        lambda inverter, photos: inverter.interpolate(photos[0], photos[1]),
        lambda inverter, photos: inverter.stream(photos),
    ],
    ids=["encode", "reconstruct", "reencode", "interpolate", "stream"],
)
def test_what_has_to_encode_says_that_there_is_no_encoder(opened, call):
    with pytest.raises(UsageError, match=r"none.deepsim: has no encoder, so it decodes features only.$"):
        call(opened["none"], photos_of(2))


@pytest.mark.parametrize("kind", ["table-alone", "graph-alone"])
@pytest.mark.parametrize(
    "call",
    [
        lambda inverter, photos: inverter.decode(np.zeros((1, 4, 8, 8), np.float32)),
        lambda inverter, photos: inverter.decode(np.zeros((0, 4, 8, 8), np.float32), full=True, raw=True),
        lambda inverter, photos: inverter.reconstruct(photos),
        lambda inverter, photos: inverter.reencode(photos),
        lambda inverter, photos: inverter.interpolate(photos[0], photos[1]),
        lambda inverter, photos: inverter.stream(photos, features=True),
    ],
    ids=["decode", "raw", "reconstruct", "reencode", "interpolate", "stream"],
)
def test_what_has_to_decode_says_that_there_is_no_generator(opened, call, kind):
    with pytest.raises(UsageError, match=rf"{kind}.deepsim: has no generator, so it encodes photographs only.$"):
        call(opened[kind], photos_of(2))


def test_repr_of_an_encoder_alone_says_what_runs_it(opened):
    backend = opened["table"].backend
    assert f"encoder='small', layer='conv1', backend='{backend}'" in repr(opened["table-alone"])
    assert opened["graph-alone"].encoder_backend == "onnxruntime"


def test_a_graph_alone_without_onnx_runtime_says_so(kinds, monkeypatch):
    monkeypatch.setattr(onnxruntime_backend, "reason_unavailable", lambda device="auto": "onnxruntime is not here")
    with Inverter(kinds["graph-alone"], "cpu", "cpu") as inverter:
        with pytest.raises(DeviceError, match=r"which ONNX Runtime runs: onnxruntime is not here\.$"):
            inverter.encode(photos_of(1))
        with pytest.raises(UsageError, match="has no generator"):
            inverter.decode(np.zeros((1, 4, 8, 8), np.float32))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"encoder": None}, "neither an encoder nor a generator"),
        ({"geometry": Geometry(NETWORKS["small"][0].framing, 1)}, "do not fit together"),
    ],
)
def test_a_bundle_without_a_generator_that_makes_no_sense_is_refused(tmp_path, changes, told):
    with pytest.raises((BundleError, ValueError), match=told):
        Bundle.open(write_kind(tmp_path, "table-alone", **changes))


def test_the_layer_of_an_encoder_alone_is_its_last(tmp_path):
    path = write_kind(tmp_path, "table-alone")
    text = (path / "manifest.json").read_text(encoding="utf-8").replace('"layer": "conv1"', '"layer": "conv2"')
    record = json.loads(text)
    del record["zz_checksum"]
    body = json.dumps(record, indent=2, sort_keys=True)
    record["zz_checksum"] = hashlib.sha256(body.encode()).hexdigest()
    (path / "manifest.json").write_text(json.dumps(record, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    with pytest.raises(BundleError, match="layer 'conv2', its network gives 'conv1'"):
        Bundle.open(path)


def test_a_graph_without_onnx_runtime_decodes_and_says_why_it_does_not_encode(kinds, monkeypatch):
    monkeypatch.setattr(onnxruntime_backend, "reason_unavailable", lambda device="auto": "onnxruntime is not here")
    with Inverter(kinds["graph"], "cpu", "cpu") as inverter:
        assert inverter.decode(np.ones((1, 4, 8, 8), np.float32)).shape == (1, 64, 64, 3)
        for _ in range(2):
            with pytest.raises(DeviceError, match=r"its encoder tests:small is a graph, .*: onnxruntime is not here"):
                inverter.encode(photos_of(1))


def test_a_graph_of_another_shape_is_refused_when_it_is_opened(kinds, tmp_path):
    pytest.importorskip("onnxruntime")
    files = {name: (kinds["graph"] / name).read_bytes() for name in ("generator.onnx", "weights.safetensors")}
    files["encoder.onnx"] = files["generator.onnx"]
    manifest = Bundle.open(kinds["graph"]).manifest
    path = write_files(tmp_path / "b.deepsim", "small", files, encoder=manifest.encoder)
    with pytest.raises(BundleError, match=r"^encoder.onnx: has .* expected"):
        Inverter(path, "cpu")


def test_a_graph_whose_features_the_generator_does_not_take_is_unsafe(tmp_path):
    encoder = NETWORKS["small"][0]
    record = GraphEncoder("tests:small", "conv1", encoder.framing, encoder.pixels, (4, 8, 9))
    with pytest.raises(BundleUnsafe, match="do not fit together, expected 64x64 pixels in and out"):
        Bundle.open(write_files(tmp_path / "b.deepsim", "small", {}, encoder=record))


def test_photographs_of_another_geometry_are_no_batch_of_images(opened):
    with pytest.raises(ShapeError):
        opened["table"].encode(np.zeros((2, 64, 64), np.uint8))
    assert opened["table"].encode(np.zeros((1, 227, 227, 3), np.uint8)).shape == (1, 4, 8, 8)  # resized


def test_another_process_opens_a_graph_too(kinds):
    pytest.importorskip("onnxruntime")
    again = pickle.loads(pickle.dumps(Inverter(kinds["graph"], "cpu", "cpu", 2)))  # noqa: S301  # our own
    assert repr(again) == repr(Inverter(kinds["graph"], "cpu", "cpu", 2))


def test_manifests_of_every_kind_are_read_as_they_were_written(kinds):
    for kind, path in kinds.items():
        manifest = Bundle.open(path).manifest
        of, _, alone = kind.partition("-")
        geometry = Geometry(geometry_of("small").framing, 0) if alone else geometry_of("small")
        assert (manifest.encoder_kind, manifest.schema, manifest.geometry) == (of, 2, geometry)
        assert (manifest.generator is None) == bool(alone)
        assert manifest.to_bytes() == (path / "manifest.json").read_bytes()
