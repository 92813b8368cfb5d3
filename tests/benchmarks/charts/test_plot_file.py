from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import pytest

from deepsim.benchmarks.charts.plot_file import plot_svg
from deepsim.benchmarks.charts.rates import HUES
from deepsim.benchmarks.charts.svg import COLOURS
from deepsim.benchmarks.cli import check_plot
from deepsim.runtime.errors import DeviceError, UsageError
from tests.benchmarks.charts.svg_parts import colour_of, elements, place, points_of, style_of

RESULTS = sorted((Path(__file__).parents[3] / "benchmarks" / "results").glob("*-bench-*.json"))
CSS = (Path(__file__).parents[3] / "evaluate/templates/tokens.css").read_text("utf-8")
SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_every_benchmark_on_record_draws(path):
    record = json.loads(path.read_text())
    svg = plot_svg(record)
    root = ElementTree.fromstring(svg)
    width, height = (float(root.get(name)) for name in ("width", "height"))
    words = [each.text for each in root.iter(f"{SVG}text")]
    assert {row["backend"][:21] for row in record["rows"]} <= {word[:21] for word in words}
    assert {"Encode", "Decode", "Re-encode"} <= set(words)
    assert f"{record['bundle']}: images per second" in words
    sizes = Counter((row["what"], row["backend"]) for row in record["rows"])
    lines = [each for each in elements(svg, "path") if style_of(each).get("stroke-width") in ("2.6", "1.3")]
    assert len(lines) == sum(size > 1 for size in sizes.values())
    assert max((x for each in lines for x, _ in points_of(each)), default=0) < width and height < 600
    assert max(place(each)[0] for each in root.iter(f"{SVG}text")) <= width


def test_is_legible_without_the_page():
    text = plot_svg(json.loads(RESULTS[-1].read_text()))
    root = ElementTree.fromstring(text)
    assert not re.search(r"var\(|url\(|@import|<script|\son\w+=", text)
    assert re.findall(r"https?://[^\"]*", text) == ["http://www.w3.org/2000/svg"]
    rect = root.find(f"{SVG}rect")
    assert (rect.get("width"), rect.get("height")) == (root.get("width"), root.get("height"))
    assert "sans-serif" in root.get("font-family")
    assert {colour_of(each) for each in root.iter(f"{SVG}text")} <= set(COLOURS.values())


def variables(style: str) -> dict[str, str]:
    return dict(re.findall(r"--([\w-]+): (#\w{6})", style))


def contrast(first: str, second: str) -> float:
    """The contrast ratio of WCAG 2: from 1 to 21."""

    def luminance(colour: str) -> float:
        values = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in values]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


def test_labels_are_readable_on_light_and_on_dark():
    light, dark = CSS.split("@media (prefers-color-scheme: dark)", 1)
    for colours in (variables(light), variables(dark)):
        for name in ("first", "second", "third", *(f"peer-{index + 1}" for index in range(HUES))):
            assert contrast(colours[name], colours["paper"]) >= 4.5, name


def test_names_that_xml_cannot_hold():
    row = {"what": "<b>&", "batch": 2, "images_per_second": 5.0, "backend": "\x00\ud800</text><script>"}
    text = plot_svg({"rows": [row, {**row, "batch": 4}], "bundle": '"a\x1b\udcff<svg>'})
    root = ElementTree.fromstring(text.encode())
    assert not list(root.iter(f"{SVG}script"))
    words = [each.text for each in root.iter(f"{SVG}text")]
    assert '"a\ufffd\ufffd<svg>: images per second' in words and "<b>&" in words


@pytest.mark.parametrize(
    ("plot", "output", "words"),
    [
        ("b.png", None, "--plot b.png: no SVG file, expected a name that ends in .svg. Name it b.svg."),
        ("b", None, "Name it b.svg."),
        ("", None, "Name it bench.svg."),
        ("x.svg", "x.svg", "--plot x.svg: the file of -o, expected another."),
        ("folder/../x.svg", "x.svg", "the file of -o"),
    ],
)
def test_names_that_no_plot_can_have(plot, output, words):
    with pytest.raises(UsageError) as caught:
        check_plot(Path(plot), Path(output) if output else None)
    assert words in str(caught.value)


def test_names_that_a_plot_can_have():
    check_plot(None, Path("x.json"))
    check_plot(Path("x.svg"), Path("x.json"))
    check_plot(Path("x.SVG"), None)


def test_a_plot_without_matplotlib_names_its_extra(monkeypatch):
    monkeypatch.setattr("deepsim.benchmarks.cli.find_spec", lambda name: None)
    check_plot(None, None)
    with pytest.raises(DeviceError, match=r"^matplotlib: not installed, this needs deepsim\[bench\]"):
        check_plot(Path("x.svg"), None)
