"""Every optimiser against a plain transcription of its published rule, generation by generation, with the same draws.

The transcriptions hold what the public programs hold (dense matrices, loops) and draw from the same sources of random
numbers in the same order, so that a seed gives the very codes of those programs.
"""

import numpy as np
import pytest

from deepsim.train.optimize.black_box import make_optimizer

N = 24
GENERATIONS = 40


def scores_of(codes, generation):
    """Score codes smoothly, with an optimum that is far from the start, and some noise of their own."""
    target = np.linspace(-2, 3, codes.shape[1])
    noise = np.sin(1000 * codes.sum(axis=1) + generation)
    return -((codes - target) ** 2).sum(axis=1) + 0.1 * noise


def assert_follows(optimizer, first, rule, generations=GENERATIONS, rtol=2e-6):
    """Run both; ``rule(scores, codes)`` returns the next generation in float64."""
    codes = first
    for generation in range(generations):
        asked = optimizer.ask()
        assert asked.dtype == np.float32
        np.testing.assert_allclose(asked, codes, rtol=rtol, atol=rtol, err_msg=f"generation {generation}")
        scores = scores_of(codes, generation)
        optimizer.tell(scores)
        codes = rule(scores, codes)


def log_weights(count, half):
    weights = np.zeros(count)
    for i in range(int(half)):
        weights[i] = np.log(half + 0.5) - np.log(i + 1)
    return weights / weights.sum()


class DenseCholesky:
    """The rule of CholeskyCMAES with A and its inverse as matrices."""

    def __init__(self, n, sigma, seed, mean):
        self.n, self.sigma, self.random = n, sigma, np.random.RandomState(seed)
        self.population = 4 + int(np.floor(3 * np.log2(n)))
        self.mean, self.given_mean = mean, mean is not None
        self.a, self.inverse = np.eye(n), np.eye(n)
        self.ps, self.pc = np.zeros(n), np.zeros(n)
        self.z, self.evaluated, self.updated = None, 0, 0
        self.updates = 0

    def __call__(self, scores, codes):
        n, half = self.n, self.population / 2
        weights = log_weights(int(half), half)
        mu_eff = 1 / np.sum(weights**2)
        cc, cs, c1 = 4 / (n + 4), np.sqrt(mu_eff) / (np.sqrt(mu_eff) + np.sqrt(n)), 2 / (n + np.sqrt(2)) ** 2
        damps = 1 + cs + 2 * max(0, np.sqrt((mu_eff - 1) / (n + 1)) - 1)
        chi = np.sqrt(n) * (1 - 1 / (4 * n) + 1 / (21 * n * n))
        best = np.argsort(-scores)[: int(half)]
        if self.z is None:
            if not self.given_mean:
                few = weights[: len(best)] / weights[: len(best)].sum()
                self.mean = few @ codes[best]
        else:
            self.mean = weights @ codes[best]
            step = weights @ self.z[best]
            self.ps = (1 - cs) * self.ps + np.sqrt(cs * (2 - cs) * mu_eff) * step
            self.pc = (1 - cc) * self.pc + np.sqrt(cc * (2 - cc) * mu_eff) * step @ self.a
            self.sigma *= np.exp(cs / damps * (np.linalg.norm(self.ps) / chi - 1))
            if self.evaluated - self.updated > 10 * self.population:
                self.updated = self.evaluated
                self.updates += 1
                v = self.pc @ self.inverse
                w, s = v @ v, np.sqrt(1 - c1)
                root = np.sqrt(1 + w * c1 / (1 - c1))
                self.a = s * self.a + s / w * (root - 1) * np.outer(v, self.pc)
                self.inverse = self.inverse / s - 1 / s / w * (1 - 1 / root) * np.outer(self.inverse @ v, v)
        self.z = self.random.randn(self.population, n)
        self.evaluated += self.population
        return self.mean + self.sigma * self.z @ self.a


def test_cholesky():
    rule = DenseCholesky(N, 3.0, seed=5, mean=np.zeros(N))
    assert_follows(make_optimizer("cholesky", N, seed=5), np.zeros((1, N)), rule, 120)
    assert rule.updates == 10  # after every eleventh generation: "more than 10"


def test_cholesky_from_codes():
    first = np.random.RandomState(1).randn(7, N)  # fewer than are recombined
    optimizer = make_optimizer("cholesky", N, seed=6, start=first)
    assert_follows(optimizer, first, DenseCholesky(N, 3.0, seed=6, mean=None), 30)


def test_cholesky_from_one_normal_code():
    rule = DenseCholesky(N, 3.0, seed=7, mean=None)
    first = rule.random.randn(1, N)
    assert_follows(make_optimizer("cholesky", N, seed=7, start="normal"), first, rule, 30)


def test_cholesky_has_the_published_constants():
    optimizer = make_optimizer("cholesky", 4096)
    assert (optimizer.population, len(optimizer.weights)) == (40, 20)
    assert optimizer.mu_eff == pytest.approx(11.3, abs=0.05)
    assert optimizer.cc == pytest.approx(9.76e-4, rel=1e-3)
    assert optimizer.cs == pytest.approx(0.0499, abs=5e-5)
    assert optimizer.c1 == pytest.approx(1.19e-7, rel=2e-3)
    assert optimizer.damping == pytest.approx(1.05, abs=5e-3)


def test_the_factor_is_the_matrix_and_its_inverse():
    from deepsim.train.optimize.black_box.cholesky import Factor

    random, factor, a = np.random.RandomState(0), Factor(N, 0.3), np.eye(N)
    for _ in range(30):
        path = random.randn(N)
        covariance = 0.7 * a.T @ a + 0.3 * np.outer(path, path)
        factor.update(path)
        a = factor.times(np.eye(N))
        np.testing.assert_allclose(a.T @ a, covariance, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(factor.times_inverse(path) @ a, path, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", ["sphere", "sphere-inv"])
def test_sphere(name):
    random, norm, step = np.random.RandomState(8), 300, 0
    first = random.randn(40, N)
    first = norm * first / np.linalg.norm(first, axis=1, keepdims=True)
    if name == "sphere":
        degrees = [50 * (7.33 / 50) ** (k / 74) for k in range(75)]
    else:
        degrees = [15 + 1 / (0.0017 * k + 0.0146) for k in range(1, 76)]

    def rule(scores, codes):
        nonlocal step
        ranked = scores if step == 0 else scores[1:]
        weights = log_weights(len(ranked), 20)
        mean = np.zeros(N)
        for place, index in enumerate(np.argsort(-ranked)):
            mean += weights[place] * (codes if step == 0 else codes[1:])[index]
        base = norm * mean / np.linalg.norm(mean)
        if step:
            old = codes[0]
            angle = np.arccos(old @ base / norm**2)
            base = (np.sin(-0.5 * angle) * old + np.sin(1.5 * angle) * base) / np.sin(angle)
        mu = degrees[min(step, 74)] / 180 * np.pi / np.sqrt(N)
        around = [base]
        for draw in random.randn(40, N):
            tangent = draw - (draw @ base) * base / norm**2
            angle = mu * np.linalg.norm(tangent)
            around.append(np.cos(angle) * base + np.sin(angle) * norm * tangent / np.linalg.norm(tangent))
        step += 1
        return np.array(around)

    assert_follows(make_optimizer(name, N, seed=8), first, rule, 80, rtol=1e-5)


def roulette(random, chances, count):
    edges = np.cumsum(chances)
    edges /= edges[-1]
    return [int(np.searchsorted(edges, draw, side="right")) for draw in random.random_sample(count)]


def genetic_rule(random, selectivity, rate, size, heritability, conserve, cap):
    def rule(scores, codes):
        order = np.argsort(scores)[::-1]
        sorted_scores, parents = scores[order], codes[order]
        temperature = max(np.std(scores) / selectivity, 1e-8)
        if cap:
            sorted_scores = np.clip(sorted_scores, None, np.percentile(scores, 95))
        chances = np.exp((sorted_scores - sorted_scores[0]) / temperature)
        count = len(codes) - conserve
        first, second = roulette(random, chances, count), roulette(random, chances, count)
        children = []
        for a, b in zip(first, second, strict=True):
            children.append(
                [parents[a if draw < heritability else b][i] for i, draw in enumerate(random.random_sample(N))]
            )
        children = np.array(children)
        mutated = random.random_sample(children.shape) < rate
        children[mutated] = children[mutated] + random.normal(0, size, mutated.sum())
        return np.concatenate([parents[:conserve], children])

    return rule


@pytest.mark.parametrize(
    ("name", "population", "settings"),
    [("genetic", 20, (2, 0.5, 0.5, 0.5, 1, True)), ("genetic-actmax", 40, (0.5, 0.25, 0.75, 0.75, 10, False))],
)
def test_genetic(name, population, settings):
    random = np.random.RandomState(9)
    first = random.normal(loc=0, scale=1, size=(population, N))
    assert_follows(make_optimizer(name, N, seed=9), first, genetic_rule(random, *settings))


def test_genetic_tells_the_parents():
    optimizer = make_optimizer("genetic", N, seed=1, settings={"mutation_rate": 0.0})
    assert optimizer.origins is None
    for generation in range(3):
        before = optimizer.ask()
        optimizer.tell(scores_of(before, generation))
        for code, parents in zip(optimizer.ask(), optimizer.origins, strict=True):
            assert (code == before[list(parents)]).any(axis=0).all()
        assert [len(parents) for parents in optimizer.origins] == [1] + [2] * 19


def test_genetic_carries_what_has_no_score():
    optimizer = make_optimizer("genetic", N, seed=2)
    codes = optimizer.ask()
    scores = scores_of(codes, 0)
    scores[[3, 11]] = np.nan
    optimizer.tell(scores)
    assert (optimizer.ask()[-2:] == codes[[3, 11]]).all()
    assert (optimizer.ask()[0] == codes[np.nanargmax(scores)]).all()
    assert optimizer.origins[-2:] == [(3,), (11,)]
    before = optimizer.ask()
    optimizer.tell(np.full(20, np.nan))
    assert (optimizer.ask() == before).all()


def test_genetic_fills_the_population_from_given_codes():
    given = np.random.RandomState(3).randn(4, N)
    settings = {"mutation_rate": 0.0}
    asked = make_optimizer("genetic", N, start=given, settings=settings).ask()
    assert asked.shape == (20, N)
    assert (asked[:4] == given.astype(np.float32)).all()
    values = given.astype(np.float32)
    assert all((child == values).any(axis=0).all() for child in asked[4:])
    assert len(np.unique(asked, axis=0)) > 10


def test_genetic_of_pxdream():
    random = np.random.default_rng(10)
    first = random.normal(size=(50, N))

    def rule(scores, codes):
        chances = np.exp(scores - scores.max())
        chances /= chances.sum()
        families = [random.choice(50, size=2, p=chances, replace=False) for _ in range(48)]
        lineage = random.choice(2, size=(48, N), replace=True)
        children = np.empty((48, N))
        for child in range(48):
            for value in range(N):
                children[child, value] = codes[families[child][lineage[child, value]], value]
        mutated = random.choice([True, False], size=children.shape, p=(0.3, 0.7))
        children[mutated] += random.normal(scale=0.1, size=mutated.sum())
        return np.concatenate([codes[np.argsort(scores)[-2:]], children]).astype(np.float32).astype(np.float64)

    assert_follows(make_optimizer("genetic-pxdream", N, seed=10), first, rule)


@pytest.mark.parametrize(
    ("name", "population", "sigma"), [("cma", 40, 2), ("cma-diagonal", 40, 2), ("cma-pxdream", 50, 1)]
)
def test_cma(name, population, sigma):
    cma = pytest.importorskip("cma")
    kept = np.random.get_state()[1].copy()
    optimizer = make_optimizer(name, N, seed=11)
    own = cma.CMAEvolutionStrategy(
        np.zeros(N),
        sigma,
        {
            "popsize": population,
            "CMA_diagonal": name == "cma-diagonal",
            "verbose": -9,
            "seed": np.nan,
            "randn": np.random.RandomState(11).randn,
        },
    )

    def rule(scores, codes):
        own.tell(solutions, list(-scores))
        solutions[:] = own.ask()
        return np.array(solutions)

    solutions = own.ask()
    assert_follows(optimizer, np.array(solutions), rule)
    assert (np.random.get_state()[1] == kept).all()


def test_cma_draws_what_the_package_draws_from_a_seed():
    cma = pytest.importorskip("cma")
    own = cma.CMAEvolutionStrategy(np.zeros(N), 2.0, {"popsize": 40, "seed": 12, "verbose": -9})
    for _ in range(3):
        solutions = own.ask()
        own.tell(solutions, [code[0] for code in solutions])
    optimizer = make_optimizer("cma", N, seed=12)
    for _ in range(3):
        optimizer.tell(-optimizer.ask()[:, 0])
    np.testing.assert_allclose(optimizer.ask(), np.array(own.ask()), rtol=1e-5, atol=1e-5)


def test_cma_does_not_warn_in_every_generation(recwarn):
    pytest.importorskip("cma")
    optimizer = make_optimizer("cma-diagonal", 1000)
    for _ in range(8):
        optimizer.tell(optimizer.ask()[:, 0])  # one value alone decides, which the package comments on
    assert not [warning for warning in recwarn if "cma" in warning.filename]


def test_cma_keeps_its_bounds():
    pytest.importorskip("cma")
    optimizer = make_optimizer("cma-diagonal", N, settings={"bounds": (-0.5, 1.0)})
    for generation in range(30):
        codes = optimizer.ask()
        assert codes.min() >= -0.5 and codes.max() <= 1
        optimizer.tell(scores_of(codes, generation))
    assert codes[:, 0].mean() < -0.45 and codes[:, -1].mean() > 0.9  # where the optimum lies outside


@pytest.mark.parametrize("name", ["cma", "cma-diagonal", "cholesky", "genetic", "genetic-actmax"])
def test_it_climbs(name):
    optimizer = make_optimizer(name, N, seed=1)
    means = []
    for _ in range(150):
        codes = optimizer.ask()
        scores = scores_of(codes, 0)
        means.append(scores.mean())
        optimizer.tell(scores)
    assert means[-1] > means[0] * 0.2  # scores are negative
