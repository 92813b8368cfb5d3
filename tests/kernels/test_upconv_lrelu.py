"""The operator deepsim::upconv_lrelu: values and gradients against the twin, PyTorch and finite differences."""

import shutil

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.nn import functional  # noqa: E402

from deepsim.kernels import reference  # noqa: E402
from deepsim.kernels.upconv_lrelu import FEW_CHANNELS, stacked, transposed, upconv_lrelu  # noqa: E402

LAST = torch.channels_last
# N, Ci, Co, H, W: odd sizes, one pixel, few and many output channels, no image
SHAPES = [(2, 5, 3, 3, 4), (1, 4, 6, 5, 3), (2, 3, FEW_CHANNELS + 1, 1, 1), (1, 1, 1, 1, 2), (0, 3, 2, 4, 4)]


def case(shape, dtype=torch.float64, bias=True, memory_format=torch.contiguous_format):
    n, inputs, outputs, height, width = shape
    rng = torch.Generator().manual_seed(5)
    x = torch.randn(n, inputs, height, width, generator=rng, dtype=dtype)
    weight = torch.randn(inputs, outputs, 4, 4, generator=rng, dtype=dtype)
    offset = torch.randn(outputs, generator=rng, dtype=dtype) if bias else None
    tensors = x.to(memory_format=memory_format), weight.to(memory_format=memory_format), offset
    return tuple(each if each is None else each.requires_grad_() for each in tensors)


def plain(x, weight, bias, slope=0.3):
    return functional.leaky_relu(functional.conv_transpose2d(x, weight, bias, 2, 1), slope)


def assert_same(operator, expected, tensors, **tolerance):
    """Compare the outputs and, for a random gradient of the output, all gradients."""
    wanted_of = [each for each in tensors if each is not None]
    torch.testing.assert_close(operator, expected, check_stride=False, **tolerance)
    grad = torch.randn(expected.shape, dtype=expected.dtype)
    found, wanted = (torch.autograd.grad(each, wanted_of, grad, retain_graph=True) for each in (operator, expected))
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, check_stride=False, **tolerance)


@pytest.mark.parametrize("shape", SHAPES[:4])
def test_values_are_the_twins(shape):
    x, weight, bias = (each.detach() for each in case(shape))
    expected = reference.upconv_lrelu(x.numpy(), weight.numpy(), bias.numpy())
    for compute in (upconv_lrelu, transposed, stacked):
        np.testing.assert_allclose(compute(x, weight, bias, 0.3).numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, LAST], ids=["contiguous", "channels-last"])
@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_gradients_are_pytorchs(shape, memory_format, bias):
    tensors = case(shape, bias=bias, memory_format=memory_format)
    for slope in (0.3, 0.0, 1.0, 2.0):
        operator = upconv_lrelu(*tensors, slope)
        assert operator.shape == (shape[0], shape[2], 2 * shape[3], 2 * shape[4])
        assert_same(operator, plain(*tensors, slope), tensors, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("shape", [SHAPES[0], SHAPES[2]])
@pytest.mark.parametrize("slope", [0.3, 1.0])
def test_gradients_are_those_of_finite_differences(shape, slope):
    tensors = case(shape)
    assert torch.autograd.gradcheck(lambda *inputs: upconv_lrelu(*inputs, slope), tensors, fast_mode=True)


def test_only_what_needs_a_gradient_gets_one():
    x, weight, bias = case(SHAPES[0])
    weight.requires_grad_(False)
    upconv_lrelu(x, weight, bias).sum().backward()
    assert weight.grad is None
    wanted = torch.autograd.grad(plain(x, weight, bias).sum(), (x, bias))
    torch.testing.assert_close((x.grad, bias.grad), wanted)


@pytest.mark.parametrize("outputs", [3, 8])
def test_memory_order_is_kept(outputs):
    for memory_format in (torch.contiguous_format, LAST):
        x, weight, bias = case((2, 5, outputs, 3, 4), memory_format=memory_format)
        y = upconv_lrelu(x, weight, bias)
        gradients = torch.autograd.grad(y.square().sum(), (x, weight))
        assert all(each.is_contiguous(memory_format=memory_format) for each in (y, *gradients))


def test_inputs_need_not_be_contiguous():
    x, weight, bias = case((2, 5, 3, 6, 8))
    tensors = x[:, :, ::2, 1::2], weight.transpose(2, 3), bias.flip(0)
    assert_same(upconv_lrelu(*tensors), plain(*tensors), (x, weight, bias))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-2), (torch.float16, 2e-3)])
@pytest.mark.parametrize("outputs", [3, 8])
def test_lower_precisions_are_near_float64(dtype, tolerance, outputs):
    tensors = case((2, 16, outputs, 5, 4), dtype)
    wide = [each.detach().double() for each in tensors]
    y, expected = upconv_lrelu(*tensors).detach(), plain(*wide)
    assert y.dtype == dtype
    assert float((y.double() - expected).norm() / expected.norm()) < tolerance


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, LAST], ids=["contiguous", "channels-last"])
def test_the_operators_description_is_true(shape, memory_format):
    for bias in (True, False):
        tensors = case(shape, torch.float32, bias, memory_format)
        torch.library.opcheck(torch.ops.deepsim.upconv_lrelu.default, (*tensors, 0.3))
    x, weight = (each.detach() for each in tensors[:2])
    y = upconv_lrelu(x, weight, None)
    for wanted in ([True, True, True], [False, True, False]):
        torch.library.opcheck(torch.ops.deepsim.upconv_lrelu_backward.default, (y, y, x, weight, 0.3, wanted))


@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler")
def test_torch_compile_traces_through_it():
    tensors = case((2, 5, 3, 3, 4), torch.float32)
    compiled = torch.compile(lambda *inputs: 2 * upconv_lrelu(*inputs), fullgraph=True)
    assert_same(compiled(*tensors), 2 * plain(*tensors), tensors, rtol=1e-4, atol=1e-4)


def test_autocast_casts_to_its_dtype():
    x, weight, bias = case(SHAPES[0], torch.float32)
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast("cpu", dtype):
            y = upconv_lrelu(x, weight, bias)
        assert y.dtype == dtype
        expected = upconv_lrelu(x.to(dtype), weight.to(dtype), bias.to(dtype))
        torch.testing.assert_close(y, expected, rtol=0, atol=0)
        gradients = torch.autograd.grad(y.float().sum(), (x, weight, bias))
        assert all(each.dtype == torch.float32 for each in gradients)
    with torch.autocast("cpu"):
        assert upconv_lrelu(*case(SHAPES[0])).dtype == torch.float64


def test_a_second_derivative_is_refused():
    x, weight, bias = case(SHAPES[0])
    (grad,) = torch.autograd.grad(upconv_lrelu(x, weight, bias).square().sum(), x, create_graph=True)
    with pytest.raises(NotImplementedError, match="upconv_lrelu: second derivative"):
        grad.sum().backward()


REFUSED = {
    "weight of shape (5, 3, 3, 3), expected (Ci, Co, 4, 4)": {"weight": torch.zeros(5, 3, 3, 3)},
    "x of shape (2, 4, 3, 4), expected (N, 5, H, W)": {"x": torch.zeros(2, 4, 3, 4)},
    "x of shape (5, 3, 4), expected (N, 5, H, W)": {"x": torch.zeros(5, 3, 4)},
    "x of shape (2, 5, 0, 4), expected (N, 5, H, W)": {"x": torch.zeros(2, 5, 0, 4)},
    "bias of shape (5,), expected (3,) or None": {"bias": torch.zeros(5)},
    "negative_slope -0.1, expected 0 or more": {"negative_slope": -0.1},
    "negative_slope nan, expected 0 or more": {"negative_slope": float("nan")},
    "tensors on cpu, meta, cpu, expected one device": {"weight": torch.zeros(5, 3, 4, 4, device="meta")},
    "dtypes torch.float32, torch.float64, torch.float32, expected one of": {
        "weight": torch.zeros(5, 3, 4, 4, dtype=torch.float64)
    },
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_does_not_fit_is_named(message):
    fitting = {"x": torch.zeros(2, 5, 3, 4), "weight": torch.zeros(5, 3, 4, 4), "bias": torch.zeros(3)}
    with pytest.raises((ValueError, TypeError)) as error:
        upconv_lrelu(**{**fitting, "negative_slope": 0.3, **REFUSED[message]})
    assert message in str(error.value)
