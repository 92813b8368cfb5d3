"""The seeds of the fuzz target and fixed mutations of them: rows or typed errors, and no more."""

import numpy as np
import pytest

from tests.fuzz.fuzz_features import KINDS, SHAPES, check, seeds

pytest.importorskip("h5py")
pytest.importorskip("scipy")


@pytest.fixture(scope="module")
def known():
    return seeds()


def test_every_kind_has_a_seed(known):
    assert {seed[0] for seed in known} == set(range(len(KINDS) * len(SHAPES)))


@pytest.mark.parametrize("kind", range(len(KINDS)), ids=KINDS)
def test_seeds_that_are_cut_or_changed(known, tmp_path, kind):
    rng = np.random.default_rng(kind)
    for seed in (each for each in known if each[0] % len(KINDS) == kind):
        check(seed, tmp_path)
        for length in rng.integers(1, len(seed), 12):
            check(seed[:length], tmp_path)
        for _ in range(12):
            changed = bytearray(seed)
            for place in rng.integers(1, len(seed), rng.integers(1, 9)):
                changed[place] = rng.choice([0, 1, 127, 128, 255, rng.integers(256)])
            check(bytes(changed), tmp_path)
