"""The published rules written down again, plainly: one target at a time, float64, weights with gradients.

Nothing here is imported from train/optimize: networks are run layer by layer from their tables.
"""

from dataclasses import replace

import numpy as np
import torch

from deepsim.kernels.torch_layers import activate, apply_layer
from tests.bundles import NETWORKS, geometry_of, random_weights


class Plain:
    """The networks of a small bundle in float64, their weights with gradients, as bdpy has them."""

    def __init__(self, name="tiny"):
        self.encoder, self.generator = NETWORKS[name]
        self.geometry = geometry_of(name)
        encoder, generator = random_weights(name)
        self.weights = {"encoder": self._leaves(encoder), "generator": self._leaves(generator)}

    @staticmethod
    def _leaves(weights):
        return {key: torch.tensor(value, dtype=torch.float64, requires_grad=True) for key, value in weights.items()}

    def run(self, which, x):
        """Return the outputs of all layers, and those before an activation as NAME:linear."""
        found = {}
        for layer in getattr(self, which).layers:
            own = self.weights[which]
            pair = (own[f"{layer.name}.weight"], own[f"{layer.name}.bias"]) if layer.has_weights else (None, None)
            z = apply_layer(replace(layer, activation="none"), x, *pair)
            found[f"{layer.name}:linear"] = z
            x = found[layer.name] = activate(z.clone(), layer.activation)
        return found, x

    def picture(self, code):
        return self.run("generator", code[None])[1]

    def features(self, code):
        start, end = self.geometry.offset, self.geometry.offset + self.geometry.side
        return self.seen(self.picture(code)[:, :, start:end, start:end])

    def seen(self, picture):
        return {name: values[0] for name, values in self.run("encoder", picture)[0].items()}

    def gradient(self, loss_of, code):
        """Return the loss of a code and its gradient."""
        leaf = code.clone().requires_grad_()
        loss = loss_of(leaf)
        loss.backward()
        return float(loss.detach()), leaf.grad


def shares(targets):
    """icnn: 1 / |f|^2, scaled to sum to 1 over the layers of this one target."""
    weights = {name: 1 / float((values**2).sum()) for name, values in targets.items()}
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


def weighted_l2(networks, targets, weights):
    def loss(code):
        found = networks.features(code)
        return sum(weights[name] * ((found[name] - values) ** 2).sum() for name, values in targets.items())

    return loss


def linear(begin, end, t, iterations):
    return begin + t * (end - begin) / iterations


def gradient_descent(networks, loss_of, code, iterations, steps, momentum, decay, bounds):
    """icnn and bdpy: v = m v + g / mean|g|; h -= lr v; h *= 1 - decay; clip. Return what came before the last."""
    velocity, losses = torch.zeros_like(code), []
    for t in range(iterations):
        before = code
        loss, gradient = networks.gradient(loss_of, code)
        losses.append(loss)
        gradient = gradient / gradient.abs().mean()
        velocity = momentum * velocity + gradient
        code = code - linear(*steps, t, iterations) * velocity
        code = code * (1 - linear(*decay, t, iterations))
        if bounds is not None:
            code = code.clamp(*bounds)
    return before, losses


def dists_and_relative(found, target):
    """4 (1 - mean over channels of (S1 + S2) / 2) + |f - t|^2 / |t|^2."""
    c = 1e-6
    x, y = (
        found.flatten(1) if found.ndim > 1 else found[:, None],
        target.flatten(1) if target.ndim > 1 else target[:, None],
    )
    structure, texture = [], []
    for a, b in zip(x, y, strict=True):
        texture.append((2 * a.mean() * b.mean() + c) / (a.mean() ** 2 + b.mean() ** 2 + c))
        covariance = ((a - a.mean()) * (b - b.mean())).mean()
        variances = ((a - a.mean()) ** 2).mean() + ((b - b.mean()) ** 2).mean()
        structure.append((2 * covariance + c) / (variances + c))
    dists = 1 - sum((s + t) / 2 for s, t in zip(structure, texture, strict=True)) / len(texture)
    return 4 * dists + ((found - target) ** 2).sum() / (target**2).sum()


def total_variation(x):
    """Sum over channels and pixels of dx^2 + dy^2, forward differences, 0 behind the last row and column."""
    return ((x[:, 1:] - x[:, :-1]) ** 2).sum() + ((x[:, :, 1:] - x[:, :, :-1]) ** 2).sum()


def random_targets(networks, names, count, seed=0):
    """Return the features of ``count`` random codes of the generator, by layer: there is something to be found."""
    rng = np.random.default_rng(seed)
    rows = []
    with torch.no_grad():
        for _ in range(count):
            code = torch.tensor(np.maximum(rng.standard_normal(networks.generator.input_shape), 0) * 2)
            rows.append(networks.features(code))
    return {name: torch.stack([row[name] for row in rows]).float().double() for name in names}
