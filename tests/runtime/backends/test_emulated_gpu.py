"""What bundles give on the emulated GPU, beside what the CPU gives: raw images and features, before any rounding."""

import numpy as np
import pytest

from deepsim.runtime.inverter import Inverter
from tests.bundles import NETWORKS, photographs
from tests.emulated_gpu import on_emulated_gpu

# Of the largest magnitude; 8.4e-7 and 1.4e-3 measured. fp16 rounds activations and weights to 5e-4, layer after layer.
BOUNDS = {"fp32": 2e-6, "fp16": 3e-3}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tiny", "tiny-rgb", "small"])
@pytest.mark.parametrize("precision", BOUNDS)
def test_raw_images_and_features_are_the_cpus(bundle_of, emulated, name, precision):
    side = NETWORKS[name][0].framing.side
    photos = photographs(2)[:, :side, :side]
    with Inverter(bundle_of(name), "cpu") as inverter:
        features = inverter.encode(photos)
        raw = inverter.decode(features, full=True, raw=True)
    for call, given, wanted in (("encode", photos, features), ("decode_raw", features, raw)):
        found = on_emulated_gpu(emulated, call, bundle_of(name), given, precision)
        assert found.dtype == np.float32 and wanted.std() > 0
        error = np.abs(found - wanted).max() / np.abs(wanted).max()
        assert error < BOUNDS[precision]
        assert precision == "fp32" or error > 1e-6  # the precision was that
