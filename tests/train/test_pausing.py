"""The pausing rule as a table: ratio, who trained before, who trains next."""

import pytest

pytest.importorskip("torch")

from deepsim.train.pausing import Pausing

BOTH, ONLY_D, ONLY_G = (True, True), (True, False), (False, True)  # (discriminator trains, generator trains)

TABLE = [
    (0.05, BOTH, ONLY_G),  # D is too good: it pauses
    (0.05, ONLY_G, ONLY_G),
    (0.05, ONLY_D, ONLY_G),  # a paused G resumes when D pauses
    (0.1, BOTH, BOTH),  # thresholds are strict
    (0.3, ONLY_G, ONLY_G),  # between the thresholds nothing changes
    (0.3, BOTH, BOTH),
    (0.3, ONLY_D, ONLY_D),
    (0.5, ONLY_G, ONLY_G),
    (0.6, ONLY_G, BOTH),  # D resumes
    (0.6, BOTH, BOTH),
    (0.6, ONLY_D, ONLY_D),
    (10.0, BOTH, BOTH),
    (11.0, BOTH, ONLY_D),  # G is too good: it pauses
    (11.0, ONLY_G, ONLY_D),  # D resumes, and in the same step G pauses
    (11.0, ONLY_D, ONLY_D),
]


@pytest.mark.parametrize(("ratio", "before", "after"), TABLE)
def test_rule(ratio, before, after):
    pausing = Pausing(discriminator_trains=before[0], generator_trains=before[1])
    assert pausing.update(0.25 * ratio * 2, 0.75 * ratio * 2, 2.0) == pytest.approx(ratio)
    assert (pausing.discriminator_trains, pausing.generator_trains) == after


def test_a_generator_loss_of_zero_is_a_large_ratio():
    pausing = Pausing()
    assert pausing.update(0.1, 0.1, 0.0) > 1e6
    assert (pausing.discriminator_trains, pausing.generator_trains) == ONLY_D
