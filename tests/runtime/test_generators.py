"""The rule by which a feature of any shape gets a generator."""

import pytest

from deepsim.kernels.layers import parameters, shapes
from deepsim.runtime.errors import UsageError
from deepsim.runtime.generators import WIDTHS, generator_for, generator_spec, released_layers
from deepsim.runtime.geometry import IMAGENET_FRAMING
from deepsim.runtime.networks import CAFFENET, VGG19, GraphEncoder
from deepsim.runtime.pixels import IMAGENET_PIXELS


@pytest.mark.parametrize(
    ("shape", "side", "full", "ups"),
    [
        ((1024, 14, 14), 224, 224, 4),
        ((2048, 7, 7), 224, 224, 5),
        ((64, 224, 224), 224, 224, 0),
        ((96, 112, 112), 224, 224, 1),
        ((192, 14, 14), 299, 320, 5),  # 14 -> 10, doubled 5 times
        ((2048, 8, 8), 299, 320, 5),  # 8 -> 10
        ((256, 13, 13), 227, 240, 4),  # 13 -> 15
        ((64, 1, 1), 224, 256, 8),  # a map of one pixel
        ((5, 100, 100), 227, 384, 2),
        ((3, 40, 40), 32, 36, 0),  # a feature larger than its image
    ],
)
def test_maps_reach_the_side_with_the_smallest_image(shape, side, full, ups):
    spec = generator_for("x", shape, side)
    assert spec.output_size == full
    assert sum(layer.kind == "deconv" for layer in spec.layers) == ups
    assert shapes(spec.layers, shape)[-1] == (3, full, full)
    assert [layer.role for layer in spec.layers[:3]] == ["feature", "feature", "upconv"]
    assert spec.layers[-1].activation == "tanh255"


@pytest.mark.parametrize(
    ("side", "full", "grid"), [(224, 256, 4), (227, 256, 4), (129, 256, 4), (128, 128, 4), (32, 32, 4), (299, 320, 5)]
)
def test_vectors_begin_with_three_fully_connected_layers(side, full, grid):
    spec = generator_for("code", (1000,), side)
    assert [layer.name for layer in spec.layers[:4]] == ["defc7", "defc6", "defc5", "reshape"]
    assert spec.layers[3].shape == (256, grid, grid) and spec.output_size == full


def test_vectors_of_other_encoders_get_table_1_itself():
    assert generator_spec("fc6", VGG19).layers == generator_spec("fc6").layers


@pytest.mark.parametrize("shape", [(512, 14, 14), (512, 7, 7), (64, 1, 1), (16, 56, 56), (100,)])
def test_channels_halve_down_to_sixteen(shape):
    spec = generator_for("x", shape, 448)
    widths = [layer.outputs for layer in spec.layers if layer.kind == "deconv"]
    before = next(layer.inputs for layer in spec.layers if layer.kind == "deconv")
    assert before <= 512 and widths[-1] == 16 if widths else before
    for wide, narrow in zip([before, *widths], widths, strict=False):
        assert narrow in (wide, wide // 2)


def test_every_width_keeps_the_layers():
    names = [layer.name for layer in generator_for("x", (40, 28, 28), 224).layers]
    for width in WIDTHS:
        spec = generator_for("x", (40, 28, 28), 224, width)
        assert [layer.name for layer in spec.layers] == names
        assert (spec.layers[0].inputs, spec.layers[-1].outputs, spec.output_size) == (40, 3, 224)


def test_released_tables_are_for_caffenets_extents_at_its_side_alone():
    released = generator_spec("conv3").layers
    assert generator_for("conv3", (384, 13, 13), 227).layers == released
    assert generator_for("conv3", (384, 13, 13), 224).layers != released
    assert generator_for("conv3", (384, 14, 14), 227).layers != released
    assert released_layers(CAFFENET)[-3:] == ["fc6", "fc7", "fc8"]


def test_the_tables_of_2015():
    fc6, fc8, pool5 = (generator_spec(layer, family="dosovitskiy2015") for layer in ("fc6", "fc8", "pool5"))
    assert [layer.outputs for layer in fc6.layers] == [4096, 4096, 4096, 0, 256, 128, 64, 32, 3]
    assert [layer.outputs for layer in pool5.layers] == [256, 256, 256, 256, 128, 64, 32, 3]
    assert (fc6.output_size, fc8.output_size, pool5.output_size) == (128, 128, 192)
    assert (parameters(fc6.layers), parameters(pool5.layers)) == (53_060_419, 4_486_723)
    for spec in (fc6, fc8, pool5):
        *hidden, last = (layer for layer in spec.layers if layer.has_weights)
        assert {layer.activation for layer in hidden} == {"lrelu0.2"} and last.activation == "none"
        ups = [layer for layer in spec.layers if layer.kind == "deconv"]
        assert {(up.kernel, up.stride, up.padding, up.output_padding) for up in ups} == {(5, 2, 2, 1)} and len(ups) == 5
    assert generator_spec("fc7", VGG19, 0.5, "dosovitskiy2015").layers[3].shape == (128, 4, 4)
    with pytest.raises(UsageError, match=r"layer norm2: features of shape .* expected \(C,\) or \(C, 6, 6\)"):
        generator_spec("norm2", family="dosovitskiy2015")


@pytest.mark.parametrize("shape", [(4, 7, 8), (4, 4), (), (1 << 21,)])
def test_shapes_that_no_generator_reads_are_refused(shape):
    with pytest.raises(UsageError, match="layer x: features of shape"):
        generator_for("x", shape, 224)


@pytest.mark.parametrize("side", [0, 4097])
def test_sides_out_of_range_are_refused(side):
    with pytest.raises(UsageError, match=f"images of side {side}, expected 1 to 4096"):
        generator_for("x", (4,), side)


def test_a_graph_is_inverted_at_its_own_layer_alone():
    encoder = GraphEncoder("torchvision:resnet18", "layer2", IMAGENET_FRAMING, IMAGENET_PIXELS, (128, 28, 28))
    assert generator_spec("layer2", encoder).output_size == 224
    with pytest.raises(UsageError, match="layer 'layer3', expected 'layer2'"):
        generator_spec("layer3", encoder)
