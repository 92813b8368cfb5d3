"""Equations 1-5 against numpy on small tensors, in both normalisations."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from deepsim.train import losses  # noqa: E402

RNG = np.random.default_rng(5)
FAKE, REAL = RNG.standard_normal((2, 3, 4, 5, 2))
LOGITS_REAL, LOGITS_FAKE = 3 * RNG.standard_normal((2, 3, 2))


def tensor(array):
    return torch.from_numpy(array)


def probability_of_real(logits):
    exponentials = np.exp(logits)
    return exponentials[:, 0] / exponentials.sum(1)


@pytest.mark.parametrize("loss", [losses.feature_loss, losses.image_loss])
def test_squared_errors(loss):
    total = sum((a - b) ** 2 for a, b in zip(FAKE.flat, REAL.flat, strict=True))
    assert loss(tensor(FAKE), tensor(REAL), "paper").item() == pytest.approx(total, rel=1e-5)
    assert loss(tensor(FAKE), tensor(REAL), "release").item() == pytest.approx(total / (2 * 3), rel=1e-5)


def test_release_image_loss_in_terms_of_the_mean_squared_error():
    fake, real = 50 * torch.randn(2, 2, 3, 227, 227, generator=torch.Generator().manual_seed(0))
    mse = (fake - real).square().mean().item()
    assert 2e-6 * losses.image_loss(fake, real).item() == pytest.approx(0.1546 * mse, rel=1e-3)


def test_release_pool5_feature_loss_in_terms_of_the_mean_squared_error():
    fake, real = torch.randn(2, 2, 256, 6, 6, generator=torch.Generator().manual_seed(0))
    mse = (fake - real).square().mean().item()
    assert 0.01 * losses.feature_loss(fake, real).item() == pytest.approx(46.08 * mse, rel=1e-3)


@pytest.mark.parametrize(("normalisation", "reduce", "weight"), [("paper", np.sum, 1), ("release", np.mean, 100)])
def test_adversarial_terms(normalisation, reduce, weight):
    real, fake = tensor(LOGITS_REAL), tensor(LOGITS_FAKE)
    p_real, p_fake = probability_of_real(LOGITS_REAL), probability_of_real(LOGITS_FAKE)
    expected = weight * (reduce(-np.log(p_real)) + reduce(-np.log(1 - p_fake)))
    assert losses.discriminator_loss(real, fake, normalisation).item() == pytest.approx(expected, rel=1e-5)
    adversarial = reduce(-np.log(p_fake))
    assert losses.adversarial_loss(fake, normalisation).item() == pytest.approx(adversarial, rel=1e-5)
    assert losses.real_loss(real, normalisation).item() == pytest.approx(reduce(-np.log(p_real)), rel=1e-5)
    assert losses.fake_loss(fake, normalisation).item() == pytest.approx(reduce(-np.log(1 - p_fake)), rel=1e-5)


def test_half_precision_inputs_are_summed_in_fp32():
    large = torch.full((1, 1000), 300.0, dtype=torch.float16)  # squares overflow fp16
    assert losses.image_loss(large, torch.zeros_like(large), "paper").item() == 1000 * 300.0**2
