"""An open Inverter of a bundle whose codes have 20 values and whose images 28 pixels, and a score of its images."""

import numpy as np
import pytest

from deepsim.runtime.inverter import Inverter
from tests.bundles import write_bundle


@pytest.fixture(scope="session")
def bundle(tmp_path_factory):
    return write_bundle(tmp_path_factory.mktemp("bundles"), "mini")


@pytest.fixture(scope="session")
def inverter(bundle):
    with Inverter(bundle, "cpu") as opened:
        yield opened


@pytest.fixture(scope="session")
def redness():
    """Return a score of images (n, S, S, 3): how much redder than blue they are."""

    def score(images):
        return images[..., 0].mean(axis=(1, 2), dtype=np.float64) - images[..., 2].mean(axis=(1, 2), dtype=np.float64)

    return score
