"""Every preset against a plain transcription of its published rule, code by code (tests/train/optimize/plain.py)."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from deepsim.train.optimize import PRESETS, optimize_features  # noqa: E402
from deepsim.train.optimize.presets import mv2015_tv, mv2016_fidelity  # noqa: E402
from deepsim.train.optimize.randomness import Stream  # noqa: E402
from tests.bundles import write_bundle  # noqa: E402
from tests.train.optimize import plain  # noqa: E402

LAYERS = ("conv1", "norm1", "conv2:linear", "fc6")
NAMES = ("a", "b", "c")
S = 27098.1157


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return str(write_bundle(tmp_path_factory.mktemp("bundle"), "tiny"))


@pytest.fixture(scope="module")
def networks():
    return plain.Plain("tiny")


@pytest.fixture(scope="module")
def targets(networks):
    return plain.random_targets(networks, LAYERS, len(NAMES))


def start_of(name, scale=1.0, how="normal", shape=(20,)):
    return Stream(0, name, 0).start_at(how, scale, shape).double()


def ours(bundle, targets, preset, generator=None, **changes):
    arrays = {name: values.numpy() for name, values in targets.items()}
    return optimize_features(
        generator or bundle, arrays, bundle, preset, names=NAMES, device="cpu", precision="fp64", **changes
    )


def one(targets, row):
    return {name: values[row] for name, values in targets.items()}


def agree(found, row, code, loss, tolerance=1e-6):
    wanted = code.detach().numpy()
    assert np.abs(found.codes[row] - wanted).max() <= tolerance * np.abs(wanted).max()
    assert found.losses[row] == pytest.approx(float(loss), rel=tolerance, abs=1e-12)


@pytest.mark.parametrize(
    ("preset", "changes", "iterations", "decay", "bounds"),
    [
        ("icnn-gd", {}, 200, (0.01, 0.01), (0, 100)),
        ("bdpy", {}, 200, (0.2, 1e-10), None),
        ("cookbook", {"bounds": "0,3"}, 1000, (0.01, 0.01), (0, 3)),
    ],
)
def test_gradient_descent(preset, changes, iterations, decay, bounds, bundle, networks, targets):
    settings = PRESETS[preset]
    assert settings.iterations == iterations
    found = ours(bundle, targets, preset, iterations=8, **changes)
    for row, name in enumerate(NAMES):
        wanted = one(targets, row)
        weights = plain.shares(wanted) if preset != "bdpy" else dict.fromkeys(wanted, 1 / len(wanted))
        loss_of = plain.weighted_l2(networks, wanted, weights)
        code, losses = plain.gradient_descent(networks, loss_of, start_of(name), 8, (2, 1e-10), 0.9, decay, bounds)
        agree(found, row, code, losses[-1])


def test_lbfgs_is_scipys(bundle, networks, targets):
    scipy = pytest.importorskip("scipy.optimize")
    assert PRESETS["icnn-lbfgs"].iterations == 500
    found = ours(bundle, targets, "icnn-lbfgs", iterations=6)
    for row, name in enumerate(NAMES):
        wanted = one(targets, row)
        loss_of = plain.weighted_l2(networks, wanted, plain.shares(wanted))

        def both(code, loss_of=loss_of):
            loss, gradient = networks.gradient(loss_of, torch.from_numpy(code))
            return loss, gradient.numpy()

        start = start_of(name).clamp(0, 100).numpy()
        result = scipy.minimize(
            both, start, jac=True, method="L-BFGS-B", bounds=[(0, 100)] * 20, options={"maxiter": 6}
        )
        agree(found, row, torch.from_numpy(result.x), result.fun, tolerance=1e-5)


def test_spurious(bundle, networks, targets):
    assert PRESETS["spurious"].iterations == 800
    found = ours(bundle, targets, "spurious", iterations=8, bounds="0,3", fit="crop")
    for row, name in enumerate(NAMES):
        wanted = one(targets, row)

        def loss_of(code, wanted=wanted):
            features = networks.features(code)
            terms = [plain.dists_and_relative(features[layer], values) for layer, values in wanted.items()]
            return sum(terms) / len(terms)

        code = start_of(name, 0.01).clone().requires_grad_()
        optimizer = torch.optim.AdamW([code], lr=0.1, weight_decay=0.01)
        for _ in range(8):
            before = code.detach().clone()
            optimizer.zero_grad()
            loss = loss_of(code)
            loss.backward()
            optimizer.step()
            code.data.clamp_(0, 3)
        agree(found, row, before, loss.detach())


def test_spurious_resizes_the_whole_picture(bundle, networks, targets):
    found = ours(bundle, targets, "spurious", iterations=1, bounds="0,3")
    for row, name in enumerate(NAMES):
        picture = networks.picture(start_of(name, 0.01))
        small = torch.nn.functional.interpolate(picture, (227, 227), mode="bilinear", antialias=True)
        features = networks.seen(small)
        terms = [plain.dists_and_relative(features[layer], values[row]) for layer, values in targets.items()]
        assert found.losses[row] == pytest.approx(float(sum(terms).detach()) / len(terms), rel=1e-4)


def test_synthesizing(bundle, networks):
    """The picture takes a step up its gradient; that difference goes back to the code, which takes one too."""
    assert PRESETS["synthesizing"].iterations == 200
    units = (3, 7, 11)
    targets = {"fc6:linear": torch.eye(20)[list(units)]}
    found = ours(bundle, targets, "synthesizing", iterations=8, bounds="0,3")
    for row, name in enumerate(NAMES):
        code = start_of(name)
        for t in range(8):
            before, step = code, plain.linear(8, 1e-10, t, 8)
            leaf = code.clone().requires_grad_()
            picture = networks.picture(leaf)
            image = picture[:, :, 14:241, 14:241].detach().requires_grad_()
            unit = networks.seen(image)["fc6:linear"][units[row]]
            (up,) = torch.autograd.grad(unit, image)
            stepped = image + step / up.abs().mean() * up
            difference = torch.zeros_like(picture)
            difference[:, :, 14:241, 14:241] = stepped - image
            (back,) = torch.autograd.grad(picture, leaf, difference.detach())
            code = (code + step * back / back.abs().mean()) * 0.99
            code = code.clamp(0, 3)
        agree(found, row, before, -unit.detach())


def test_ppgn(bundle, networks):
    assert PRESETS["ppgn"].iterations == 200
    classes = (3, 7, 11)
    found = ours(bundle, {"fc6:linear": torch.eye(20)[list(classes)]}, "ppgn", iterations=8, prior=0.02, noise=1e-3)
    for row, name in enumerate(NAMES):
        code, stream = start_of(name), Stream(0, name, 0)
        for t in range(8):
            before = code
            leaf = code.clone().requires_grad_()
            features = networks.features(leaf)
            probability = features["fc6:linear"].log_softmax(0)[classes[row]]
            probability.backward()
            again = features["fc6"].detach()
            direction = 0.02 * (again - code) + 1 * leaf.grad + 1e-3 * stream.noise(t, (20,))
            code = (code + 1 * direction / direction.abs().mean()).clamp(0, 30)
        agree(found, row, before, -probability.detach())


def test_ppgn_publishes_these_epsilons():
    settings = PRESETS["ppgn"]
    assert (settings.prior, settings.condition, settings.noise) == (1e-5, 1, 1e-17)


def pixels_of_photographs(networks, layer):
    from tests.bundles import photographs

    images = networks.encoder.pixels.to_network(photographs(len(NAMES)))
    with torch.no_grad():
        rows = [networks.seen(torch.from_numpy(image)[None].double())[layer] for image in images]
    return {layer: torch.stack(rows).float().double()}


def test_mahendran_vedaldi_2015(bundle, networks):
    targets = pixels_of_photographs(networks, "conv1")
    found = ours(bundle, targets, "mv2015", generator="pixels", iterations=6, drops="2,4")
    assert PRESETS["mv2015"].drops == (100, 300) and PRESETS["mv2015"].iterations == 400
    for row, name in enumerate(NAMES):
        wanted = targets["conv1"][row]

        def energy(x, wanted=wanted):
            features = networks.seen(x[None])["conv1"]
            relative = ((features - wanted) ** 2).sum() / (wanted**2).sum()
            return relative + 1 / 2 * plain.total_variation(x) / S**2 + 8e-10 / 2 * (x**6).sum() / S**2

        x, velocity = start_of(name, S, "norm", (3, 227, 227)), 0
        assert float(x.norm()) == pytest.approx(S, rel=1e-5)
        for rate, steps in ((0.004, 2), (0.0004, 2), (0.00004, 2)):
            velocity = torch.zeros_like(x)
            for _ in range(steps):
                _, gradient = networks.gradient(energy, x)
                velocity = 0.9 * velocity - rate * S**2 * gradient
                x = x + velocity
        agree(found, row, x, networks.gradient(energy, x)[0])


def test_mahendran_vedaldi_2016(bundle, networks):
    targets = pixels_of_photographs(networks, "norm1")
    found = ours(bundle, targets, "mv2016", generator="pixels", iterations=6, drops="4", jitter_until=4)
    assert PRESETS["mv2016"].drops == (300,) and PRESETS["mv2016"].iterations == 350
    count = 227 * 227
    for row, name in enumerate(NAMES):
        wanted, stream = targets["norm1"][row], Stream(0, name, 0)

        def energy(x, shift, wanted=wanted):
            features = networks.seen(x.roll(shift, (1, 2))[None])["norm1"]
            relative = ((features - wanted) ** 2).sum() / (wanted**2).sum()
            colors = ((x**2).sum(0).sqrt() / 80) ** 6
            return 300 * relative + colors.sum() / count + (6.5 / 80) ** 2 * plain.total_variation(x) / count

        x = start_of(name, 80 / 3**0.5, "uniform", (3, 227, 227))
        assert float(x.abs().quantile(0.95)) == pytest.approx(80 / 3**0.5, rel=1e-3)
        squares, velocity = torch.zeros_like(x), torch.zeros_like(x)
        for t in range(6):
            shift = stream.shift(t, 2) if t < 4 else (0, 0)  # the stride of norm1 is 8
            _, gradient = networks.gradient(lambda y, shift=shift: energy(y, shift), x)
            rate = count * 0.05 * 80**2 / 6 * (0.1 if t >= 4 else 1)
            squares = 0.9 * squares + gradient**2
            velocity = 0.9 * velocity + gradient / (1 / rate + squares.sqrt())
            x = x - velocity
            norm = x.norm(dim=0)
            x = x * (160 / norm.clamp_min(160))
        agree(found, row, x, networks.gradient(lambda y: energy(y, (0, 0)), x)[0])


@pytest.mark.parametrize(("layer", "factor"), [("conv2", 1), ("norm2", 10), ("conv4:linear", 10), ("fc8", 100)])
def test_total_variation_by_layer(layer, factor):
    assert mv2015_tv(layer) == pytest.approx(factor / 2 / S**2)


@pytest.mark.parametrize(("layer", "factor"), [("conv3", 300), ("conv4", 100), ("conv5", 20), ("fc6", 1)])
def test_fidelity_by_layer(layer, factor):
    assert mv2016_fidelity(layer) == factor
