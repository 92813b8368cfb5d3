from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from deepsim.benchmarks.charts.rates import HEIGHT, LINE, Style, panels, spread, styles
from deepsim.benchmarks.throughput import Throughput
from tests.benchmarks.charts.svg_parts import colour_of, elements, paths, place, points_of, style_of, texts

SIZES, TOP_TICK = (1, 8, 64), 800


def measured(rates: dict[str, tuple[float, ...]], sizes=SIZES, what="encode") -> Throughput:
    rows = [
        {"what": what, "batch": batch, "backend": name, "images_per_second": value}
        for name, values in rates.items()
        for batch, value in zip(sizes, values, strict=False)
    ]
    return Throughput.from_record({"rows": rows})


OWN, PEERS = ("first", "second", "third"), tuple(f"peer-{hue}" for hue in range(1, 7))


def labels(panel):
    return texts(panel.svg(), *OWN, *PEERS)


def test_lines_stand_where_the_rates_say():
    panel = panels(measured({"cpu": (200, 600, 800), "openvino": (100, 400, 300)}))["encode"]
    svg = panel.svg()
    ends = {y for points in paths(svg, "rule") for _, y in points}
    low, high = max(ends), min(ends)  # of 0 and 800 images/s
    assert {"images/s", "0", str(TOP_TICK)} <= set(texts(svg, "soft"))
    (points,) = paths(svg, "first", "2.6")
    (left, _), (middle, _), (right, _) = points
    assert (middle - left) / (right - left) == pytest.approx(math.log(8) / math.log(64), abs=0.002)  # log2 of the batch
    for (_, y), value in zip(points, (200, 600, 800), strict=True):
        assert y == pytest.approx(low + (high - low) * value / TOP_TICK, abs=0.1)
    titles = [each.find("title").text for each in elements(svg, "circle") if colour_of(each) == "first"]
    assert titles == ["cpu, batch 1: 200 images/s", "cpu, batch 8: 600 images/s", "cpu, batch 64: 800 images/s"]
    assert "cpu 200 at batch 1, 800 at batch 64; openvino 100 at batch 1, 300 at batch 64" in panel.description
    assert f'aria-label="{panel.description}"' in svg


@pytest.mark.parametrize("seed", range(8))
def test_labels_never_collide_and_keep_the_order_of_the_lines(seed):
    rng = np.random.default_rng(seed)
    rates = {f"peer{index}": (1.0, float(rng.uniform(90, 110)), float(rng.uniform(90, 110))) for index in range(20)}
    panel = panels(measured({"cpu": (5, 300, 400), **rates}))["encode"]
    found = labels(panel)
    assert set(found) == {"cpu", *rates}
    heights = sorted(float(each.get("y")) for each in found.values())
    assert min(b - a for a, b in itertools.pairwise(heights)) >= LINE - 0.11
    assert heights[0] > 0 and heights[-1] <= panel.height
    by_rate = sorted(rates, key=lambda name: -rates[name][-1])
    assert sorted(rates, key=lambda name: float(found[name].get("y"))) == by_rate
    assert len({each.get("x") for each in found.values()}) == 1
    assert panel.height > HEIGHT  # 21 labels need more


def test_labels_fit_beside_the_chart():
    names = ("cpu", "a-name-that-goes-on-and-on-and-on", "torch-channels-last")
    panel = panels(measured(dict.fromkeys(names, (1, 2, 3))))["encode"]
    assert "a-name-that-goes-on-a\u2026" in labels(panel)
    for name, each in labels(panel).items():
        assert float(each.get("x")) + 5.8 * len(name) <= panel.width


def test_a_contender_without_the_last_batch_keeps_its_label_and_a_tie_to_it():
    svg = panels(measured({"cpu": (10, 20, 30), "torch": (10, 15)}))["encode"].svg()
    ((start, _),) = paths(svg, "peer-1", "0.7")
    (line,) = paths(svg, "peer-1", "1.3")
    assert start == pytest.approx((line[-1][0] + 4, line[-1][1]), abs=0.11)
    assert "torch" in texts(svg, "peer-1")


def test_many_batch_sizes_do_not_write_over_each_other():
    sizes = tuple(range(1, 30))
    svg = panels(measured({"cpu": tuple(range(1, 30))}, sizes))["encode"].svg()
    found = [(*place(each), each.text) for each in elements(svg, "text") if colour_of(each) == "soft"]
    base = max(y for _, y, _ in found)
    ticks = sorted((x, text) for x, y, text in found if y == base and text != "batch")
    assert 4 < len(ticks) < 29
    assert all(b - a >= 2.9 * (len(s) + len(t)) for (a, s), (b, t) in itertools.pairwise(ticks))


def test_one_batch_size_makes_bars_sorted_and_to_scale():
    panel = panels(measured({"openvino": (50,), "cpu": (200,), "torch": (100,)}, (16,)))["encode"]
    svg = panel.svg()
    bars = [each for each in elements(svg, "path") if colour_of(each) in (*OWN, *PEERS)]
    bars.sort(key=lambda each: points_of(each)[0][1])
    widths = [max(x for x, _ in points_of(each)) - min(x for x, _ in points_of(each)) for each in bars]
    assert [width / widths[0] for width in widths] == pytest.approx([1, 0.5, 0.25], abs=0.002)
    assert [colour_of(each).startswith("peer") for each in bars] == [False, True, True]
    names = sorted(labels(panel).values(), key=lambda each: float(each.get("y")))
    assert [each.text for each in names] == ["cpu", "torch", "openvino"]
    assert not elements(svg, "circle") and panel.description.endswith("all at batch 16")
    assert panel.height == pytest.approx(3 * 22, abs=10)


def test_ours_are_strong_and_drawn_last_and_peers_all_differ():
    found = styles(["cpu", "onnxruntime", "torch", "cpu-half", "onnxruntime-2x2", "openvino", "torch-compile"])
    assert found["cpu"] == Style("first", own=True) and found["cpu-half"] == Style("second", own=True)
    assert found["onnxruntime"] == Style("peer-1", False, 0) and found["onnxruntime-2x2"] == Style("peer-1", False, 1)
    assert found["torch-compile"] == Style("peer-2", False, 1) and found["openvino"] == Style("peer-3", False, 0)
    assert len(set(found.values())) == len(found)
    assert styles(["onnxruntime"]) == {"onnxruntime": Style("first", own=True)}  # alone, it is what the page is about
    svg = panels(measured({"cpu": (1, 2, 3), "cpu-half": (1, 2, 3), "torch": (1, 2, 3)}))["encode"].svg()
    lines = [each for each in elements(svg, "path") if style_of(each).get("stroke-width") in ("2.6", "1.3")]
    assert [colour_of(each) for each in lines] == ["peer-1", "second", "first"]


def test_dashes_are_as_long_as_told():
    svg = panels(measured({"cpu": (1, 2, 3), "torch": (1, 2, 3), "torch-compile": (2, 3, 4)}))["encode"].svg()
    found = {colour_of(each): [] for each in elements(svg, "path")}
    for each in elements(svg, "path"):
        if style_of(each).get("stroke-width") == "1.3":
            found[colour_of(each)].append(style_of(each).get("stroke-dasharray"))
    assert sorted(found["peer-1"], key=str) == ["7,3.5", None]


def test_spread_moves_as_little_as_possible():
    assert spread([10, 50, 90], 14, 0, 100) == [10, 50, 90]
    assert spread([50, 50], 14, 0, 100) == [43, 57]
    assert spread([52, 50, 51], 10, 0, 100) == [61, 41, 51]
    assert spread([1, 2, 3], 10, 0, 100) == [0, 10, 20]
    assert spread([99, 98], 10, 0, 100) == [100, 90]
    assert spread([], 10, 0, 100) == []
    crowded = spread([5.0] * 30, 10, 0, 100)  # no room: still apart
    assert min(b - a for a, b in itertools.pairwise(sorted(crowded))) == pytest.approx(10)
