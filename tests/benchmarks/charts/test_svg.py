"""Drawings: on a page the style sheet colours them, as files they need nothing, and equal ones are equal bytes."""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib
import pytest

from deepsim.benchmarks.charts.lines import Line, line_chart
from deepsim.benchmarks.charts.svg import COLOURS, PAPER, Drawing, drawable
from tests.benchmarks.charts.svg_parts import elements, place, style_of, texts

CSS = (Path(__file__).parents[3] / "evaluate/templates/tokens.css").read_text("utf-8")


def variables(style: str) -> dict[str, str]:
    return dict(re.findall(r"--([\w-]+): (#\w{6})", style))


@pytest.fixture
def drawing():
    drawing = Drawing(200, 100)
    axes = drawing.axes(40, 190, 10, 80)
    axes.set_xlim(0, 10)
    drawing.dots(axes, [(5, 0.5)], "first", 3.25, ["five <&>"])
    drawing.text("$x_1$ <b>\n\x00&", 20, 30, "right", "second", 14, bold=True)
    drawing.block(10, 20, 30, 40, "third", 0.5)
    drawing.line([(1, 2), (3, 4)], "peer-6", 0.7)
    return drawing


def test_colours_are_those_of_the_light_page_and_exist_in_the_dark_one():
    light, dark = CSS.split("@media (prefers-color-scheme: dark)", 1)
    solid = {name: colour for name, colour in COLOURS.items() if not name.startswith("pause")}
    assert solid | {"paper": PAPER} == {name: variables(light)[name] for name in (*solid, "paper")}
    for name in COLOURS:
        assert f"--{name}: " in light and f"--{name}: " in dark
    assert len(set(COLOURS.values())) == len(COLOURS)  # each is replaced by one variable


def test_on_a_page_every_colour_is_a_variable(drawing):
    svg = drawing.inline("what it shows")
    assert not re.search(r"#[0-9a-fA-F]{3,8}", svg)
    assert set(re.findall(r"var\(--([\w-]+)\)", svg)) == {"first", "second", "third", "peer-6", "soft", "rule"}
    assert 'role="img"' in svg and 'aria-label="what it shows"' in svg


def test_nothing_is_referred_to_and_faces_are_the_readers(drawing):
    for svg in (drawing.inline(""), drawing.file("")):
        assert not re.search(r"url\(|href|<defs|<style|clip-path|\bid=|DejaVu|http(?!://www.w3.org/2000/svg\")", svg)
    assert "font-family" not in drawing.inline("")


def test_marks_stand_where_they_were_put(drawing):
    svg = drawing.file("all")
    (dot,) = elements(svg, "circle")
    assert place(dot, "cx", "cy", "r") == (115, 45, 3.2) and dot[0].text == "five <&>"
    words = texts(svg)["$x_1$ <b>\ufffd\ufffd&"]  # no formula, no second line
    assert place(words) == (20, 30) and style_of(words)["text-anchor"] == "end"
    assert (style_of(words)["font-size"], style_of(words)["font-weight"]) == ("14px", "600")
    assert elements(svg, "title")[0].text == "all"
    assert [(each.get("width"), each.get("height")) for each in elements(svg, "svg")] == [("200", "100")]
    assert "M 10 60 L 40 60 L 40 20 L 10 20" in svg and "M 1 2 L 3 4" in svg


def test_equal_drawings_are_equal_bytes_whatever_the_reader_set():
    def drawn():
        return line_chart("x", [Line([(0, 1), (1, 3)], "first", dots=True)])

    before = drawn()
    mine = {"lines.linestyle": ":", "axes.grid.axis": "x", "font.size": 30, "svg.fonttype": "path"}
    with matplotlib.rc_context(mine):
        assert drawn() == before
        assert matplotlib.rcParams["svg.fonttype"] == "path"  # put back


@pytest.mark.parametrize(
    ("text", "shown"), [("a\u00a0b", "a\u00a0b"), ("\ud800\x1b", "\ufffd\ufffd"), ("\u4e2d", "\u4e2d")]
)
def test_what_xml_cannot_hold_is_replaced(text, shown):
    assert drawable(text) == shown
    drawing = Drawing(50, 20)
    drawing.text(text, 1, 10)
    assert shown in texts(drawing.file(""))
