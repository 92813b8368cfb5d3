"""VGG-16 and VGG-19 on the native library against PyTorch: 3x3 convolutions of stride 1 from pixels on, 2x2 pooling.

Narrow networks of the same structure, and once the whole tables with torchvision's own modules.
"""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deepsim.kernels.layers import shapes
from deepsim.runtime.files import sha256
from deepsim.runtime.generators import generator_for
from deepsim.runtime.geometry import IMAGENET_FRAMING, Geometry
from deepsim.runtime.inverter import Inverter
from deepsim.runtime.manifest import FileRecord, Manifest
from deepsim.runtime.networks import VGG16, VGG19

torch = pytest.importorskip("torch")
NARROW = 16  # divides the channels
LAYERS = ("conv1_1", "pool1", "pool3", "conv5_3", "pool5", "fc7")
FEATURE_ERROR = 3e-6  # relative to the largest feature, as in tests/runtime/test_parity.py


def narrow(spec):
    """Return the table with a sixteenth of the channels and of the units."""
    layers, shape = [], spec.input_shape
    for layer in spec.layers:
        if layer.has_weights:
            inputs = shape[0] if layer.kind == "conv" else int(np.prod(shape))
            layer = replace(layer, inputs=inputs, outputs=layer.outputs // NARROW)
        layers.append(layer)
        shape = layer.output_shape(shape)
    return replace(spec, layers=tuple(layers))


def modules_of(layers):
    """Return the layers as PyTorch modules, in order, with random weights that keep the size of values."""
    made = []
    for layer in layers:
        if layer.kind == "fc":
            made += [torch.nn.Flatten(), torch.nn.Linear(layer.inputs, layer.outputs)]
        elif layer.kind == "pool":
            made.append(torch.nn.MaxPool2d(layer.kernel, layer.stride))
        else:
            made.append(torch.nn.Conv2d(layer.inputs, layer.outputs, layer.kernel, padding=layer.padding))
        if layer.activation == "relu":
            made.append(torch.nn.ReLU())
    for module in made:
        if hasattr(module, "weight"):
            torch.nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            torch.nn.init.normal_(module.bias, std=0.1)
    return torch.nn.Sequential(*made)


def weights_of(layers, module):
    """Name the weights of a module's convolutions and linear layers, in order, after a table's layers."""
    weighted = [entry for entry in module.modules() if isinstance(entry, (torch.nn.Conv2d, torch.nn.Linear))]
    named = {}
    for layer, entry in zip([layer for layer in layers if layer.has_weights], weighted, strict=False):
        named[f"encoder.{layer.name}.weight"] = entry.weight.detach().numpy()
        named[f"encoder.{layer.name}.bias"] = entry.bias.detach().numpy()
    return named


def bundle_with(folder, encoder, layer, module):
    """Write a bundle of the encoder up to a layer, with the module's weights and a narrow random generator."""
    from safetensors.numpy import save

    table = replace(encoder, layers=encoder.up_to(layer))
    generator = generator_for(layer, shapes(table.layers, table.input_shape)[-1], IMAGENET_FRAMING.side, width=2**-6)
    rng = np.random.default_rng(1)
    weights = weights_of(table.layers, module)
    for entry in generator.layers:
        if entry.has_weights:
            scale = np.float32(np.sqrt(2 / (np.prod(entry.weight_shape) / entry.outputs)))
            weights[f"generator.{entry.name}.weight"] = rng.normal(0, scale, entry.weight_shape).astype(np.float32)
            weights[f"generator.{entry.name}.bias"] = np.zeros(entry.outputs, np.float32)
    data = save(weights)
    folder.mkdir()
    (folder / "weights.safetensors").write_bytes(data)
    geometry = Geometry.central(IMAGENET_FRAMING, generator.output_size)
    files = {"weights.safetensors": FileRecord(len(data), sha256(data))}
    (folder / "manifest.json").write_bytes(Manifest("vgg", geometry, table, generator, files).to_bytes())
    return folder


def photographs(count):
    """Return smooth random squares of 224 pixels, uint8 RGB."""
    coarse = np.random.default_rng(2).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    return np.stack([np.asarray(Image.fromarray(photo).resize((224, 224))) for photo in coarse])


def check(folder, encoder, layer, module, wanted):
    """Compare the native library's features of photographs with those that `wanted` computes of network input."""
    photos = photographs(2)
    inverter = Inverter(bundle_with(folder, encoder, layer, module), "cpu")
    network = torch.from_numpy(np.ascontiguousarray(encoder.pixels.to_network(photos)).astype(np.float32))
    with torch.no_grad():
        features = wanted(network).numpy()
    assert features.std() > 0.01 and (features != 0).mean() > 0.1  # something is compared
    found = inverter.encode(photos)
    np.testing.assert_allclose(found, features, rtol=0, atol=FEATURE_ERROR * np.abs(features).max())
    image = inverter.decode(found, full=True)
    assert inverter.decode(found).shape == (2, 224, 224, 3) and image.std() > 0
    return inverter


@pytest.mark.parametrize("layer", LAYERS)
def test_narrow_vgg16_agrees_with_pytorch(tmp_path, layer):
    torch.manual_seed(0)
    encoder = narrow(VGG16)
    module = modules_of(encoder.up_to(layer))
    check(tmp_path / "vgg.deepsim", encoder, layer, module, module)


def test_channels_in_the_other_order_agree_too(tmp_path):
    torch.manual_seed(1)
    encoder = narrow(VGG19)
    encoder = replace(encoder, pixels=replace(encoder.pixels, order="BGR"))
    module = modules_of(encoder.up_to("conv5_4"))
    check(tmp_path / "vgg.deepsim", encoder, "conv5_4", module, module)


@pytest.mark.slow
def test_whole_vgg16_agrees_with_torchvision(tmp_path):
    torch.manual_seed(2)
    whole = pytest.importorskip("torchvision").models.vgg16().eval()

    def wanted(network):
        return whole.classifier[:5](whole.features(network).flatten(1))

    check(tmp_path / "vgg.deepsim", VGG16, "fc7", whole, wanted)


@pytest.mark.slow
def test_whole_vgg19_agrees_with_torchvision(tmp_path):
    torch.manual_seed(3)
    whole = pytest.importorskip("torchvision").models.vgg19().eval()
    check(tmp_path / "vgg.deepsim", VGG19, "pool5", whole, whole.features)


def address_space():
    """Return the bytes of memory that this process has mapped."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("layer", ["conv1_1", "conv1_2", "pool1"])
def test_the_largest_maps_take_little_memory_for_the_largest_batch(tmp_path, layer):
    torch.manual_seed(4)
    module = modules_of(VGG16.up_to(layer))
    folder = bundle_with(tmp_path / "vgg.deepsim", VGG16, layer, module)
    Inverter(folder, "cpu", max_batch=1)  # what threads and the bundle's reader keep
    before = address_space()
    inverter = Inverter(folder, "cpu", max_batch=64)
    taken = address_space() - before
    assert taken < 1 << 29, f"{taken:,} bytes"  # 64 features of conv1_1 alone would be 822 MB
    photos = photographs(3)
    np.testing.assert_array_equal(inverter.reconstruct(photos)[2], inverter.reconstruct(photos[2:])[0])
