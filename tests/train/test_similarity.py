"""SSIM and MS-SSIM: against other programs' values, a plain transcription of Wang's code, and their gradients."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from deepsim.runtime.errors import DtypeError, ShapeError, UsageError  # noqa: E402
from deepsim.train.similarity import WANG_WEIGHTS, Similarity, as_images, both, halve, ms_ssim, ssim  # noqa: E402
from tests.train.similarity_pairs import pair  # noqa: E402

# Computed once: piq 0.8.0 in float64 (its weights have the sum 1), TensorFlow 2.21.0 in float32 (as they are).
PIQ = {
    240: ([0.5997302116946849, 0.09032272486901631], [0.921726171255033, 0.6554259360315737]),
    176: ([0.5889277307404394, 0.07811387370085794], [0.9199608250447008, 0.6470478940518628]),
}
PIQ_THREE = {240: [0.8514356935333014, 0.43554717421820777], 176: [0.8473028686568673, 0.42069394714022706]}
TENSORFLOW = {
    227: ([0.5951979160308838, 0.07638799399137497], [0.9213681817054749, 0.639742910861969]),
    181: ([0.5859353542327881, 0.07796698063611984], [0.9194257855415344, 0.6439688801765442]),
}
NORMALISED = tuple(weight / sum(WANG_WEIGHTS) for weight in WANG_WEIGHTS)


def tensors(side):
    return tuple(map(torch.from_numpy, pair(side)))


@pytest.mark.parametrize("side", PIQ)
def test_even_sides_equal_piq(side):
    x, y = tensors(side)
    single, multiple = both(x, y, Similarity(NORMALISED))
    assert single.tolist() == pytest.approx(PIQ[side][0], abs=1e-13)
    assert multiple.tolist() == pytest.approx(PIQ[side][1], abs=1e-13)
    assert ms_ssim(x, y, Similarity((0.2, 0.3, 0.5))).tolist() == pytest.approx(PIQ_THREE[side], abs=1e-13)


@pytest.mark.parametrize("side", TENSORFLOW)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_odd_sides_equal_tensorflow(side, dtype):
    x, y = (image.to(dtype) for image in tensors(side))
    assert ssim(x, y).tolist() == pytest.approx(TENSORFLOW[side][0], abs=2e-6)
    assert ms_ssim(x, y).tolist() == pytest.approx(TENSORFLOW[side][1], abs=2e-6)


def plain_scale(x, y, window=11, sigma=1.5):
    """Return (mean SSIM, mean contrast) of two grey images by loops over the places, as Wang's ssim_index does."""
    half = window // 2
    kernel = np.array(
        [[np.exp(-(i * i + j * j) / 2 / sigma**2) for j in range(-half, half + 1)] for i in range(-half, half + 1)]
    )
    kernel /= kernel.sum()
    c1, c2, whole, contrast = (0.01 * 255) ** 2, (0.03 * 255) ** 2, [], []
    for i in range(x.shape[0] - window + 1):
        for j in range(x.shape[1] - window + 1):
            a, b = (image[i : i + window, j : j + window] for image in (x, y))
            mean_a, mean_b = (kernel * a).sum(), (kernel * b).sum()
            covariance = (kernel * (a - mean_a) * (b - mean_b)).sum()
            variances = (kernel * (a - mean_a) ** 2).sum() + (kernel * (b - mean_b) ** 2).sum()
            contrast.append((2 * covariance + c2) / (variances + c2))
            whole.append(contrast[-1] * (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1))
    return np.mean(whole), np.mean(contrast)


def test_an_oblong_equals_loops_over_places_and_channels_are_apart():
    x, y = (image[:1, :2, :23, :31].numpy() for image in tensors(64))
    factors = []
    for channel in range(2):
        a, b = x[0, channel], y[0, channel]
        _, fine = plain_scale(a, b)
        down = [(np.pad(image, ((0, 1), (0, 1)), mode="symmetric")) for image in (a, b)]
        coarse = [(d[:-1:2, :-1:2] + d[1::2, :-1:2] + d[:-1:2, 1::2] + d[1::2, 1::2]) / 4 for d in down]
        factors.append(fine**0.3 * plain_scale(*coarse)[0] ** 0.7)
    how = Similarity((0.3, 0.7))
    assert ms_ssim(*map(torch.from_numpy, (x, y)), how).item() == pytest.approx(np.mean(factors), abs=1e-12)


def test_halving_keeps_ceil_and_mirrors_the_border():
    x = torch.arange(15.0, dtype=torch.float64).view(1, 1, 3, 5)
    assert halve(x).tolist() == [[[[3.0, 5.0, 6.5], [10.5, 12.5, 14.0]]]]


def inverted():
    x, _ = (image[:1] for image in tensors(176))
    return x, 255 - x


def test_a_negative_scale_is_clamped_signed_or_kept():
    x, y = inverted()
    low = y.clone().requires_grad_()
    value = ms_ssim(x, low)
    value.sum().backward()
    assert value.item() == 0 and low.grad.abs().sum().item() == 0  # and no NaN
    signed = ms_ssim(x, y.requires_grad_(), Similarity(negative="signed"))
    signed.sum().backward()
    assert signed.item() != 0 and torch.isfinite(y.grad).all() and y.grad.abs().sum() > 0
    ones = (1.0, 1.0, 1.0)
    kept = ms_ssim(x, y.detach(), Similarity(ones, negative="keep"))
    assert kept.item() == pytest.approx(ms_ssim(x, y.detach(), Similarity(ones, negative="signed")).item())


@pytest.mark.parametrize("how", [Similarity((0.4, 0.6), window=5), Similarity((1.0, 1.0), window=5, negative="keep")])
def test_gradients_equal_differences(how):
    x, y = (image[:1, :2, :10, :9].contiguous() for image in tensors(40))
    assert torch.autograd.gradcheck(lambda a: ms_ssim(x, a, how), y.requires_grad_(), eps=1e-4, atol=1e-7)
    assert torch.autograd.gradcheck(lambda a: ssim(x, a, how), y.detach().requires_grad_(), eps=1e-4, atol=1e-7)


def test_descending_it_brings_an_image_nearer():
    x, y = (image[:1, :1].float() for image in tensors(48))
    how, moved = Similarity().at(48), y.clone()
    for _ in range(6):
        moved.requires_grad_()
        (gradient,) = torch.autograd.grad((1 - ms_ssim(x, moved, how)).sum(), moved)
        moved = moved.detach() - 2 * gradient.sign()
    assert ms_ssim(x, moved, how).item() > ms_ssim(x, y, how).item() + 0.02


def test_scales_that_do_not_fit_are_refused_or_left_out_by_name():
    how = Similarity()
    assert (how.smallest_side, how.at(160).scales, how.at(80).scales, how.at(11).scales) == (161, 4, 3, 1)
    assert sum(how.at(96).weights) == pytest.approx(1) and how.at(96).weights[0] == pytest.approx(0.0448 / 0.8668)
    assert Similarity((1.0, 1.0, 1.0)).at(21).weights == (1.0, 1.0)
    x, y = tensors(160)
    with pytest.raises(ShapeError, match="similarity: 160 x 160 pixels, expected at least 161"):
        ms_ssim(x, y)
    assert ms_ssim(x, y, how.at(160)).shape == (2,)
    with pytest.raises(ShapeError, match="side 10: smaller than the window"):
        how.at(10)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"weights": ()}, "weights"),
        ({"weights": (float("nan"),)}, "weights"),
        ({"window": 10}, "window 10"),
        ({"sigma": 0.0}, "sigma 0"),
        ({"negative": "other"}, "negative 'other'"),
        ({"negative": "keep"}, "expected exponents of 1"),
    ],
)
def test_options_out_of_range_are_refused(changes, found):
    with pytest.raises(UsageError, match=found):
        Similarity(**changes)


def test_inputs_that_do_not_fit_are_refused():
    x = torch.zeros(1, 3, 32, 32)
    with pytest.raises(ShapeError):
        ssim(x, x[:, :2])
    with pytest.raises(DtypeError):
        ssim(x.byte(), x.byte())
    with pytest.raises(DtypeError):
        ssim(x, x.double())


def test_photographs_become_images():
    rgb = np.arange(24, dtype=np.uint8).reshape(1, 2, 4, 3)
    assert as_images(rgb)[0, 2, 1, 3].item() == rgb[0, 1, 3, 2]
