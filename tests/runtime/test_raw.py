"""Raw images: what decode rounds, in every backend."""

import numpy as np
import pytest

from deepsim.kernels import reference
from deepsim.runtime import native_library
from deepsim.runtime.bundle import Bundle
from deepsim.runtime.errors import BundleError, DataError
from deepsim.runtime.inverter import Inverter
from deepsim.runtime.pixels import rounded
from tests.bundles import NETWORKS, geometry_of, random_weights, write_files

# Of the largest magnitude of a raw image. fp16 rounds activations and weights to 5e-4, layer after layer.
FP32, FP16 = 2e-6, 4e-3


def features_of(name, count=3):
    """Return features that give images of medium contrast, some of whose levels lie outside of 0-255."""
    shape = NETWORKS[name][1].input_shape
    return np.random.default_rng(71).uniform(0, 4, (count, *shape)).astype(np.float32)


@pytest.mark.parametrize("name", ["tiny", "tiny-rgb", "small", "norm2"])
def test_raw_images_are_grey_levels_in_rgb_with_the_mean(inverter, inverter_of, name):
    inverter = inverter_of(name, inverter.backend)
    features = features_of(name, 1)
    generator = NETWORKS[name][1]
    values = reference.apply_layers(generator.layers, features.astype(np.float64), random_weights(name)[1])
    wanted = generator.pixels.to_levels(values)
    assert wanted.std() > 10
    found = inverter.decode(features, full=True, raw=True)
    assert found.dtype == np.float32 and found.shape == wanted.shape
    error = FP16 if inverter.backend == "cuda" else FP32
    np.testing.assert_allclose(found, wanted, rtol=0, atol=error * np.abs(wanted).max())


@pytest.mark.parametrize("name", ["tiny", "tiny-rgb", "small"])
@pytest.mark.parametrize("full", [False, True])
def test_raw_images_round_to_decoded_ones(inverter, inverter_of, name, full):
    inverter = inverter_of(name, inverter.backend, max_batch=2)
    features = features_of(name)
    raw = inverter.decode(features, full=full, raw=True)
    np.testing.assert_array_equal(rounded(raw), inverter.decode(features, full=full))
    assert full or name == "tiny" or not 0 <= raw.min() <= raw.max() <= 255  # something was clipped


def test_the_scored_part_of_raw_images_is_cut_as_that_of_others(inverter):
    features = features_of("tiny")
    whole = inverter.decode(features, full=True, raw=True)
    np.testing.assert_array_equal(inverter.decode(features, raw=True), whole[:, 14:241, 14:241])


def test_raw_images_of_no_features_and_of_bad_ones(inverter):
    none = inverter.decode(np.empty((0, 20), np.float32), raw=True)
    assert none.shape == (0, 227, 227, 3) and none.dtype == np.float32
    with pytest.raises(DataError, match="NaN"):
        inverter.decode(np.full((2, 20), np.nan, np.float32), raw=True)


@pytest.mark.parametrize("kernels", native_library.instruction_sets())
def test_every_instruction_set_rounds_what_it_gives_raw(bundle_of, monkeypatch, kernels):
    monkeypatch.setenv("DEEPSIM_INSTRUCTION_SET", kernels)
    for name in ("tiny", "tiny-rgb", "norm2"):
        with Inverter(bundle_of(name), "cpu") as inverter:
            for full in (False, True):
                features = features_of(name, 2)
                raw = inverter.decode(features, full=full, raw=True)
                np.testing.assert_array_equal(rounded(raw), inverter.decode(features, full=full))


def test_a_graph_that_names_no_grey_levels_decodes_and_says_what_it_lacks(tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from deepsim.export.onnx_from_layers import generator_onnx

    model = onnx.load_from_string(
        generator_onnx(NETWORKS["small"][1], geometry_of("small"), random_weights("small")[1])
    )
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = [name.replace("pixels/shifted", "another") for name in names]
        node.name = node.name.replace("pixels/shifted", "another")
    files = {"generator.onnx": model.SerializeToString()}
    path = write_files(tmp_path / "other.deepsim", "small", files, encoder=None)
    with Inverter(path, "onnxruntime") as inverter:
        features = features_of("small")
        assert inverter.decode(features).shape == (3, 64, 64, 3)
        with pytest.raises(
            BundleError, match=r"generator\.onnx: no tensor pixels/shifted, expected one for raw images"
        ):
            inverter.decode(features, raw=True)


def test_a_graph_of_half_precision_has_its_grey_levels_in_fp32(tmp_path):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from deepsim.export.onnx_from_layers import generator_onnx

    generator, weights = NETWORKS["small"][1], random_weights("small")[1]
    graph = generator_onnx(generator, geometry_of("small"), weights, "fp16")
    path = write_files(tmp_path / "half.deepsim", "small", {"generator.onnx": graph}, encoder=None)
    before = Bundle.open(path).read("generator.onnx")
    with Inverter(path, "onnxruntime") as inverter:
        features = features_of("small")
        raw = inverter.decode(features, raw=True)
        np.testing.assert_array_equal(rounded(raw), inverter.decode(features))
    assert Bundle.open(path).read("generator.onnx") == before == graph
