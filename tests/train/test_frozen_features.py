"""Features of frozen encoders for training, against autograd through the encoder itself."""

import pytest

torch = pytest.importorskip("torch")

from deepsim.runtime.networks import ALEXNET, CAFFENET  # noqa: E402
from deepsim.train.encoders import pink_noise, random_encoder  # noqa: E402
from deepsim.train.frozen_features import FrozenFeatures  # noqa: E402
from deepsim.train.networks import to_image_space  # noqa: E402


def gradient_of(features, images, names):
    """Return the features of the named layers, and the gradient of their weighted sum at the images."""
    leaf = images.clone().requires_grad_()
    found = features(leaf, names)
    rng = torch.Generator().manual_seed(5)
    sum((value.float() * torch.randn(value.shape, generator=rng)).sum() for value in found.values()).backward()
    return {name: value.detach() for name, value in found.items()}, leaf.grad


@pytest.mark.parametrize(("spec", "names"), [(CAFFENET, ["norm1", "conv3"]), (ALEXNET, ["pool2"])])
def test_features_and_gradients_are_those_of_the_encoder(spec, names):
    encoder = random_encoder(spec, names[-1], seed=1)
    images = to_image_space(pink_noise(2, spec.input_shape[-1], seed=2))
    wanted, pull = gradient_of(encoder.features, images, names)
    found, own = gradient_of(FrozenFeatures(encoder, torch.float32), images, names)
    assert list(found) == names
    for name in names:
        torch.testing.assert_close(found[name], wanted[name], rtol=1e-4, atol=1e-5)
    difference, largest = (own - pull).abs().flatten(), float(pull.abs().max())
    assert float(difference.median()) < 1e-6 * largest
    assert float(difference.norm() / pull.norm()) < 0.05  # where two pixels of a pool nearly tie, rounding decides


def test_no_gradient_is_kept_where_none_is_wanted():
    encoder = random_encoder(CAFFENET, "norm1", seed=1)
    found = FrozenFeatures(encoder, torch.float32)(to_image_space(pink_noise(1, 227, seed=2)), ["norm1"])["norm1"]
    assert not found.requires_grad


def test_bfloat16_has_its_own_precision_only():
    encoder = random_encoder(CAFFENET, "norm2", seed=1)
    images = to_image_space(pink_noise(2, 227, seed=2))
    wanted, pull = gradient_of(FrozenFeatures(encoder, torch.float32), images, ["norm2"])
    with torch.autocast("cpu", torch.bfloat16):
        found, own = gradient_of(FrozenFeatures(encoder, torch.bfloat16), images, ["norm2"])
    assert found["norm2"].dtype == torch.bfloat16
    assert own.dtype == torch.float32
    exact = wanted["norm2"]
    assert float((found["norm2"] - exact).norm() / exact.norm()) < 0.02
    assert float((own - pull).norm() / pull.norm()) < 0.3  # rectifiers and pools choose differently now and then


def test_a_gradient_that_is_asked_for_twice_is_refused():
    encoder = random_encoder(CAFFENET, "norm1", seed=1)
    leaf = to_image_space(pink_noise(1, 227, seed=2)).requires_grad_()
    loss = FrozenFeatures(encoder, torch.float32)(leaf, ["norm1"])["norm1"].sum()
    loss.backward(retain_graph=True)
    with pytest.raises(ValueError, match="no gradient"):
        loss.backward()
