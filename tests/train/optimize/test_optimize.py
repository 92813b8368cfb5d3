"""Batches, starts, NaN, masks and the choice of a result, through the public call."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from deepsim.runtime.errors import DataError, ShapeError, UsageError  # noqa: E402
from deepsim.train.optimize import optimize_features  # noqa: E402
from tests.bundles import photographs, write_bundle, write_kind  # noqa: E402
from tests.train.optimize import plain  # noqa: E402

LAYERS = ("conv1", "norm1", "fc6:linear")
NAMES = ("a", "b", "c", "d", "e")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return str(write_bundle(tmp_path_factory.mktemp("bundle"), "tiny"))


@pytest.fixture(scope="module")
def targets():
    found = plain.random_targets(plain.Plain("tiny"), LAYERS, len(NAMES))
    return {layer: values.numpy() for layer, values in found.items()}


def optimize(bundle, targets, names=NAMES, preset="icnn-gd", iterations=6, **others):
    return optimize_features(
        bundle, targets, bundle, preset, names=names, device="cpu", iterations=iterations, **others
    )


@pytest.mark.parametrize("preset", ["icnn-gd", "icnn-lbfgs", "spurious"])
def test_a_target_gets_the_same_code_alone_and_in_any_batch(preset, bundle, targets):
    settings = {"preset": preset, "bounds": "0,3", "iterations": 4, "precision": "fp64"}
    together = optimize(bundle, targets, batch=3, **settings)  # of three and of two
    for row, name in list(enumerate(NAMES))[1:4]:
        alone = optimize(bundle, {layer: values[[row]] for layer, values in targets.items()}, [name], **settings)
        assert np.allclose(together.codes[row], alone.codes[0], rtol=1e-5, atol=1e-6)
        assert together.losses[row] == pytest.approx(alone.losses[0], rel=1e-6)


def test_single_precision_is_near(bundle, targets):
    exact, found = (optimize(bundle, targets, iterations=4, precision=word) for word in ("fp64", "fp32"))
    assert np.abs(found.codes - exact.codes).max() < 1e-2  # where a rectifier decides, rounding is amplified
    assert np.allclose(found.losses, exact.losses, rtol=1e-3)


def test_nan_ends_one_target_only(bundle, targets):
    broken = {layer: values.copy() for layer, values in targets.items()}
    broken["norm1"][2, 0, 3, 3] = np.nan
    found, whole = optimize(bundle, broken), optimize(bundle, targets)
    others = [0, 1, 3, 4]
    assert np.isnan(found.losses[2]) and found.ended.tolist() == [0, 0, 1, 0, 0]
    assert np.array_equal(found.codes[others], whole.codes[others])
    assert np.array_equal(found.images[others], whole.images[others])
    assert np.isfinite(found.codes[2]).all()


@pytest.mark.parametrize("preset", ["icnn-gd", "icnn-lbfgs"])
def test_a_target_that_diverges_keeps_its_best(preset, bundle, targets, monkeypatch):
    from deepsim.train.optimize.evaluation import Evaluated, Evaluator

    evaluate, calls = Evaluator.evaluate, []

    def diverging(self, variables, wanted, shifts=()):
        found = evaluate(self, variables, wanted, shifts)
        calls.append(found.loss[1].item() if len(found.loss) == len(NAMES) else None)
        if len(calls) == 4:
            loss = found.loss.clone()
            loss[1] = torch.inf
            return Evaluated(loss, found.layers, found.gradient, found.again)
        return found

    monkeypatch.setattr(Evaluator, "evaluate", diverging)
    found = optimize(bundle, targets, preset=preset, bounds="0,3")
    assert found.ended[1] == 4
    assert found.losses[1] == pytest.approx(min(calls[:3]))
    assert np.isfinite(found.losses).all() and not found.ended[[0, 2, 3, 4]].any()


def test_of_several_starts_the_best_is_kept(bundle, targets):
    several = optimize(bundle, targets, starts=3, batch=6)
    again = optimize(bundle, targets, starts=3, batch=15)
    assert np.array_equal(several.starts, again.starts) and set(several.starts) != {0}
    first = optimize(bundle, targets)
    assert (several.losses <= first.losses * (1 + 1e-5)).all()
    unchanged = several.starts == 0
    assert np.allclose(several.codes[unchanged], first.codes[unchanged], atol=1e-4)


def test_best_is_at_least_as_good_as_what_came_last(bundle, targets):
    last, best, final = (
        optimize(bundle, targets, keep=keep, step=20.0, bounds="none") for keep in ("evaluated", "best", "final")
    )
    assert (best.losses <= last.losses).all() and (best.losses < last.losses).any()
    assert not np.array_equal(final.codes, last.codes)


def test_units_that_do_not_count_may_hold_anything(bundle, targets):
    mask = np.zeros(targets["conv1"].shape[1:])
    mask[:4] = 1
    others = {**targets, "conv1": targets["conv1"].copy()}
    others["conv1"][:, 4:] += 100
    first, second = (optimize(bundle, each, masks={"conv1": mask}) for each in (targets, others))
    assert np.array_equal(first.codes, second.codes)
    channels = optimize(bundle, targets, masks={"conv1": np.arange(8) < 4})
    assert np.array_equal(first.codes, channels.codes)


def test_flattened_targets_are_the_same(bundle, targets):
    flat = {layer: values.reshape(len(values), -1) for layer, values in targets.items()}
    assert np.array_equal(optimize(bundle, flat).codes, optimize(bundle, targets).codes)


def test_what_does_not_fit_is_named(bundle, targets):
    with pytest.raises(UsageError, match="tiny: no layer 'conv9'"):
        optimize(bundle, {"conv9": targets["conv1"]})
    with pytest.raises(ShapeError, match="targets norm1"):
        optimize(bundle, {"norm1": targets["conv1"]})
    with pytest.raises(UsageError, match="tv: 1, a prior of pixels, but codes are optimised"):
        optimize(bundle, targets, tv=1.0)
    with pytest.raises(UsageError, match="loss gram: layer fc6:linear is a vector"):
        optimize(bundle, targets, loss="gram")
    with pytest.raises(UsageError, match=r"bounds: the preset's are a file's .* Pass --bounds FILE"):
        optimize(bundle, targets, preset="cookbook")
    with pytest.raises(UsageError, match="preset 'x': unknown, expected one of icnn-gd"):
        optimize(bundle, targets, preset="x")


def test_encoders_without_gradients_are_refused(tmp_path, targets, bundle):
    graph, none = (str(write_kind(tmp_path, kind)) for kind in ("graph", "none"))
    with pytest.raises(DataError, match="its encoder is a graph of tests:small, through which no gradient comes"):
        optimize_features(bundle, targets, graph)
    with pytest.raises(DataError, match="has no encoder"):
        optimize_features(bundle, targets, none)


def test_a_module_is_an_encoder_too(bundle):
    """The same features through a PyTorch module as through a table, by autograd."""
    reference = "tests.train.optimize.modules:tiny"
    images = photographs(2)
    from deepsim.train.optimize.api import Networks

    layers = ("conv1", "relu")
    networks = Networks.open(bundle, reference, layers, device="cpu")
    x = networks.place.put(torch.from_numpy(networks.encoder.pixels.to_network(images)))
    targets = {layer: values.numpy() for layer, values in networks.encoder.features(x, layers).items()}
    module = optimize_features(bundle, targets, reference, names=("a", "b"), iterations=3, device="cpu")
    table = optimize_features(
        bundle,
        {"conv1:linear": targets["conv1"], "conv1": targets["relu"]},
        bundle,
        names=("a", "b"),
        iterations=3,
        device="cpu",
    )
    assert np.allclose(module.codes, table.codes, atol=1e-3)
