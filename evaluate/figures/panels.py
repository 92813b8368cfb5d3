"""Turn the columns of a figure into panels: pictures with their headings, and figures below."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from deepsim.benchmarks.charts.wording import NBSP, percent, signed
from deepsim.evaluate.figures.document import Grid, Measure, Panel, Picture, Strip
from deepsim.evaluate.figures.drawing import LOOPED, SEED, Drawn, pairs
from deepsim.evaluate.figures.facts import FULL, SQUARED, Facts
from deepsim.evaluate.figures.gallery import Gallery
from deepsim.evaluate.figures.members import Member
from deepsim.evaluate.figures.numbers import Numbers
from deepsim.evaluate.figures.selection import Column, Plate
from deepsim.evaluate.metrics.drift import KEEP
from deepsim.evaluate.paper import TABLE_2, PaperRow
from deepsim.runtime.pixels import Pixels

NONE = "\u2013"
_EQUAL = 1.2  # times as much training as another, from which the page says so
PHOTOGRAPH = "photograph"
_MAHENDRAN, _DOSOVITSKIY, _IMAGE_ALONE, _CONV5 = TABLE_2[:4]


def comparison(plate: Plate, drawn: Mapping[str, Drawn], gallery: Gallery) -> Panel:
    """Show photographs beside what each member made of them, with errors and sharpness, and the paper's own."""
    first = drawn[plate.columns[0].member.origin].photographs
    numbers = [drawn[column.member.origin].numbers for column in plate.columns]
    rows = [
        *_with_theirs("image error", [number.image if number else None for number in numbers], plate, 0),
        *_with_theirs("feature error", [number.feature if number else None for number in numbers], plate, 1),
        (Measure("sharpness"), [_ratio(number.sharpness if number else None) for number in numbers]),
    ]
    counts = [str(number.photographs) if number else NONE for number in numbers]
    if len(set(counts)) > 1:
        rows.append((Measure("photographs"), counts))
    strips = [
        Strip(column.heading, note(column.member), _pictures(column, drawn, gallery), tuple(row[at] for _, row in rows))
        for at, column in enumerate(plate.columns)
    ]
    over = "" if len(set(counts)) > 1 else f"Errors and sharpness are means over {counts[0]} photographs."
    below = " ".join(filter(None, (over, _unequal([column.member for column in plate.columns]))))
    return Panel(plate.title, tuple(measure for measure, _ in rows), (_photographs(first, gallery), *strips), below)


def loop(plate: Plate, drawn: Mapping[str, Drawn], gallery: Gallery) -> Panel:
    """Show photographs, and their pictures after 1, 2, 4 and 8 times of encoding and decoding."""
    member = plate.columns[0].member
    found = drawn[member.origin]
    assert found.iterates is not None, "figure 5 was asked for"
    strips = [
        Strip(
            f"{'iteration ' if place == 0 else ''}{number}",
            "",
            tuple(
                Picture(pixels, f"{gallery.names[at]} after {number} times of encoding and decoding")
                for at, pixels in enumerate(found.iterates[:, place])
            ),
            (_percent(found.loop[place].image), _ratio(found.loop[place].sharpness)),
        )
        for place, number in enumerate(KEEP)
    ]
    measures = (Measure("image error"), Measure("sharpness"))
    shown = found.photographs[:LOOPED]
    over = (
        f"{plate.columns[0].heading}{_comma(note(member))}. Errors and sharpness are means over the photographs shown."
    )
    return Panel(plate.title, measures, (_photographs(shown, gallery), *strips), over)


def line(plate: Plate, drawn: Mapping[str, Drawn], gallery: Gallery) -> Panel:
    """Show pairs of photographs, and pictures of points between their features."""
    member = plate.columns[0].member
    found = drawn[member.origin]
    ends = pairs(found.photographs)
    names = [(gallery.names[2 * at], gallery.names[2 * at + 1]) for at in range(len(ends))]
    steps = len(found.frames[0])
    between = [
        Strip(
            f"{100 * step / (steps - 1):.0f}{NBSP}%",
            "",
            tuple(
                Picture(frames[step], f"Point {step + 1} of {steps} between the features of {one} and {other}")
                for frames, (one, other) in zip(found.frames, names, strict=True)
            ),
            (),
        )
        for step in range(steps)
    ]
    sides = [
        Strip(
            word,
            "",
            tuple(Picture(pair[at], f"Photograph {name[at]}") for pair, name in zip(ends, names, strict=True)),
            (),
        )
        for at, word in enumerate(("from", "to"))
    ]
    over = f"{plate.columns[0].heading}{_comma(note(member))}. Per cent of the way between the features."
    return Panel(plate.title, (), (sides[0], *between, sides[1]), over)


def samples(plate: Plate, drawn: Mapping[str, Drawn], gallery: Gallery) -> Grid:
    """Show pictures of codes that were drawn from a prior."""
    member = plate.columns[0].member
    found = drawn[member.origin]
    assert found.samples is not None, "figure 8 was asked for"
    pictures = tuple(
        Picture(pixels, f"Sample {number} of {plate.title}") for number, pixels in enumerate(found.samples, 1)
    )
    over = f"{len(pictures)} codes from the standard normal prior, seed {SEED}, none left out"
    given = f"{member.name}: " if member.name else ""
    sharp = f"Sharpness {_ratio(found.sample_sharpness)} of the photographs\u2019."
    return Grid(plate.title, pictures, f"{given}{over}{_comma(note(member))}. {sharp}")


def note(member: Member) -> str:
    """Say in a few words how a member was trained."""
    facts = member.facts
    steps = f"{facts.steps:,}{NBSP}steps" if facts.steps is not None else ""
    weights = facts.encoder.weights if facts.encoder and facts.encoder.weights == "published" else ""
    width = f"width{NBSP}{facts.width:g}" if facts.width != 1 else ""
    return ", ".join(filter(None, (steps, width, f"{weights} weights" if weights else "")))


def theirs(facts: Facts) -> PaperRow | None:
    """Return the row of the paper's table for the same method on CaffeNet; None where it has none."""
    if facts.encoder is not None and facts.encoder.name != "caffenet":
        return None
    if facts.method is not None:
        return _MAHENDRAN if facts.method == _MAHENDRAN.method else None
    if facts.generator == "dosovitskiy2015":
        return _DOSOVITSKIY
    if facts.encoder is None or facts.generator != "deepsim":
        return None
    if facts.terms == SQUARED:
        return _IMAGE_ALONE
    compared = facts.comparator
    own = compared is not None and compared.network is None and compared.layer == "pool5"
    return _CONV5 if own and facts.terms == FULL else None


def _with_theirs(
    name: str, values: Sequence[float | None], plate: Plate, place: int
) -> list[tuple[Measure, list[str]]]:
    """Return a row of figures, and one of the paper's below it where it has any."""
    found: list[tuple[Measure, list[str]]] = [(Measure(name), [_percent(value) for value in values])]
    known = []
    for column in plate.columns:
        row, layer = theirs(column.member.facts), str(column.member.facts.layer)
        value = row.errors[layer][place] if row is not None and layer in row.errors else None
        known.append(NONE if value is None else f"{value}{NBSP}%")
    if set(known) != {NONE}:
        found.append((Measure("the paper", is_theirs=True), known))
    return found


def _unequal(members: Sequence[Member]) -> str:
    """Say so where generators that stand side by side were not trained on equal terms."""
    trained = [member.facts.trained for member in members if member.facts.trained]
    if not trained or max(trained) <= _EQUAL * min(trained):
        return ""
    most = f"{max(trained):,} photographs, repeats counted, against {min(trained):,}"
    return f"Not on equal terms: these generators were trained on up to {most}."


def _photographs(pixels: Pixels, gallery: Gallery) -> Strip:
    pictures = tuple(Picture(photo, f"Photograph {name}") for photo, name in zip(pixels, gallery.names, strict=False))
    return Strip(PHOTOGRAPH, "", pictures, ())


def _pictures(column: Column, drawn: Mapping[str, Drawn], gallery: Gallery) -> tuple[Picture, ...]:
    made = drawn[column.member.origin].reconstructions
    assert made is not None, "reconstructions were asked for"
    named = zip(made, gallery.names, strict=False)
    return tuple(Picture(pixels, f"{name} by {column.heading}") for pixels, name in named)


def _percent(value: float | None) -> str:
    return NONE if value is None else percent(value)


def _ratio(value: float | None) -> str:
    return NONE if value is None else signed(value, 2)


def _comma(text: str) -> str:
    return f", {text}" if text else ""


def errors_of(numbers: Numbers | None) -> str:
    """Write a cell of Table 2, "43.1 / 37.2"; a dash for what is not known."""
    if numbers is None:
        return NONE
    image, feature = (NONE if value is None else signed(100 * value, 1) for value in (numbers.image, numbers.feature))
    return f"{image}{NBSP}/{NBSP}{feature}"
