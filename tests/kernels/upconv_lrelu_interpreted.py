"""The operator's Triton kernels, run by Triton's interpreter on the CPU; started by test_upconv_lrelu_triton.py, as a
process is either one that interprets or one that does not. The interpreter multiplies no bfloat16."""

import pytest
import torch
from torch.nn import functional

from deepsim.kernels import reference, upconv_lrelu, upconv_lrelu_triton
from deepsim.kernels.upconv_lrelu_triton import Machine, before_activation, stacked_phases, tiles_for

LAST = torch.channels_last
# N, Ci, Co, H, W: whole and ragged tiles, several programs down and across, several steps, odd sizes, one pixel, three
# channels, and tiles of one phase (128 channels)
SHAPES = [(2, 64, 48, 9, 7), (3, 16, 16, 4, 4), (1, 40, 6, 5, 3), (2, 5, 3, 3, 4), (2, 32, 3, 13, 11), (1, 1, 1, 1, 1)]
SHAPES += [(3, 136, 128, 6, 5)]
EMPTY = (0, 16, 4, 3, 3)


@pytest.fixture(autouse=True)
def by_triton(monkeypatch):
    """The operator takes the kernels for tensors of the CPU too."""
    monkeypatch.setattr(upconv_lrelu, "in_triton", lambda x: x.dtype in upconv_lrelu.TRITON_DTYPES)


def case(shape, memory_format=LAST, bias=True, dtype=torch.float16):
    n, inputs, outputs, height, width = shape
    rng = torch.Generator().manual_seed(3)
    x = torch.randn(n, inputs, height, width, generator=rng).to(dtype, memory_format=memory_format)
    weight = (torch.randn(inputs, outputs, 4, 4, generator=rng) / (4 * inputs) ** 0.5).to(dtype)
    offset = torch.randn(outputs, generator=rng).to(dtype) if bias else None
    return tuple(each if each is None else each.requires_grad_() for each in (x, weight, offset))


def exact(x, weight, bias, slope):
    x, weight, bias = (each if each is None else each.detach().double() for each in (x, weight, bias))
    return functional.leaky_relu(functional.conv_transpose2d(x, weight, bias, 2, 1), slope)


def beyond_rounding(found, wanted):
    """Return the largest error of a value, beyond half a unit in the last place of fp16."""
    return float(((found.detach().double() - wanted).abs() - 2**-11 * wanted.abs()).max())


def error(found, wanted):
    return float((found.detach().double() - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, LAST], ids=["contiguous", "channels-last"])
@pytest.mark.parametrize("shape", SHAPES)
def test_values_are_rounded_once(shape, memory_format, bias):
    tensors = case(shape, memory_format, bias)
    y = upconv_lrelu.upconv_lrelu(*tensors, 0.3)
    assert y.is_contiguous(memory_format=memory_format) and y.dtype == torch.float16
    assert beyond_rounding(y, exact(*tensors, 0.3)) < 1e-5


@pytest.mark.parametrize("machine", [Machine(8, 1), Machine(8, 10**6), Machine(9, 1)], ids=str)
@pytest.mark.parametrize("shape", [SHAPES[0], (2, 64, 64, 7, 9), (1, 32, 256, 4, 3)])
def test_tiles_for_other_gpus(monkeypatch, shape, machine):
    monkeypatch.setattr(upconv_lrelu_triton, "_machine", lambda device: machine)
    tensors = case(shape)
    assert beyond_rounding(upconv_lrelu.upconv_lrelu(*tensors, 0.3), exact(*tensors, 0.3)) < 1e-5


@pytest.mark.parametrize("slope", [0.0, 1.0, 2.0])
def test_slopes(slope):
    tensors = case(SHAPES[2])
    assert beyond_rounding(upconv_lrelu.upconv_lrelu(*tensors, slope), exact(*tensors, slope)) < 1e-5


def test_values_are_the_twins():
    x, weight, bias = (each.detach() for each in case(SHAPES[3]))
    wanted = reference.upconv_lrelu(*(each.double().numpy() for each in (x, weight, bias)))
    assert error(upconv_lrelu.fused(x, weight, bias, 0.3), torch.from_numpy(wanted)) < 5e-4


def test_inputs_need_not_be_contiguous():
    x, weight, bias = case((2, 16, 16, 6, 8))
    column = torch.stack([bias, bias + 1], 1)[:, 1]
    for offset in (bias.repeat_interleave(2)[1::2], column, bias[:1].expand(16)):
        tensors = x[:, :, ::2, 1::2], weight.transpose(2, 3), offset
        assert error(upconv_lrelu.upconv_lrelu(*tensors), exact(*tensors, 0.3)) < 5e-4


def test_images_on_the_innermost_axis():
    x, weight, bias = case((16, 3, 5, 6, 3))
    inner = x.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2)
    assert torch.equal(upconv_lrelu.upconv_lrelu(inner, weight, bias), upconv_lrelu.upconv_lrelu(x, weight, bias))


@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_are_near_float64(shape):
    x, weight, bias = case(shape)
    y = upconv_lrelu.upconv_lrelu(x, weight, bias, 0.3)
    grad = torch.rand(y.shape, generator=torch.Generator().manual_seed(4)).half()
    found = torch.autograd.grad(y, (x, weight, bias), grad)
    wide = [each.detach().double().requires_grad_() for each in (x, weight, bias)]
    sides = torch.where(y.detach() > 0, 1.0, 0.3).double()  # those of what was rounded
    wanted = torch.autograd.grad(functional.conv_transpose2d(*wide, 2, 1), wide, grad.double() * sides)
    assert all(error(ours, theirs) < 2e-3 for ours, theirs in zip(found, wanted, strict=True))


@pytest.mark.parametrize("dtype", upconv_lrelu.TRITON_DTYPES)
@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (3, 130, 9, 8), (5, 4, 13, 10)])  # channels beyond a tile; many steps
def test_the_gradient_before_the_activation(shape, dtype, monkeypatch):
    monkeypatch.setattr(upconv_lrelu_triton, "_MOST_PROGRAMS", 4)
    rng = torch.Generator().manual_seed(6)
    grad, output = (torch.randn(shape, generator=rng).to(dtype, memory_format=LAST) for _ in range(2))
    masked, of_bias = before_activation(grad, output, 0.3)
    wanted = torch.where(output > 0, grad.float(), grad.float() * torch.tensor(0.3))
    unit = 0 if dtype == torch.float16 else 2**-7  # the interpreter cuts bfloat16 off instead of rounding
    torch.testing.assert_close(masked, wanted.to(dtype), rtol=unit, atol=0)
    assert masked.is_contiguous(memory_format=LAST)
    torch.testing.assert_close(of_bias, wanted.double().sum((0, 2, 3)).to(dtype), rtol=2e-2, atol=1e-2)


def test_only_what_needs_a_gradient_gets_one_and_no_bias_is_fine():
    x, weight, _ = case(SHAPES[1], bias=False)
    weight.requires_grad_(False)
    y = upconv_lrelu.upconv_lrelu(x, weight, None)
    (of_x,) = torch.autograd.grad(y.float().sum(), (x,))
    assert of_x.shape == x.shape and weight.grad is None
    wide = x.detach().double().requires_grad_()
    sides = torch.where(y.detach() > 0, 1.0, 0.3).double()
    (wanted,) = torch.autograd.grad(functional.conv_transpose2d(wide, weight.double(), None, 2, 1), wide, sides)
    assert error(of_x, wanted) < 2e-3


def test_no_images():
    x, weight, bias = case(EMPTY)
    y = upconv_lrelu.upconv_lrelu(x, weight, bias)
    assert y.shape == (0, 4, 6, 6)
    masked, of_bias = before_activation(y.detach(), y.detach(), 0.3)
    assert masked.shape == y.shape and not of_bias.any()


def test_the_operators_description_is_true():
    for shape in (SHAPES[2], EMPTY):
        torch.library.opcheck(torch.ops.deepsim.upconv_lrelu.default, (*case(shape), 0.3))
    x, weight, bias = (each.detach() for each in case(SHAPES[2]))
    y = upconv_lrelu.upconv_lrelu(x, weight, bias)
    for wanted in ([True, True, True], [False, True, False]):
        torch.library.opcheck(torch.ops.deepsim.upconv_lrelu_backward.default, (y, y, x, weight, 0.3, wanted))


def test_the_fast_gradient_is_taken(monkeypatch):
    calls = []
    before = upconv_lrelu_triton.before_activation
    monkeypatch.setattr(upconv_lrelu_triton, "before_activation", lambda *given: calls.append(given) or before(*given))
    tensors = case(SHAPES[1])
    upconv_lrelu.upconv_lrelu(*tensors).sum().backward()
    assert len(calls) == 1
    upconv_lrelu.upconv_lrelu(*tensors, 1.0).sum().backward()  # there is no activation
    assert len(calls) == 1


def test_too_many_windows_are_refused():
    x = torch.zeros(1, 1, 1, 1, dtype=torch.float16).expand(2**29, 1, 1, 1)
    with pytest.raises(ValueError, match=r"2147483648 windows, expected fewer than 2147482624\. Split"):
        upconv_lrelu_triton.upconv_lrelu(x, torch.zeros(1, 1, 4, 4, dtype=torch.float16), None, 0.3, x)


@pytest.mark.parametrize("order", [torch.contiguous_format, LAST])
@pytest.mark.parametrize(("inputs", "outputs"), [(5, 3), (512, 256), (33, 40)])
def test_phases_are_filled_up_with_zeros(inputs, outputs, order):
    tiles = tiles_for(inputs, outputs, 1000, Machine(8, 1))
    weight = torch.randn(inputs, outputs, 4, 4).to(memory_format=order)
    phases = stacked_phases(weight, tiles)
    assert phases.shape[1] % tiles.depth == phases.shape[2] % tiles.columns == 0
    assert not phases[:, inputs:].any() and not phases[:, :, 4 * outputs :].any()
    for r, s, a, b in ((1, 0, 0, 1), (0, 0, 1, 1), (0, 1, 1, 0)):
        column = (2 * a + b) * outputs
        taken = phases[2 * r + s, :inputs, column : column + outputs]
        assert torch.equal(taken, weight[:, :, 2 * r + a, 2 * s + b])
