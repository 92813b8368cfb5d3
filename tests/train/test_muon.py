"""Muon: which matrix a weight is, how it is orthogonalised, and its step against a plain transcription."""

import math

import pytest

torch = pytest.importorskip("torch")

from torch.nn import functional  # noqa: E402

from deepsim.kernels.activations import UnknownLayerError  # noqa: E402
from deepsim.kernels.layers import Layer  # noqa: E402
from deepsim.train.muon import Muon, matrix_of, orthogonalised, weight_of  # noqa: E402

RNG = torch.Generator().manual_seed(3)
LAYERS = [
    Layer("fc", "fc", 5, 7),
    Layer("conv", "conv", 4, 6, 3, 1, 1),
    Layer("up", "deconv", 4, 3, 4, 2, 1),
    Layer("odd", "deconv", 4, 3, 5, 2, 2),
    Layer("turned", "deconv", 4, 3, 3, 1, 1),
]


def weight_like(layer):
    return torch.randn(layer.weight_shape, generator=RNG)


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)
def test_a_matrix_becomes_the_weight_again(layer):
    weight = weight_like(layer)
    assert torch.equal(weight_of(layer, matrix_of(layer, weight)), weight)


def test_the_matrix_of_a_convolution_maps_a_patch_to_a_place():
    layer, x = LAYERS[1], torch.randn(1, 4, 3, 3, generator=RNG)
    weight = weight_like(layer)
    torch.testing.assert_close(matrix_of(layer, weight) @ x.flatten(), functional.conv2d(x, weight).flatten())


@pytest.mark.parametrize("layer", LAYERS[2:], ids=lambda layer: layer.name)
def test_the_matrix_of_a_transposed_convolution_maps_a_patch_to_a_block(layer):
    """All taps that fall on one block of stride x stride outputs, from as many inputs as reach it."""
    taps = math.ceil(layer.kernel / layer.stride)
    weight, x = weight_like(layer), torch.randn(1, layer.inputs, taps, taps, generator=RNG)
    whole = functional.conv_transpose2d(x, weight, stride=layer.stride)
    first = (taps - 1) * layer.stride  # the block that every input reaches
    block = whole[0, :, first : first + layer.stride, first : first + layer.stride]
    turned = x.flip((2, 3)).flatten()  # tap 0 comes from the last input
    found = (matrix_of(layer, weight) @ turned).reshape(layer.stride, layer.stride, layer.outputs)
    torch.testing.assert_close(found.permute(2, 0, 1), block)


@pytest.mark.parametrize("shape", [(8, 20), (20, 8), (6, 6)])
def test_singular_values_come_near_one(shape):
    matrix = torch.randn(shape, generator=RNG) * 1e-4
    values = torch.linalg.svdvals(orthogonalised(matrix))
    assert float(values.max()) < 1.3
    assert float(values[: min(shape) - 1].min()) > 0.3  # the smallest of a square one may be near 0 itself
    assert torch.equal(orthogonalised(torch.zeros(shape)), torch.zeros(shape))


def test_a_step_is_the_published_rule():
    layer, rate = LAYERS[1], 0.01
    weight, bias = torch.nn.Parameter(weight_like(layer)), torch.nn.Parameter(torch.zeros(6))
    groups = [{"params": [bias], "weight_decay": 0.0}, {"params": [weight], "weight_decay": 0.1, "layers": [layer]}]
    optimizer = Muon(groups, lr=rate, betas=(0.9, 0.999))
    expected, momentum = weight.detach().clone(), torch.zeros(6, 36)
    other = torch.nn.Parameter(torch.zeros(6))
    adam = torch.optim.Adam([other], lr=rate)
    for _ in range(3):
        pull, push = torch.randn(weight.shape, generator=RNG), torch.randn(6, generator=RNG)
        weight.grad, bias.grad, other.grad = pull.clone(), push.clone(), push.clone()
        optimizer.step()
        adam.step()
        gradient = (pull + 0.1 * expected).reshape(6, 36)
        momentum = 0.95 * momentum + 0.05 * gradient
        direction = orthogonalised(0.05 * gradient + 0.95 * momentum)
        expected = expected - rate * 0.2 * math.sqrt(36) * direction.reshape(weight.shape)
        torch.testing.assert_close(weight.detach(), expected, rtol=1e-4, atol=1e-6)
        assert torch.equal(bias, other)


def test_a_layer_without_a_known_map_is_refused():
    layer = Layer("pool", "pool", kernel=2, stride=2)
    with pytest.raises(UnknownLayerError, match="Muon"):
        matrix_of(layer, torch.zeros(1, 1, 2, 2))
