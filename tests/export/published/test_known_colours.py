"""A picture of known colours through every public path: channels, mean, crop, range and rounding are right.

Public pipelines get these wrong in the ways that the tests are named after; none of them can be asked for here, but for
the display's stretch, which must be.
"""

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from deepsim.export.published.import_cli import main
from deepsim.export.published.reading import read_published
from deepsim.runtime.inverter import Inverter
from tests.export.published.caffe_messages import chain, named_only
from tests.export.published.known_colours import GRIDS, MEAN, colours, features_and_weights, picture, whole_grid
from tests.export.published.port_files import meanings
from tests.export.published.test_every_port import opened, read

SIDES = {"norm1": 240, "norm2": 240}
PORTS = [
    *((f"ct/{layer}", layer) for layer in GRIDS),
    ("bdpy/relu6generator", "fc6"),
    ("bdpy/relu7generator", "fc7"),
    ("bdpy/relu8?", "fc8"),
    ("bdpy/relu3generator", "conv3"),
    ("bdpy/relu4generator", "conv4"),
    *((f"bdpy/{layer}generator", layer) for layer in ("pool5", "norm2", "norm1")),
    ("xdream/fc67", "fc6"),
    ("xdream/fc67", "fc7"),
    ("xdream/fc8", "fc8"),
    ("xdream/conv34", "conv3"),
    ("xdream/conv34", "conv4"),
    *((f"xdream/{layer}", layer) for layer in ("pool5", "norm2", "norm1")),
]


def drawn(name, layer, seed=5):
    """Return a port's state dict that draws colours, the features, and the whole image that they must become."""
    grid = colours(GRIDS[layer], seed)
    features, weights = features_and_weights(layer, grid)
    content = {own: torch.from_numpy(weights[tensor]) for own, tensor in meanings(name).items()}
    return content, features, picture(whole_grid(layer, grid), SIDES.get(layer, 256))


@pytest.mark.parametrize(("name", "layer"), PORTS)
def test_colours_and_crop(tmp_path, name, layer):
    content, features, expected = drawn(name, layer)
    (network,) = read(content, tmp_path, layer)
    inverter = opened(tmp_path, network)
    np.testing.assert_array_equal(inverter.decode(features, full=True)[0], expected)
    offset = (len(expected) - 227) // 2
    assert offset in (14, 6)
    np.testing.assert_array_equal(inverter.decode(features)[0], expected[offset : offset + 227, offset : offset + 227])


@pytest.mark.parametrize("layer", GRIDS)
def test_colours_and_crop_of_caffe_models(tmp_path, layer):
    """Once with names and blobs alone, once with the layers as Caffe describes them."""
    grid = colours(GRIDS[layer])
    features, weights = features_and_weights(layer, grid)
    expected = picture(whole_grid(layer, grid), SIDES.get(layer, 256))
    offset = (len(expected) - 227) // 2
    path = tmp_path / "generator.caffemodel"
    path.write_bytes(named_only(weights))
    (network,) = read_published(path, layer).networks
    for content in (named_only(weights), chain(network.layers, weights, "feat")):
        path.write_bytes(content)
        inverter = opened(tmp_path, *read_published(path, layer).networks)
        np.testing.assert_array_equal(inverter.decode(features, full=True)[0], expected)
        cut = expected[offset : offset + 227, offset : offset + 227]
        np.testing.assert_array_equal(inverter.decode(features)[0], cut)


def bundle_of(folder, name, layer, *options):
    content, features, expected = drawn(name, layer)
    torch.save(content, folder / "weights.pt")
    arguments = [folder / "weights.pt", "--layer", layer, "-o", folder / "bundle.deepsim", "--overwrite", *options]
    found = CliRunner().invoke(main, list(map(str, arguments)))
    assert found.exit_code == 0, found.output
    return folder / "bundle.deepsim", features, expected


@pytest.mark.parametrize(("name", "layer"), [("ct/fc6", "fc6"), ("xdream/norm1", "norm1")])
def test_every_backend(tmp_path, name, layer):
    path, features, expected = bundle_of(tmp_path, name, layer)
    for backend in ("cpu", "onnxruntime", "torch"):
        inverter = Inverter(path, backend, "cpu")
        images = inverter.decode(features, full=True)
        np.testing.assert_array_equal(images[0], expected)
        offset = (len(expected) - 227) // 2
        np.testing.assert_array_equal(inverter.decode(features), images[:, offset:][:, :227, offset:][:, :, :227])


def test_raw_images_are_the_levels_before_rounding_and_clipping(tmp_path):
    path, features, expected = bundle_of(tmp_path, "ct/fc6", "fc6")
    levels = np.kron(colours(4), np.ones((64, 64, 1)))
    assert levels.min() < -30 and levels.max() > 300
    for backend in ("cpu", "onnxruntime", "torch"):
        inverter = Inverter(path, backend, "cpu")
        raw = inverter.decode(features, full=True, raw=True)
        assert raw.dtype == np.float32
        np.testing.assert_allclose(raw[0], levels, atol=2e-3)
        np.testing.assert_array_equal(inverter.decode(features, raw=True), raw[:, 14:241, 14:241])
    np.testing.assert_array_equal(np.clip(np.rint(raw[0]), 0, 255).astype(np.uint8), expected)


def muted():
    """Return a grid whose levels stay well within 0 to 255, so that no mistake hides in what is clipped."""
    return np.round(60 + np.clip(colours(4), 0, 255) * 0.5) + 0.7


@pytest.fixture(scope="module")
def mistakes():
    """Return the images that public pipelines make of a picture's raw output."""
    levels = np.kron(muted(), np.ones((64, 64, 1)))
    raw = levels[..., ::-1] - MEAN  # blue, green, red, without the mean
    low, high = np.percentile(levels, [2, 98])
    nearest = np.linspace(0, 255, 227).astype(int)
    made = {
        "mean not added": raw[..., ::-1],
        "channels not swapped": raw + MEAN,
        "mean of the other order": (raw + MEAN[::-1])[..., ::-1],
        "another mean": (raw + np.array([104, 117, 124]))[..., ::-1],
        "times 255 missing": levels / 255,
        "half the contrast": (1 + raw[..., ::-1] / 255) / 2 * 255,
        "truncated": np.floor(levels),
        "stretched": (np.clip(levels, low, high) - low) / (high - low) * 255,
        "resized instead of cropped": levels[nearest][:, nearest],
    }
    return {name: np.clip(np.rint(image), 0, 255).astype(np.uint8) for name, image in made.items()}


@pytest.mark.parametrize("name", ["ct/fc6", "bdpy/relu6generator", "xdream/fc67"])
def test_no_published_mistake_is_made(tmp_path, mistakes, name):
    features, weights = features_and_weights("fc6", muted())
    content = {own: torch.from_numpy(weights[tensor]) for own, tensor in meanings(name).items()}
    inverter = opened(tmp_path, *read(content, tmp_path, "fc6"))
    whole, cropped = inverter.decode(features, full=True)[0], inverter.decode(features)[0]
    np.testing.assert_array_equal(whole, picture(muted(), 256))
    for mistake, image in mistakes.items():
        found = cropped if len(image) == 227 else whole
        assert np.abs(found.astype(int) - image).max() >= 1, mistake


def test_the_mean_of_the_other_order_is_refused(tmp_path):
    content, _, _ = drawn("ct/fc6", "fc6")
    torch.save(content, tmp_path / "weights.pt")
    target = tmp_path / "bundle.deepsim"
    for options in ("--mean 123,117,104", "--mean 122.7,116.7,104.0", "--order RGB --mean 104,117,123"):
        arguments = [tmp_path / "weights.pt", "--layer", "fc6", "-o", target, *options.split()]
        found = CliRunner().invoke(main, list(map(str, arguments)))
        assert found.exit_code == 2 and "the ILSVRC means in" in found.stderr and not target.exists()


def test_another_mean_and_order_are_heeded_and_recorded(tmp_path):
    """A network of red, green, blue whose mean is 10, 20, 30: the colours are its own values and that mean."""
    path, features, _ = bundle_of(tmp_path, "ct/fc6", "fc6", "--order", "RGB", "--mean", "10,20,30")
    network = colours(4)[..., ::-1] - MEAN
    expected = picture(network + np.array([10, 20, 30]), 256)
    for backend in ("cpu", "onnxruntime", "torch"):
        np.testing.assert_array_equal(Inverter(path, backend, "cpu").decode(features, full=True)[0], expected)


def looking_encoder():
    """Return a CaffeNet whose conv1 hands on the pixel under each kernel's centre, lifted by 200."""
    shapes = {"conv1": (4, 3, 11, 11), "conv2": (4, 2, 5, 5), "conv3": (4, 4, 3, 3), "conv4": (4, 2, 3, 3)}
    shapes |= {"conv5": (4, 2, 3, 3), "fc6": (4, 144), "fc7": (4, 4), "fc8": (4, 4)}
    content = {f"{name}.weight": torch.zeros(shape) for name, shape in shapes.items()}
    content |= {f"{name}.bias": torch.zeros(4) for name in shapes}
    for channel in range(3):
        content["conv1.weight"][channel, channel, 5, 5] = 1
    content["conv1.bias"][:] = 200
    return content


@pytest.mark.parametrize("backend", ["cpu", "onnxruntime", "torch"])
def test_what_an_encoder_sees(tmp_path, backend):
    """Blue, green, red minus the mean, of the photograph's central 227 x 227 pixels."""
    torch.save(looking_encoder(), tmp_path / "weights.pt")
    arguments = [tmp_path / "weights.pt", "--layer", "conv1", "-o", tmp_path / "bundle.deepsim"]
    found = CliRunner().invoke(main, list(map(str, arguments)))
    assert found.exit_code == 0, found.output
    inverter = Inverter(tmp_path / "bundle.deepsim", backend, "cpu")
    photograph = np.random.default_rng(3).integers(0, 256, (1, 256, 256, 3), dtype=np.uint8)
    for image, first in ((photograph, 14), (photograph[:, :227, :227], 0)):
        seen = image[0, first + 5 : first + 222 : 4, first + 5 : first + 222 : 4, ::-1] - MEAN + 200
        np.testing.assert_allclose(inverter.encode(image)[0, :3], seen.transpose(2, 0, 1), atol=1e-3)


def test_a_display_that_stretches_is_another_picture_and_leaves_raw_images_alone(tmp_path):
    path, features, expected = bundle_of(tmp_path, "ct/fc6", "fc6", "--display", "stretch")
    inverter = Inverter(path, "cpu")
    raw = inverter.decode(features, full=True, raw=True)
    np.testing.assert_allclose(raw[0], np.kron(colours(4), np.ones((64, 64, 1))), atol=2e-3)
    low, high = np.percentile(raw, [2, 98])
    stretched = np.floor((np.clip(raw, low, high) - low) / (high - low) * 255)
    images = inverter.decode(features, full=True)
    assert np.abs(images - stretched).max() <= 1 and np.abs(images[0].astype(int) - expected).max() > 20
