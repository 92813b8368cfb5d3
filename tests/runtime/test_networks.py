"""The tables of networks against the published counts and extents."""

import pytest

from deepsim.kernels.layers import macs, parameters, shapes
from deepsim.runtime.errors import UsageError
from deepsim.runtime.generators import LATENT, generator_for, generator_spec, released_layers
from deepsim.runtime.networks import ALEXNET, CAFFENET, ENCODERS

GENERATORS = {  # layer: parameters, GMAC per image (effective), output side
    "norm1": (1_034_499, 0.927, 240),
    "norm2": (1_661_315, 1.068, 240),
    "conv3": (8_074_147, 2.815, 256),
    "conv4": (8_074_147, 2.815, 256),
    "pool5": (12_702_307, 1.138, 256),
    "fc6": (56_097_891, 1.007, 256),
    "fc7": (56_097_891, 1.007, 256),
    "fc8": (43_416_675, 0.994, 256),
}
FC_NAMES = "defc7 defc6 defc5 reshape deconv5 conv5_1 deconv4 conv4_1 deconv3 conv3_1 deconv2 deconv1 deconv0"
CONV_NAMES = "Rconv6 Rconv7 Rconv8 deconv5 conv5_1 deconv4 conv4_1 deconv3 conv3_1 deconv2 conv2_1 deconv1 conv1_1"


@pytest.mark.parametrize("layer", GENERATORS)
def test_generators_have_the_published_counts(layer):
    spec = generator_spec(layer)
    count, gmacs, side = GENERATORS[layer]
    assert parameters(spec.layers) == count
    assert macs(spec.layers, spec.input_shape) / 1e9 == pytest.approx(gmacs, abs=5e-4)
    assert shapes(spec.layers, spec.input_shape)[-1] == (3, side, side)


def test_eight_layers_have_released_generators_and_every_layer_has_one():
    assert released_layers(CAFFENET) == list(GENERATORS)
    for encoder in ENCODERS.values():
        for entry in encoder.layers:
            assert generator_spec(entry.name, encoder).output_size >= encoder.framing.side
    with pytest.raises(UsageError, match=r"caffenet: no layer 'conv6', it has conv1, pool1, norm1"):
        generator_spec("conv6")


def test_release_names_in_order():
    assert [layer.name for layer in generator_spec("fc6").layers] == FC_NAMES.split()
    assert [layer.name for layer in generator_spec("conv4").layers] == CONV_NAMES.split()


@pytest.mark.parametrize("layer", GENERATORS)
def test_roles_are_those_of_the_release(layer):
    """There the L2 term acts on Rconv, and the biases behind the first layers are frozen."""
    roles = {entry.name: entry.role for entry in generator_spec(layer, width=0.5).layers if entry.has_weights}
    first = {name for name, role in roles.items() if role != "upconv"}
    assert first == {name for name in roles if name.startswith(("Rconv", "defc"))}
    assert {name for name, role in roles.items() if role == "feature"} == {n for n in roles if n.startswith("Rconv")}


def test_release_kinds_of_the_stride_one_layers():
    kinds = {layer.name: layer.kind for layer in generator_spec("conv3").layers}
    assert [name for name, kind in kinds.items() if kind == "conv" and name.endswith("_1")] == ["conv2_1", "conv1_1"]
    assert {layer.kind for layer in generator_spec("fc6").layers if layer.name.endswith("_1")} == {"deconv"}
    assert {layer.kind for layer in generator_spec("norm2").layers if layer.name.endswith("_1")} == {"conv"}


def test_activations():
    def of(layer):
        return {entry.name: entry.activation for entry in generator_spec(layer).layers if entry.has_weights}

    assert of("fc6").pop("deconv0") == "none"
    assert of("norm2")["conv1_1"] == of("conv3")["conv1_1"] == "tanh255"
    assert of("norm2")["deconv1"] == "none"
    rest = {k: v for k, v in of("norm2").items() if k not in ("conv1_1", "deconv1")}
    assert set(rest.values()) == {"lrelu"}


def test_caffenet():
    assert parameters(CAFFENET.layers) == 60_965_224
    assert macs(CAFFENET.layers, (3, 227, 227)) / 1e9 == pytest.approx(0.724, abs=5e-4)
    names = [layer.name for layer in CAFFENET.layers]
    assert names[:6] == ["conv1", "pool1", "norm1", "conv2", "pool2", "norm2"]  # pool before LRN
    found = {name: CAFFENET.feature_shape(name) for name in ("norm1", "norm2", "conv3", "pool5", "fc6", "fc8")}
    assert found == {
        "norm1": (96, 27, 27),
        "norm2": (256, 13, 13),
        "conv3": (384, 13, 13),
        "pool5": (256, 6, 6),
        "fc6": (4096,),
        "fc8": (1000,),
    }
    assert shapes(CAFFENET.layers[:2], (3, 256, 256))[-1] == (96, 31, 31)  # rounded up: 62 -> 31


def test_alexnet_is_another_network():
    assert parameters(ALEXNET.layers) == 61_100_840
    assert not any(layer.kind == "lrn" or layer.groups > 1 for layer in ALEXNET.layers)
    assert generator_spec("conv4", ALEXNET).input_shape == (256, 13, 13)
    assert generator_spec("pool1", ALEXNET).input_shape == (64, 27, 27)


def test_a_codes_decoder_is_table_1():
    assert generator_for(LATENT, (4096,), 227).layers == generator_spec("fc6").layers
    assert generator_for(LATENT, (100,), 227).input_shape == (100,)


def test_narrow_generators_keep_input_and_output():
    spec = generator_spec("fc6", width=0.25)
    assert shapes(spec.layers, (4096,))[-1] == (3, 256, 256)
    assert spec.layers[2].outputs == 1024 == 64 * 4 * 4
    with pytest.raises(UsageError, match="width"):
        generator_spec("fc6", width=0.3)
