"""What there is to look at: photographs beside reconstructions, re-encoding, interpolation."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from deepsim.benchmarks.charts.lines import Frame, Line, line_chart
from deepsim.benchmarks.charts.wording import count, percent, signed
from deepsim.evaluate.metrics.drift import ITERATIONS, KEEP, RULE, Reencoding
from deepsim.evaluate.pictures import MAP_TOP, error_map, picture
from deepsim.evaluate.report.content import Content
from deepsim.evaluate.report.figures import PhotoError
from deepsim.evaluate.report.layout import Table

STRIPS = 3  # photographs whose re-encoding is shown


def comparison(content: Content) -> dict[str, Any]:
    """Return photographs beside their reconstructions, with the error of each, and error maps on demand."""
    pairs = [_pair(content, index) for index in range(content.shown)]
    return {"selection": _selection(content), "map_top": MAP_TOP, "pairs": pairs}


def reencoding(content: Content) -> dict[str, Any]:
    """Return what repeated encoding and decoding does, with its chart and verdict."""
    loop = content.figures.reencoding
    return {
        "verdict": _verdict(loop),
        "rule": RULE,
        "iterations": len(loop.errors),
        "plain": f"{loop.plain:.1f}",
        "looped": count(len(content.pictures.iterates), "photograph"),
        "numbers": _numbers(loop),
        "chart": _loop_chart(loop),
        "titles": [f"iteration {KEEP[0]}", *map(str, KEEP[1:])],
        "strips": [_strip(content, index) for index in range(min(STRIPS, len(content.pictures.iterates)))],
    }


def interpolation(content: Content) -> dict[str, Any]:
    """Return the decoded features between pairs of photographs."""
    return {"pairs": [_interpolation(content, pair) for pair in content.pictures.frames]}


def _pair(content: Content, index: int) -> dict[str, Any]:
    error = content.figures.photos[index]
    photo, image = content.pictures.photos[index], content.pictures.reconstructions[index]
    return {
        "photo": picture(photo, f"Photograph {error.name}"),
        "image": picture(image, f"Reconstruction of {error.name}"),
        "map": picture(error_map(image, photo), f"Absolute error on {error.name}", "map"),
        "name": error.name,
        "error": _error_text(error),
    }


def _error_text(error: PhotoError) -> str:
    levels = f"RMSE {signed(error.rmse, 1)}"
    return levels if error.normalized is None else f"{levels} \u00b7 {percent(error.normalized)}"


def _selection(content: Content) -> str:
    measured, shown, found = len(content.figures.photos), content.shown, content.figures.found
    spread = f", spread evenly over the {found:,} in the folder" if found > measured else " in the folder"
    if shown == measured:
        return f"These are all {measured:,} measured{spread}; none was picked." if measured > 1 else ""
    return f"These are the first {shown:,} of {measured:,} measured{spread}; none was picked."


def _verdict(loop: Reencoding) -> str:
    first, last = loop.steps[0], loop.steps[-1]
    change = (
        f"the step falls from {first:.1f} to {last:.1f}"
        if last < first
        else f"the step goes from {first:.1f} to {last:.1f}"
    )
    error = f"the error to the photograph goes from {loop.errors[0]:.1f} to {loop.errors[-1]:.1f}"
    says = {
        "settles": "The loop settles and does not diverge",
        "drifts": "The loop drifts but does not diverge",
        "diverges": "The loop diverges",
    }
    lost = ""
    if loop.errors[-1] > loop.plain:
        lost = (
            f" By then each photograph\u2019s mean colour, at {loop.plain:.1f}, is nearer to it: little of it is left."
        )
    return f"{says[loop.verdict]}: {change} grey levels, and {error}.{lost}"


def _loop_chart(loop: Reencoding) -> Markup:
    errors = [(index + 1, value) for index, value in enumerate(loop.errors)]
    steps = [(index + 2, value) for index, value in enumerate(loop.steps)]
    chart = line_chart(
        f"Error to the photograph from {loop.errors[0]:.1f} to {loop.errors[-1]:.1f} and change per iteration from "
        f"{loop.steps[0]:.1f} to {loop.steps[-1]:.1f} grey levels over {ITERATIONS} iterations",
        [Line(errors, "first", "error", dots=True), Line(steps, "second", "step", dots=True)],
        frame=Frame(width=440, height=230, right=56, every=True),
    )
    return Markup(chart)


def _numbers(loop: Reencoding) -> Table:
    steps: tuple[float | None, ...] = (None, *loop.steps)
    rows = [
        [str(index), signed(error, 2), "\u2013" if step is None else signed(step, 2)]
        for index, (error, step) in enumerate(zip(loop.errors, steps, strict=True), 1)
    ]
    return Table("Grey levels RMSE", ["Iteration", "Error", "Step"], rows)


def _strip(content: Content, index: int) -> tuple[Markup, list[Markup]]:
    """Return a photograph, and its image after each of the iterations that were kept."""
    name = content.figures.photos[index].name
    images = [
        picture(content.pictures.iterates[index, number - 1], f"{name} after {count(number, 'iteration')}")
        for number in KEEP
    ]
    return picture(content.pictures.photos[index], f"Photograph {name}"), images


def _interpolation(content: Content, pair: tuple[int, int]) -> dict[str, Any]:
    first, second = pair
    names = [content.figures.photos[index].name for index in pair]
    frames = content.pictures.frames[pair]
    decoded = [picture(frame, f"Decoded features, point {at} of {len(frames)}") for at, frame in enumerate(frames, 1)]
    return {
        "names": names,
        "start": picture(content.pictures.photos[first], f"Photograph {names[0]}"),
        "decoded": decoded,
        "end": picture(content.pictures.photos[second], f"Photograph {names[1]}"),
    }
