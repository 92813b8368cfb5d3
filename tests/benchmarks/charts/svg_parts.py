"""Take a chart's SVG apart: texts, dots, and paths by their colour and width."""

from __future__ import annotations

import re
from xml.etree import ElementTree

SVG = "{http://www.w3.org/2000/svg}"


def style_of(each) -> dict[str, str]:
    return dict(part.split(": ", 1) for part in each.get("style", "").split("; ") if part)


def elements(svg: str, tag: str):
    return [each for each in ElementTree.fromstring(svg).iter() if each.tag.removeprefix(SVG) == tag]


def colour_of(each) -> str:
    """Return the name of the variable, or the colour itself."""
    style = style_of(each)
    found = style.get("stroke") if style.get("fill") == "none" else style.get("fill")
    return re.sub(r"^var\(--(.*)\)$", r"\1", found or "")


def points_of(path) -> list[tuple[float, float]]:
    numbers = [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?(?:e-?\d+)?", path.get("d"))]
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def paths(svg: str, colour: str, width: str | None = None, filled: bool = False):
    """Return the points of the paths of a colour and, if given, a stroke width."""
    found = []
    for each in elements(svg, "path"):
        style = style_of(each)
        fits = colour_of(each) == colour and (style.get("fill") != "none") == filled
        if fits and "transform" not in each.attrib and (width is None or style.get("stroke-width") == width):
            found.append(points_of(each))
    return found


def texts(svg: str, *colours: str) -> dict[str, ElementTree.Element]:
    return {each.text: each for each in elements(svg, "text") if not colours or colour_of(each) in colours}


def place(each, *names: str) -> tuple[float, ...]:
    return tuple(float(each.get(name)) for name in names or ("x", "y"))
