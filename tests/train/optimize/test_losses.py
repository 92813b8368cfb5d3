"""Losses and priors against autograd and against SciPy."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from deepsim.runtime.errors import DataError  # noqa: E402
from deepsim.train.optimize import priors  # noqa: E402
from deepsim.train.optimize.layer_weights import weigh  # noqa: E402
from deepsim.train.optimize.losses import LOSSES, Mix, add_loss  # noqa: E402
from tests.train.optimize.plain import dists_and_relative  # noqa: E402


def drawn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


PLAIN = {
    "l2": lambda f, t: ((f - t) ** 2).sum(),
    "l1": lambda f, t: (f - t).abs().sum(),
    "inner": lambda f, t: -(f * t).sum(),
    "gram": lambda f, t: ((f.flatten(1) @ f.flatten(1).T - t.flatten(1) @ t.flatten(1).T) ** 2).sum(),
    "class": lambda f, t: -(t * f.log_softmax(0)).sum(),
    "dists": dists_and_relative,
}


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", LOSSES)
def test_losses_and_gradients(name, masked):
    assert set(PLAIN) == set(LOSSES)
    shape = (6,) if name == "class" else (3, 4, 5)
    features, target, weight = drawn(2, *shape), drawn(2, *shape, seed=1), torch.tensor([0.5, 3.0], dtype=torch.float64)
    mask = (drawn(*shape, seed=2) > 0).double() if masked else None
    incoming = drawn(2, *shape, seed=4)
    leaf = features.clone().requires_grad_()
    kept = 1 if mask is None else mask
    wanted = torch.stack([weight[row] * PLAIN[name](leaf[row] * kept, target[row] * kept) for row in range(2)])
    wanted.sum().backward()
    for before in (None, incoming):
        given = None if before is None else before.clone()
        values, gradient = add_loss(name, features.clone(), target, weight, given, mask, Mix())
        assert torch.allclose(values, wanted.detach())
        assert torch.allclose(gradient, leaf.grad if before is None else leaf.grad + before)


def test_layer_weights_are_each_targets_own():
    targets = {"a": torch.tensor([[3.0, 4.0], [1.0, 0.0]]), "b": torch.tensor([[5.0], [2.0]])}
    names = ("x", "y")
    assert weigh("one", targets, names, {}, {})["b"].tolist() == [1, 1]
    assert weigh("equal", targets, names, {"b": 4.0}, {})["b"].tolist() == [2, 2]
    assert weigh("norm", targets, names, {}, {})["a"].tolist() == pytest.approx([1 / 25, 1])
    shares = weigh("shares", targets, names, {}, {})
    assert shares["a"].tolist() == pytest.approx([0.5, 0.8])
    assert shares["b"].tolist() == pytest.approx([0.5, 0.2])
    masked = weigh("norm", targets, names, {}, {"a": torch.tensor([1.0, 0.0])})
    assert masked["a"].tolist() == pytest.approx([1 / 9, 1])


def test_a_target_of_zeros_has_no_weight_and_is_named():
    with pytest.raises(DataError, match="target y: b is all zeros"):
        weigh("shares", {"b": torch.tensor([[1.0], [0.0]])}, ("x", "y"), {}, {})


@pytest.mark.parametrize("of_colors", [False, True])
def test_priors_and_their_gradients(of_colors):
    x = drawn(2, 3, 4, 5).requires_grad_()
    tv, slope = priors.total_variation(x.detach())
    power, power_slope = priors.sixth_power(x.detach(), of_colors)
    wanted_tv = (x[:, :, 1:] - x[:, :, :-1]).square().sum((1, 2, 3)) + (x[..., 1:] - x[..., :-1]).square().sum(
        (1, 2, 3)
    )
    wanted_power = ((x.square().sum(1) ** 3) if of_colors else (x**6).sum(1)).sum((1, 2))
    for found, gradient, wanted in ((tv, slope, wanted_tv), (power, power_slope, wanted_power)):
        (expected,) = torch.autograd.grad(wanted.sum(), x)
        assert torch.allclose(found, wanted.detach())
        assert torch.allclose(gradient, expected)


@pytest.mark.parametrize("sigma", [0.5, 2.0])
def test_blur_is_scipys(sigma):
    ndimage = pytest.importorskip("scipy.ndimage")
    x = drawn(1, 3, 9, 7)
    wanted = np.stack([ndimage.gaussian_filter(channel, sigma) for channel in x[0].numpy()])
    assert np.abs(priors.blur(x, sigma)[0].numpy() - wanted).max() < 1e-12


def test_colours_are_shortened_not_turned():
    x = torch.tensor([3.0, 0.0, 4.0]).view(1, 3, 1, 1)
    assert priors.project_colors(x, 2.5).flatten().tolist() == pytest.approx([1.5, 0, 2])
    assert priors.project_colors(x, 6).flatten().tolist() == pytest.approx([3, 0, 4])
