"""What there is to look at: photographs beside reconstructions, re-encoding, interpolation."""

from __future__ import annotations

from deepsim.benchmarks.charts.charts import Frame, Line, line_chart
from deepsim.benchmarks.charts.markup import Html, element, join
from deepsim.benchmarks.charts.wording import count, percent, signed
from deepsim.evaluate.report.content import Content
from deepsim.evaluate.report.figures import PhotoError
from deepsim.evaluate.report.layout import details, figure, note, paragraph, section, strong, table
from deepsim.evaluate.report.pictures import MAP_TOP, error_map, picture
from deepsim.evaluate.report.reencoding import ITERATIONS, KEEP, RULE, Reencoding

STRIPS = 3  # photographs whose re-encoding is shown


def comparison(content: Content) -> Html:
    """Show photographs beside their reconstructions, with the error of each, and error maps on demand."""
    gallery = element("div", *(_pair(content, index) for index in range(content.shown)), class_="gallery")
    scale = element("span", element("i"), f" 0 to {MAP_TOP} grey levels or more", class_="scale")
    return section(
        "comparison",
        "Photographs and reconstructions",
        paragraph(
            "Left the photograph, right what the generator made of its features. ",
            _selection(content),
            " The percentage is the normalised image error.",
        ),
        element("input", type="checkbox", id="maps"),
        element("label", "Show where the reconstructions are wrong", scale, for_="maps"),
        gallery,
    )


def reencoding(content: Content) -> Html:
    """Show what repeated encoding and decoding does, with its chart and verdict."""
    loop = content.figures.reencoding
    text = element("div", paragraph(strong(_verdict(loop))), paragraph(_rule(loop), style="small"), _numbers(loop))
    chart = figure(
        _loop_chart(loop),
        f"Mean over {count(len(content.pictures.iterates), 'photograph')}, in grey levels RMSE (0 to 255), against the "
        "number of times encoded and decoded.",
    )
    return section(
        "reencoding",
        "Encoding and decoding again",
        paragraph(
            "Each reconstruction is put through the encoder and the generator again, up to eight times. A generator "
            "that keeps to natural images changes little; one with a bias of its own amplifies it at each turn."
        ),
        element("div", text, chart, class_="split"),
        figure(_strips(content), "Photographs, and the images after 1, 2, 4 and 8 iterations."),
    )


def interpolation(content: Content) -> Html:
    """Show the decoded features between pairs of photographs."""
    if not content.pictures.frames:
        body: Html = note("Interpolation needs two photographs or more: add some to the folder of --photos.")
    else:
        body = join(
            paragraph(
                "Eight points on the straight line between the features of two photographs, both ends included, each "
                "decoded; the photographs themselves stand outside. Cross-fading means that the generator has learned "
                "pixels; shapes that move or turn into each other would mean that it has learned more."
            ),
            *(_interpolation(content, pair) for pair in content.pictures.frames),
        )
    return section("interpolation", "From one photograph to another", body)


def _pair(content: Content, index: int) -> Html:
    error = content.figures.photos[index]
    photo, image = content.pictures.photos[index], content.pictures.reconstructions[index]
    right = element(
        "div",
        picture(image, f"Reconstruction of {error.name}"),
        picture(error_map(image, photo), f"Absolute error on {error.name}", "map"),
        class_="stack",
    )
    caption = join(element("span", error.name, class_="name"), element("span", _error_text(error), class_="number"))
    duo = element("div", picture(photo, f"Photograph {error.name}"), right, class_="duo")
    return figure(duo, caption, "pair")


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


def _rule(loop: Reencoding) -> str:
    return (
        f"The rule, fixed beforehand: the loop {RULE}. The first step is the change from iteration 1 to 2, the last "
        f"one from {len(loop.errors) - 1} to {len(loop.errors)}; the mean colour scores {loop.plain:.1f}."
    )


def _loop_chart(loop: Reencoding) -> Html:
    errors = [(index + 1, value) for index, value in enumerate(loop.errors)]
    steps = [(index + 2, value) for index, value in enumerate(loop.steps)]
    return line_chart(
        f"Error to the photograph from {loop.errors[0]:.1f} to {loop.errors[-1]:.1f} and change per iteration from "
        f"{loop.steps[0]:.1f} to {loop.steps[-1]:.1f} grey levels over {ITERATIONS} iterations",
        [Line(errors, "first", "error", dots=True), Line(steps, "second", "step", dots=True)],
        frame=Frame(width=440, height=230, right=56, every=True),
    )


def _numbers(loop: Reencoding) -> Html:
    steps: tuple[float | None, ...] = (None, *loop.steps)
    rows = [
        [str(index), signed(error, 2), "\u2013" if step is None else signed(step, 2)]
        for index, (error, step) in enumerate(zip(loop.errors, steps, strict=True), 1)
    ]
    return details("The numbers", table("Grey levels RMSE", ["Iteration", "Error", "Step"], rows))


def _strips(content: Content) -> Html:
    titles = (f"iteration {KEEP[0]}", *map(str, KEEP[1:]))
    gap = element("td", class_="gap")
    columns = (element("th", title, scope="col") for title in titles)
    head = element("tr", element("th", "photograph", scope="col"), gap, *columns)
    rows = []
    for index in range(min(STRIPS, len(content.pictures.iterates))):
        name = content.figures.photos[index].name
        images = [
            picture(content.pictures.iterates[index, number - 1], f"{name} after {count(number, 'iteration')}")
            for number in KEEP
        ]
        photo = element("td", picture(content.pictures.photos[index], f"Photograph {name}"))
        rows.append(element("tr", photo, gap, *(element("td", image) for image in images)))
    return element("table", element("thead", head), element("tbody", *rows), class_="strip")


def _interpolation(content: Content, pair: tuple[int, int]) -> Html:
    first, second = pair
    names = [content.figures.photos[index].name for index in pair]
    frames = content.pictures.frames[pair]
    start = picture(content.pictures.photos[first], f"Photograph {names[0]}")
    end = picture(content.pictures.photos[second], f"Photograph {names[1]}")
    decoded = [picture(frame, f"Decoded features, point {at} of {len(frames)}") for at, frame in enumerate(frames, 1)]
    strip = element("div", start, element("div", *decoded, class_="between"), end, class_="frames")
    return figure(strip, f"From {names[0]} to {names[1]}.")
