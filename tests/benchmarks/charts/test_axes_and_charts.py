from __future__ import annotations

import re

import pytest

from deepsim.benchmarks.charts.axes import linear_axis, log_axis, nice_step, span_axis
from deepsim.benchmarks.charts.charts import Frame, Line, Shade, bar, buckets, line_chart


@pytest.mark.parametrize(
    ("values", "ticks"), [([0, 31], (0, 10, 20, 30, 40)), ([3, 8], (0, 2, 4, 6, 8)), ([5, 5], (0, 2, 4, 6)), ([], None)]
)
def test_linear_ticks_are_round_and_cover_the_values(values, ticks):
    axis = linear_axis(values, 100, 0)
    assert ticks is None or axis.ticks == pytest.approx(ticks)
    assert axis.low <= min(values, default=0) and axis.high >= max(values, default=0)


@pytest.mark.parametrize("values", [[0.003, 0.02], [1, 1], [7, 95_000], [1e-9, 1e9], [0, 5, 40], [0], []])
def test_log_axis_covers_positive_values(values):
    axis = log_axis(values, 200, 0)
    positive = [value for value in values if value > 0]
    assert len(axis.ticks) >= 2
    assert all(axis.low <= value * (1 + 1e-9) and value <= axis.high * (1 + 1e-9) for value in positive)
    assert axis(axis.low) == 200 and axis(axis.high) == 0
    assert axis(0) == 200  # zero sits at the bottom


def test_log_axis_spaces_decades_equally():
    axis = log_axis([1, 1000], 0, 300)
    assert [axis(value) for value in (1, 10, 100, 1000)] == pytest.approx([0, 100, 200, 300])


def test_span_axis_keeps_its_ends():
    axis = span_axis(0, 480, 0, 480)
    assert (axis.low, axis.high) == (0, 480)
    assert axis.ticks == (0, 200, 400)
    assert span_axis(5, 5, 0, 1).high > 5


@pytest.mark.parametrize(("rough", "step"), [(0.9, 1), (1, 1), (1.1, 2), (2.2, 2.5), (30, 50), (0.06, 0.1)])
def test_nice_step(rough, step):
    assert nice_step(rough) == pytest.approx(step)


def test_buckets_keep_every_point():
    points = [(float(x), float(x % 7)) for x in range(100)]
    runs = buckets(points, 8)
    assert len(runs) == 8
    assert (min(run[1] for run in runs), max(run[3] for run in runs)) == (0, 6)
    assert sum(run[0] for run in runs) / 8 == pytest.approx(49.5, abs=0.5)
    assert buckets(points[:3], 8) == [(0, 0, 0, 0), (1, 1, 1, 1), (2, 2, 2, 2)]
    assert buckets([], 8) == []


def test_line_chart_places_points_and_shades():
    chart = line_chart(
        "what", [Line([(0, 0), (10, 40)], "first")], [Shade([(5, 10)], "paused-d")], Frame(x_range=(0, 10))
    )
    assert 'aria-label="what"' in chart
    points = re.search(r'<polyline[^>]*points="([^"]+)"', chart)
    assert (points and points[1] == "42,174 328,10") or points[1] == "42.0,174.0 328.0,10.0"
    shade = re.search(r'class="paused-d" x="([\d.]+)"[^>]*width="([\d.]+)"', chart)
    assert shade and float(shade[1]) == 185 and float(shade[2]) == 143


def test_many_points_become_a_median_with_its_range():
    chart = line_chart("many", [Line([(x, x % 2) for x in range(5000)], "first")])
    assert "<polygon" in chart
    assert len(re.search(r'<polyline[^>]*points="([^"]+)"', chart)[1].split()) < 200


@pytest.mark.parametrize(("fraction", "width"), [(0.25, "25.0"), (2, "100.0"), (-1, "0.0")])
def test_bar_fills_its_fraction(fraction, width):
    assert f'class="own" width="{width}"' in bar(fraction, "own")
