from __future__ import annotations

import pytest

from deepsim.benchmarks.charts.wording import count, duration, listed, percent, short, signed, significant, size, tick


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (percent(0.4123), "41.2\u00a0%"),
        (percent(-0.05), "\u22125.0\u00a0%"),
        (percent(-0.0001), "0.0\u00a0%"),
        (signed(12345.678, 1), "12,345.7"),
        (significant(0.012345), "0.0123"),
        (significant(12345), "12,300"),
        (significant(9.999), "10.0"),
        (significant(0.000001234), "1.23e\u221206"),
        (significant(0), "0"),
        (short(12345), "12,300"),
        (short(272_412_345.0), "272M"),
        (short(-123_456), "\u2212123k"),
        (duration(9.44), "9.4\u00a0s"),
        (duration(59.97), "1\u00a0min\u00a00\u00a0s"),
        (duration(372.4), "6\u00a0min\u00a012\u00a0s"),
        (duration(11100), "3\u00a0h\u00a05\u00a0min"),
        (tick(1500), "1,500"),
        (tick(20000), "20k"),
        (tick(3_000_000), "3M"),
        (tick(0.05), "0.05"),
        (tick(1e-5), "1e\u22125"),
        (tick(0), "0"),
        (count(1, "photograph"), "1 photograph"),
        (count(1200, "photograph"), "1,200 photographs"),
        (size(812), "812\u00a0B"),
        (size(6_645_260), "6.6\u00a0MB"),
        (listed(["a"]), "a"),
        (listed(["a", "b", "c"]), "a, b and c"),
    ],
)
def test_numbers_read_well(text, expected):
    assert text == expected
