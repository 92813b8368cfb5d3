"""The layer record: shapes, counts, JSON, and clear refusals."""

from dataclasses import replace

import pytest

from deepsim.kernels.activations import UnknownLayerError
from deepsim.kernels.layers import Layer, macs, parameters, shapes

UPCONV = Layer("deconv1", "deconv", 64, 32, 4, 2, 1, activation="lrelu")


def test_json_round_trip_keeps_every_field():
    for layer in (UPCONV, Layer("reshape", "reshape", shape=(256, 4, 4)), Layer("pool1", "pool", kernel=3, stride=2)):
        assert Layer.from_json(layer.to_json()) == layer


def test_a_role_is_trainings_and_not_in_the_json():
    layer = replace(UPCONV, role="upconv")
    assert layer == UPCONV and hash(layer) == hash(UPCONV)
    assert layer.to_json() == UPCONV.to_json()
    assert "role" not in layer.to_json()
    with pytest.raises(TypeError, match="role: belongs to training"):
        Layer.from_json({**UPCONV.to_json(), "role": "upconv"})
    with pytest.raises(ValueError, match=r"layer deconv1: role 'frozen', expected one of plain, feature, upconv"):
        replace(UPCONV, role="frozen")


def test_an_outputs_padding_is_in_the_json_where_there_is_one():
    assert "output_padding" not in UPCONV.to_json()  # tables of before keep their bytes
    wide = replace(UPCONV, kernel=5, padding=2, output_padding=1, activation="lrelu0.2")
    assert wide.to_json()["output_padding"] == 1 and Layer.from_json(wide.to_json()) == wide
    assert wide.output_shape((64, 13, 7)) == (32, 26, 14)
    assert wide.macs((64, 13, 7)) == 64 * 32 * 25 * 13 * 7
    assert wide.activates.slope == 0.2
    for change in ({"output_padding": 2}, {"output_padding": -1}, {"stride": 1}, {"kind": "conv"}):
        with pytest.raises(UnknownLayerError, match=r"layer deconv1: output_padding .* expected at most"):
            replace(wide, **change)


def test_upconvolution_doubles_the_size_and_counts_only_real_products():
    assert UPCONV.output_shape((64, 13, 7)) == (32, 26, 14)
    assert UPCONV.parameters == 64 * 32 * 16 + 32
    assert UPCONV.macs((64, 13, 7)) == 64 * 32 * 16 * 13 * 7  # each input pixel meets each kernel element once


def test_counts_add_up_over_layers():
    layers = (
        Layer("a", "conv", 3, 8, 3, 1, 1),
        Layer("b", "pool", kernel=2, stride=2),
        Layer("c", "fc", 8 * 4 * 4, 10),
    )
    assert shapes(layers, (3, 8, 8)) == [(8, 8, 8), (8, 4, 4), (10,)]
    assert parameters(layers) == 8 * 27 + 8 + 1280 + 10
    assert macs(layers, (3, 8, 8)) == 8 * 27 * 64 + 1280


@pytest.mark.parametrize("shape", [(63, 4, 4), (64,), (64, 4)])
def test_an_input_that_does_not_fit_is_named(shape):
    with pytest.raises(ValueError, match="layer deconv1"):
        UPCONV.output_shape(shape)


@pytest.mark.parametrize("change", [{"kind": "norm"}, {"activation": "gelu"}])
def test_unknown_kinds_and_activations_are_refused(change):
    with pytest.raises(ValueError, match="expected one of"):
        Layer.from_json({**UPCONV.to_json(), **change})
