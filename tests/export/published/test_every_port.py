"""Files of every public port, with random weights, give the images of the release's names, byte for byte."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.numpy import save
from safetensors.torch import save_file

from deepsim.export.published.assembly import assemble
from deepsim.export.published.import_cli import main
from deepsim.export.published.pixel_choice import choose_pixels
from deepsim.export.published.reading import read_published
from deepsim.kernels import reference
from deepsim.runtime.errors import CheckpointError, UsageError
from deepsim.runtime.generators import generator_spec
from deepsim.runtime.inverter import Inverter
from deepsim.runtime.pixels import CAFFE_PIXELS
from tests.bundles import photographs, write_files
from tests.export.published.port_files import (
    GENERATORS,
    LAYOUTS,
    RELEASE,
    meanings,
    narrowed,
    port_weights,
    release_weights,
)

EXTENTS = {"conv3": 13, "conv4": 13, "norm1": 27, "norm2": 13, "pool5": 6}


def read(content, folder, layer=None, encoder=None, write=torch.save):
    """Write a state dict and read it as ``deepsim import`` does."""
    write(content, folder / "weights.pt")
    return read_published(folder / "weights.pt", layer, encoder).networks


def opened(folder, *networks, layer=None):
    """Open networks on the CPU, without an export's verification."""
    source = assemble(networks, choose_pixels(), layer)
    weights = {f"encoder.{name}": value for name, value in source.encoder_weights.items()}
    weights |= {f"generator.{name}": value for name, value in source.generator_weights.items()}
    parts = {"encoder": source.encoder, "generator": source.generator, "geometry": source.geometry}
    path = write_files(folder / "bundle.deepsim", "tiny", {"weights.safetensors": save(weights)}, **parts)
    return Inverter(path, "cpu")


def layer_of(name):
    return RELEASE[name].removeprefix("ct/")


def without_biases(weights):
    """Set the biases of the up-convolutional part to 0, which XDream's files do not have."""
    stack = ("deconv", "conv5_", "conv4_", "conv3_", "conv2_", "conv1_")
    is_left_out = {name: name.endswith("bias") and name.startswith(stack) for name in weights}
    return {name: torch.zeros_like(value) if is_left_out[name] else value for name, value in weights.items()}


def features_of(name):
    """Draw features of the narrow networks' shape."""
    layer, inputs = layer_of(name), narrowed(next(iter(LAYOUTS[RELEASE[name]].values())), 16)[1]
    shape = (2, inputs, EXTENTS[layer], EXTENTS[layer]) if layer in EXTENTS else (2, inputs)
    return np.random.default_rng(7).standard_normal(shape).astype(np.float32)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Return the images of a release layout's generator, and of it without the biases that XDream leaves out."""
    images = {}

    def draw(name, biased):
        key = RELEASE[name], biased
        if key not in images:
            weights, folder = release_weights(RELEASE[name]), tmp_path_factory.mktemp("release")
            (network,) = read(weights if biased else without_biases(weights), folder, layer_of(name))
            images[key] = opened(folder, network).decode(features_of(name), full=True)
        return images[key]

    return draw


@pytest.mark.parametrize("name", [name for name in GENERATORS if not name.startswith("ct/")])
def test_images_are_those_of_the_release_names(drawn, tmp_path, name):
    (network,) = read(port_weights(name), tmp_path, layer_of(name))
    images = opened(tmp_path, network).decode(features_of(name), full=True)
    np.testing.assert_array_equal(images, drawn(name, not name.startswith("xdream")))
    assert images.std() > 5


def narrow_layers(name):
    """Return a generator's table with the narrow networks' channels."""
    layers = []
    for layer in generator_spec(layer_of(name).removesuffix("_eucl")).layers:
        if layer.has_weights:
            first, second = narrowed(LAYOUTS[name][f"{layer.name}.weight"], 16)[:2]
            inputs, outputs = (first, second) if layer.kind == "deconv" else (second, first)
            layers.append(replace(layer, inputs=inputs, outputs=outputs))
        else:
            layers.append(replace(layer, shape=(16, 4, 4)))
    return tuple(layers)


@pytest.mark.parametrize("name", [name for name in GENERATORS if name.startswith("ct/")])
def test_the_release_names_are_what_numpy_computes(drawn, name):
    weights = {key: value.numpy() for key, value in release_weights(name).items()}
    exact = reference.apply_layers(narrow_layers(name), features_of(name).astype(np.float64), weights)
    difference = np.abs(CAFFE_PIXELS.to_pixels(exact).astype(int) - drawn(name, True))
    assert difference.max() <= 1 and difference.mean() < 1e-3


WRITERS = {
    "safetensors": lambda content, path: save_file({name: value.clone() for name, value in content.items()}, path),
    "half": lambda content, path: torch.save({name: value.half() for name, value in content.items()}, path),
    "nested, numbered, prefixed": lambda content, path: torch.save(
        {"state_dict": {f"module.G.{name.replace('defc7.', 'defc7.1.')}": value for name, value in content.items()}},
        path,
    ),
    "parameters, legacy": lambda content, path: torch.save(
        {name: torch.nn.Parameter(value) for name, value in content.items()}, path, _use_new_zipfile_serialization=False
    ),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_every_format_of_a_file(drawn, tmp_path, writer):
    (network,) = read(release_weights("ct/fc8"), tmp_path, "fc8", write=WRITERS[writer])
    images = opened(tmp_path, network).decode(features_of("ct/fc8"), full=True).astype(int)
    assert np.abs(images - drawn("ct/fc8", True)).max() <= (3 if writer == "half" else 0)


def test_mixed_names_are_those_of_the_release_names(drawn, tmp_path):
    """safetensors keeps one name of two; which one differs from tensor to tensor."""
    both, meant = port_weights("bdpy/relu4generator"), meanings("bdpy/relu4generator")
    half = len(both) // 2
    mixed = [list(both)[index + half * (index % 3 == 0)] for index in range(half)]
    assert len({meant[name] for name in mixed}) == half
    (network,) = read({name: both[name] for name in mixed}, tmp_path, "conv4")
    images = opened(tmp_path, network).decode(features_of("ct/conv4"), full=True)
    np.testing.assert_array_equal(images, drawn("ct/conv4", True))


@pytest.fixture(scope="module")
def caffenet(tmp_path_factory):
    return encoded(read(release_weights("ct/caffenet"), folder := tmp_path_factory.mktemp("caffenet")), folder)


def encoded(networks, folder, layer="pool5"):
    """Return the features of two photographs; a generator of that layer makes the bundle whole."""
    (folder / "generator").mkdir()
    generator = read(release_weights(f"ct/{layer}"), folder / "generator", layer)
    return opened(folder, *networks, *generator).encode(photographs(2))


def test_caffenets_features_are_those_of_the_release_names(caffenet, tmp_path):
    np.testing.assert_array_equal(encoded(read(port_weights("bdpy/reference_net"), tmp_path), tmp_path), caffenet)
    assert caffenet.shape == (2, 16, 6, 6) and (caffenet > 0).mean() > 0.2


def test_the_original_alexnet_is_another_network(caffenet, tmp_path):
    """Its tensors have CaffeNet's shapes: only the names tell, and the features differ where blocks 1 and 2 do."""
    (network,) = read(port_weights("bdpy/alexnet"), tmp_path)
    names = [layer.name for layer in network.layers]
    assert network.name == "bvlc-alexnet" and names[:6] == ["conv1", "norm1", "pool1", "conv2", "norm2", "pool2"]
    features = encoded([network], tmp_path)
    x = network.pixels.to_network(photographs(1)).astype(np.float64)
    exact = reference.apply_layers(network.layers[: names.index("pool5") + 1], x, network.weights)
    np.testing.assert_allclose(features[:1], exact, rtol=1e-3, atol=1e-4 * np.abs(exact).max())
    assert np.abs(features - caffenet).max() > 1e-4 * caffenet.max()
    with pytest.raises(UsageError, match=r"--encoder caffenet: the names in .* are those of bvlc-alexnet"):
        read(port_weights("bdpy/alexnet"), tmp_path, encoder="caffenet")


def vgg19():
    rng = torch.Generator().manual_seed(19)
    shapes = {name: narrowed(shape, 16) for name, shape in LAYOUTS["bdpy/vgg19"].items()}
    return {name: torch.randn(shape, generator=rng) * 0.1 for name, shape in shapes.items()}


def test_vgg19s_file_does_not_say_its_pixels(tmp_path):
    with pytest.raises(UsageError, match=r"--encoder: missing, expected vgg19 .*torchvision.*vgg19-caffe"):
        read(vgg19(), tmp_path)
    (theirs,), (caffes,) = (read(vgg19(), tmp_path, encoder=told) for told in ("vgg19", "vgg19-caffe"))
    assert (theirs.pixels.order, caffes.pixels.order) == ("RGB", "BGR") and caffes.pixels.mean == (104, 117, 123)
    assert theirs.layers == caffes.layers and [layer.name for layer in theirs.layers][-4:] == [
        "pool5",
        "fc6",
        "fc7",
        "fc8",
    ]
    np.testing.assert_array_equal(theirs.weights["conv3_4.weight"], vgg19()["features.16.weight"].numpy())
    with pytest.raises(UsageError, match="--encoder caffenet"):
        read(vgg19(), tmp_path, encoder="caffenet")


def test_what_is_told_and_is_not_there_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"--encoder vgg19: .* holds no encoder"):
        read(release_weights("ct/pool5"), tmp_path, encoder="vgg19")
    with pytest.raises(UsageError, match=r"--layer fc6: .* holds a generator for pool5"):
        read(release_weights("ct/pool5"), tmp_path, "fc6")


def test_wrong_shapes_are_named(tmp_path):
    weights = {**release_weights("ct/pool5"), "conv4_1.weight": torch.zeros(16, 16, 5, 5)}
    with pytest.raises(CheckpointError, match=r"conv4_1.weight has shape \(16, 16, 5, 5\), expected .*pool5"):
        read(weights, tmp_path)
    weights = {**release_weights("ct/pool5"), "conv4_1.weight": torch.zeros(9, 16, 3, 3)}
    with pytest.raises(CheckpointError, match="conv4_1"):
        read(weights, tmp_path)


@pytest.mark.parametrize("name", ["bdpy/relu7generator", "xdream/norm2"])
def test_the_command_gives_the_same_images(drawn, tmp_path, name):
    torch.save(port_weights(name), tmp_path / "weights.pt")
    target = tmp_path / "port.deepsim"
    found = CliRunner().invoke(main, [str(tmp_path / "weights.pt"), "--layer", layer_of(name), "-o", str(target)])
    assert found.exit_code == 0, found.output
    for backend in ("cpu", "onnxruntime"):
        images = Inverter(target, backend, "cpu").decode(features_of(name), full=True).astype(int)
        difference = np.abs(images - drawn(name, not name.startswith("xdream")))
        assert difference.max() <= (backend != "cpu")
