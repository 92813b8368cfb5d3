from __future__ import annotations

import pytest

from deepsim.benchmarks.charts.lines import Frame, Line, Shade, buckets, line_chart, scale_y
from deepsim.benchmarks.charts.svg import Drawing
from tests.benchmarks.charts.svg_parts import elements, paths, place, texts


def scaled(values, log=False):
    axes = Drawing(300, 200).axes(40, 290, 0, 200)
    scale_y(axes, values, log)
    return axes.get_ylim(), [float(value) for value in axes.get_yticks()]


@pytest.mark.parametrize(
    ("values", "ticks"),
    [([0, 31], [0, 10, 20, 30, 40]), ([3, 8], [0, 2, 4, 6, 8]), ([5, 5], [0, 2, 4, 6]), ([], None), ([-3, 1], None)],
)
def test_linear_ticks_are_round_and_cover_the_values(values, ticks):
    (low, high), found = scaled(values)
    assert ticks is None or found == pytest.approx(ticks)
    assert low <= min([*values, 0]) and high >= max(values, default=0) and (low, high) == (found[0], found[-1])


@pytest.mark.parametrize("values", [[0.003, 0.02], [1, 1], [7, 95_000], [1e-9, 1e9], [0, 5, 40], [0], [], [130, 150]])
def test_log_axis_covers_positive_values(values):
    (low, high), ticks = scaled(values, log=True)
    positive = [value for value in values if value > 0]
    assert 2 <= len(ticks) <= 7
    assert all(low <= value * (1 + 1e-9) and value <= high * (1 + 1e-9) for value in positive)
    assert {str(f"{tick:e}")[0] for tick in ticks} <= {"1", "2", "5"}


def test_log_axis_spaces_decades_equally_and_puts_zero_at_its_bottom():
    svg = line_chart("", [Line([(0, 0), (1, 1), (2, 10), (3, 1000)], "first")], frame=Frame(log=True))
    ((*_, (_, top)),) = [points] = paths(svg, "first")
    heights = [y for _, y in points]
    assert heights == pytest.approx([174, 174, 174 - 164 / 3, 10], abs=0.1) and top == 10


def test_x_keeps_its_ends_and_has_round_ticks():
    svg = line_chart("", [Line([(0, 1), (480, 2)], "first")])
    assert [x for x, _ in paths(svg, "first")[0]] == [42, 328]
    assert {"0", "100", "200", "300", "400"} & set(texts(svg, "soft")) >= {"0", "200", "400"}
    assert paths(line_chart("", [Line([(5, 1)], "first")]), "soft")  # one point: an axis all the same


def test_the_last_number_stays_in_the_picture():
    svg = line_chart("", [Line([(0, 1), (100_000, 2)], "first")])
    assert texts(svg)["100k"].get("style").count("text-anchor: end") == 1


def test_line_chart_places_points_and_shades():
    svg = line_chart("what", [Line([(0, 0), (10, 40)], "first")], [Shade([(5, 10)], "pause-d")], Frame(x_range=(0, 10)))
    assert 'aria-label="what"' in svg
    assert paths(svg, "first") == [[(42, 174), (328, 10)]]
    (shade,) = paths(svg, "pause-d", filled=True)
    assert {x for x, _ in shade} == {185, 328} and {y for _, y in shade} == {10, 174}


def test_a_short_stretch_is_still_seen():
    shades = [Shade([(50_000, 50_001)], "pause-g")]
    svg = line_chart("", [Line([(0, 0), (100_000, 40)], "first")], shades)
    xs = [x for x, _ in paths(svg, "pause-g", filled=True)[0]]
    assert max(xs) - min(xs) == pytest.approx(1, abs=0.1)


def test_many_points_become_a_median_with_its_range():
    svg = line_chart("many", [Line([(x, x % 2) for x in range(5000)], "first")])
    assert len(paths(svg, "first", filled=True)) == 1
    assert len(paths(svg, "first")[0]) < 200


def test_labels_stand_at_the_end_of_their_lines_and_dots_on_the_points():
    lines = [Line([(1, 5), (2, 8)], "first", "error", dots=True), Line([(1, 3), (2, 1)], "second", "step")]
    svg = line_chart("", lines, frame=Frame(right=56, every=True))
    end = paths(svg, "first")[0][-1]
    assert place(texts(svg, "first")["error"]) == pytest.approx((end[0] + 8, end[1] + 4), abs=0.1)
    assert [place(dot, "cx", "cy") for dot in elements(svg, "circle")] == paths(svg, "first")[0]
    assert {"1", "2"} <= set(texts(svg, "soft")) and "step" in texts(svg, "second")


def test_points_are_gathered_in_runs_of_equal_number():
    points = [(float(x), float(x % 7)) for x in range(100)]
    runs = buckets(points, 8)
    assert len(runs) == 8
    assert (min(run[1] for run in runs), max(run[3] for run in runs)) == (0, 6)
    assert sum(run[0] for run in runs) / 8 == pytest.approx(49.5, abs=0.5)
    assert buckets(points[:3], 8) == [(0, 0, 0, 0), (1, 1, 1, 1), (2, 2, 2, 2)]
    assert buckets([], 8) == []
