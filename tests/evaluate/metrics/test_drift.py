from __future__ import annotations

import numpy as np
import pytest

from deepsim.evaluate.metrics.drift import Reencoding, trace


@pytest.mark.parametrize(
    ("errors", "steps", "verdict"),
    [
        ((20, 21, 21.5, 21.6), (4, 2, 1), "settles"),
        ((20, 22, 24, 26), (4, 4, 2), "settles"),  # exactly half of the first step
        ((20, 22, 24, 26), (4, 4, 2.01), "drifts"),
        ((20, 24, 28, 32), (4, 4, 5), "drifts"),  # exactly 1.25 times
        ((20, 24, 28, 32), (4, 4, 5.01), "diverges"),
        ((20, 30, 35, 40), (4, 3, 1), "settles"),  # exactly twice the error
        ((20, 30, 35, 40.1), (4, 3, 1), "diverges"),  # small steps, but away from the photograph
        ((10, 20, 30, 39), (9, 6, 4), "settles"),  # four times the error, but not above a plain colour's
        ((10, 20, 30, 39.1), (9, 6, 4), "diverges"),
        ((50, 52, 53, 54), (9, 6, 4), "settles"),  # bad from the start, but no worse
        ((20, 20, 20, 20), (0, 0, 0), "settles"),
        ((20, 20, 20, 20.1), (0, 0, 0.1), "diverges"),
        ((0, 0, 0, 0), (0, 0, 0), "settles"),
    ],
)
def test_verdict(errors, steps, verdict):
    assert Reencoding(errors, steps, plain=39).verdict == verdict


def test_trace_measures_errors_and_steps():
    photos = np.full((2, 4, 4, 3), 100, np.uint8)
    photos[:, ::2] = 98
    iterates = np.stack([photos + 10, photos + 14, photos + 15], axis=1)
    iterates[1, 2] += 2  # the second photograph's last step is 3
    loop = trace(photos, iterates)
    assert loop.errors == pytest.approx((10, 14, 16))
    assert loop.steps == pytest.approx((4, 2))
    assert loop.plain == pytest.approx(1)  # the mean colour is 99
    assert loop.to_json()["verdict"] == "settles"
