"""Frozen tables against autograd in float64: values at every tap, gradients, and where a pass ends."""

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from deepsim.kernels.activations import UnknownLayerError  # noqa: E402
from deepsim.kernels.layers import Layer  # noqa: E402
from deepsim.runtime.errors import UsageError  # noqa: E402
from deepsim.train import frozen_layers  # noqa: E402
from deepsim.train.frozen import FrozenTable  # noqa: E402
from deepsim.train.optimize.place import Place  # noqa: E402
from tests.bundles import NETWORKS, random_weights  # noqa: E402
from tests.train.optimize.plain import Plain  # noqa: E402

EXACT = Place(precision="fp64")


def table_of(which, name, place=EXACT):
    spec = NETWORKS[name][which == "generator"]
    weights = {key: torch.from_numpy(value) for key, value in random_weights(name)[which == "generator"].items()}
    return FrozenTable(name, spec.layers, spec.input_shape, weights, place.put)


@pytest.mark.parametrize("name", ["tiny", "tiny-rgb", "small", "early"])
@pytest.mark.parametrize("which", ["encoder", "generator"])
def test_a_gradient_at_every_tap_is_autograds(which, name):
    table, networks = table_of(which, name), Plain(name)
    x = torch.randn(2, *table.input_shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    leaf = x.clone().requires_grad_()
    wanted, _ = networks.run(which, leaf)
    pulls = {tap: torch.randn_like(wanted[tap].detach()) for tap in table.taps}
    sum((wanted[tap] * pull).sum() for tap, pull in pulls.items()).backward()
    found = table.run(x, table.taps)
    for tap in table.taps:
        assert torch.allclose(found.values[tap], wanted[tap].detach(), rtol=1e-9, atol=1e-9), tap

    def add(tap, features, incoming):
        return pulls[tap].clone() if incoming is None else incoming + pulls[tap]

    assert torch.allclose(found.backward(add), leaf.grad, rtol=1e-7, atol=1e-9 * float(leaf.grad.abs().max()))


def test_a_pass_ends_at_the_last_tap(monkeypatch):
    table, run = table_of("encoder", "tiny"), []
    forward = frozen_layers.forward
    monkeypatch.setattr(
        frozen_layers, "forward", lambda layer, *others: run.append(layer.name) or forward(layer, *others)
    )
    table.run(torch.zeros(1, *table.input_shape, dtype=torch.float64), ("conv1:linear", "pool1"))
    assert run == ["conv1", "pool1"]


def test_weights_have_no_gradients_and_are_not_copied():
    weights = {key: torch.from_numpy(value) for key, value in random_weights("tiny")[0].items()}
    spec = NETWORKS["tiny"][0]
    table = FrozenTable("tiny", spec.layers, spec.input_shape, weights, Place().put)
    kept = [tensor for own in table._weights for tensor in own[:2] if tensor is not None]
    assert not any(tensor.requires_grad for tensor in kept)
    assert kept[-2].data_ptr() == weights["fc6.weight"].data_ptr()


def test_an_unknown_layer_is_named_with_those_there_are():
    with pytest.raises(UsageError, match=r"tiny: no layer 'conv9', it has conv1, pool1"):
        table_of("encoder", "tiny").run(torch.zeros(1, 3, 227, 227, dtype=torch.float64), ("conv9",))


def test_layers_in_single_precision_match_the_plain_ones():
    table, networks = table_of("encoder", "tiny", Place()), Plain("tiny")
    x = torch.randn(2, *table.input_shape, generator=torch.Generator().manual_seed(0)) * 50
    wanted, _ = networks.run("encoder", x.double())
    found = table.features(x, ("norm1", "fc6"))
    for tap, values in found.items():
        assert (values - wanted[tap]).abs().max() < 1e-5 * wanted[tap].abs().max()


@pytest.mark.parametrize("function", ["forward", "backward"])
def test_an_unknown_kind_is_refused(function):
    layer = Layer("a", "pool", kernel=1)
    object.__setattr__(layer, "kind", "invented")
    x = torch.zeros(1, 1, 2, 2)
    own = frozen_layers.Weights()
    others = (x, own) if function == "forward" else (x, x, own, ())
    with pytest.raises(UnknownLayerError, match="the frozen network does not know kind 'invented'"):
        getattr(frozen_layers, function)(layer, *others)


def test_reshape_with_an_activation_leaves_its_input_alone():
    layer = replace(Layer("a", "reshape", shape=(2, 1, 1)), activation="relu")
    table = FrozenTable("a", (layer,), (2,), {}, Place())
    x = torch.tensor([[-1.0, 2.0]])
    assert table.run(x).output.flatten().tolist() == [0, 2]
    assert x.tolist() == [[-1, 2]]


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "side"),
    [(11, 4, 0, 227), (11, 4, 2, 63), (7, 2, 3, 20), (3, 4, 0, 12), (8, 8, 0, 21)],
)
def test_the_gradient_of_pictures_by_phases_is_autograds(kernel, stride, padding, side):
    layer = Layer("conv1", "conv", 3, 5, kernel, stride, padding)
    rng = torch.Generator().manual_seed(0)
    weight = torch.randn(layer.weight_shape, dtype=torch.float64, generator=rng)
    own = frozen_layers.Weights(weight, torch.zeros(5, dtype=torch.float64), frozen_layers.phases_of(layer, weight))
    x = torch.randn(2, 3, side, side, dtype=torch.float64, generator=rng, requires_grad=True)
    y, kept = frozen_layers.forward(layer, x, own)
    pull = torch.randn(y.shape, dtype=torch.float64, generator=rng)
    y.backward(pull)
    assert own.phases is not None
    found = frozen_layers.backward(layer, pull, x.detach(), own, kept)
    assert torch.allclose(found, x.grad, rtol=1e-9, atol=1e-10)
