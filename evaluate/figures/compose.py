"""Put the page together: every figure of the paper that the runs allow, and what the others need."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from deepsim.benchmarks.charts.wording import count, listed
from deepsim.evaluate.figures import panels, selection, tables, wants
from deepsim.evaluate.figures.document import Document, Figure, Grid, Missing, Panel
from deepsim.evaluate.figures.drawing import Drawn, Studio, Task
from deepsim.evaluate.figures.gallery import Gallery
from deepsim.evaluate.figures.members import Member
from deepsim.evaluate.figures.selection import Plate, Plates
from deepsim.evaluate.figures.wants import Want
from deepsim.evaluate.paper import SOURCE

TITLE = "The figures of the DeePSiM paper"
LEAD = (
    "Dosovitskiy & Brox 2016 turn features of a network back into pictures, and compare pictures by features and by a "
    "discriminator, not by pixels alone. These are the figures of their paper, in its order and layout, drawn from the "
    "runs and bundles listed at the end."
)
THEIRS = (
    f"Lines that say \u201cthe paper\u201d hold its own figures ({SOURCE}). They are of a trained CaffeNet, of "
    "ImageNet photographs and of 500,000 steps and more; none of them is a result of these runs."
)
MEANINGS = (
    "An error is the mean distance between a picture and its photograph, in pixels or in features of the inverted "
    "layer, over the mean distance between two different photographs: 100 % is what a random photograph scores.",
    "Sharpness is the energy of brightness gradients over that of the photographs: 1 is as sharp as they are. Noise "
    "and checkerboards raise it too.",
)


@dataclass(frozen=True)
class Recipe:
    """How one figure is chosen, drawn and described; ``makes`` turns a plate into what is shown of it."""

    anchor: str
    title: str
    lead: str
    task: Task
    choose: Callable[[Sequence[Member]], Plates]
    want: Callable[[Plates, Sequence[Member]], Want | None]
    makes: Callable[[Plate, Mapping[str, Drawn], Gallery], Panel | Grid]


RECIPES = (
    Recipe(
        "figure-1",
        "Figure 1. The parts of the objective",
        "One layer, inverted by generators that differ in their losses alone. Squared error by itself averages over "
        "all pictures that fit the features, which blurs; the other two terms are to keep pictures sharp.",
        "reconstruct",
        selection.ablation,
        wants.ablation,
        panels.comparison,
    ),
    Recipe(
        "figure-3",
        "Figure 3. Layers",
        "The same photographs from layers of rising depth: the deeper the layer, the less of the picture it keeps.",
        "reconstruct",
        selection.layers,
        wants.layers,
        panels.comparison,
    ),
    Recipe(
        "figure-4",
        "Figure 4. Against the baselines",
        "The same features, turned into pictures by other methods.",
        "reconstruct",
        selection.baselines,
        wants.baselines,
        panels.comparison,
    ),
    Recipe(
        "figure-5",
        "Figure 5. Encoding and decoding again",
        "A picture is made from a photograph\u2019s features, then from the picture\u2019s own features, and so on. "
        "Whatever changes is the loop\u2019s doing.",
        "reencode",
        selection.reencoding,
        wants.inversion,
        panels.loop,
    ),
    Recipe(
        "figure-6",
        "Figure 6. Comparators",
        "One layer, inverted with one objective whose feature loss looks through different networks.",
        "reconstruct",
        selection.comparators,
        wants.comparators,
        panels.comparison,
    ),
    Recipe(
        "figure-7",
        "Figure 7. From one photograph to another",
        "Points on the straight line between the features of two photographs, both ends included, each decoded.",
        "interpolate",
        selection.interpolation,
        wants.inversion,
        panels.line,
    ),
    Recipe(
        "figure-8",
        "Figure 8. Samples of variational autoencoders",
        "Codes are drawn from the prior and decoded; no photograph goes in.",
        "sample",
        selection.samples,
        wants.samples,
        panels.samples,
    ),
)
TABLE_TITLE = "Table 2. Errors in image and feature space"


def asked(members: Sequence[Member]) -> dict[Member, set[Task]]:
    """Return what has to be drawn of each member for all figures and the table."""
    tasks: dict[Member, set[Task]] = {}
    for recipe in RECIPES:
        for plate in recipe.choose(members):
            for column in plate.columns:
                tasks.setdefault(column.member, set()).add(recipe.task)
    for by_layer in selection.rows(members).values():
        for member in by_layer.values():
            tasks.setdefault(member, set()).add("reconstruct")
    return tasks


def compose(members: Sequence[Member], studio: Studio) -> Document:
    """Put the page together from what the studio has drawn of :func:`asked`."""
    figures: list[Figure] = []
    missing: list[Missing] = []
    used: dict[str, list[str]] = {}
    for recipe in RECIPES:
        plates = recipe.choose(members)
        want = recipe.want(plates, members)
        if plates:
            parts = tuple(recipe.makes(plate, studio.drawn, studio.gallery) for plate in plates)
            figures.append(Figure(recipe.anchor, recipe.title, recipe.lead, parts, want))
        elif want is not None:
            missing.append(Missing(recipe.title, want))
        for origin in {column.member.origin: None for plate in plates for column in plate.columns}:
            used.setdefault(origin, []).append(recipe.title.partition(".")[0])
    _table(members, studio, figures, missing, used)
    conditions = (_measured(studio), *MEANINGS, THEIRS)
    return Document(TITLE, LEAD, conditions, tuple(figures), tuple(missing), tables.sources(members, used))


def _table(
    members: Sequence[Member],
    studio: Studio,
    figures: list[Figure],
    missing: list[Missing],
    used: dict[str, list[str]],
) -> None:
    """Add Table 2 to the figures, or to what is missing."""
    rows = selection.rows(members)
    for member in {member.origin: member for by_layer in rows.values() for member in by_layer.values()}:
        used.setdefault(member, []).append("Table 2")
    want = wants.table(rows, members)
    if want is not None:
        missing.append(Missing(TABLE_TITLE, want))
        return
    lead = "Ours first, then the paper\u2019s own. Each cell is the image error / the feature error, in per cent."
    figures.append(Figure("table-2", TABLE_TITLE, lead, (tables.errors(rows, studio.drawn),)))


def _measured(studio: Studio) -> str:
    """Say which photographs are shown, and which the figures below the pictures are of."""
    gallery = studio.gallery
    measured = len(gallery.photographs)
    few = " That is too few for a benchmark." if measured < 30 else ""
    left = f", spread over the {measured + gallery.apart:,} found" if gallery.apart else ""
    shown = f"all {measured}" if gallery.shown == measured else f"the first {gallery.shown} of {measured}"
    own = f"Shown are {shown} {gallery.where}{left}; none was picked."
    evaluated = [drawn for drawn in studio.drawn.values() if drawn.is_evaluated and drawn.numbers]
    if not evaluated:
        return f"{own} Errors and sharpness are means over {count(measured, 'photograph')}.{few}"
    counts = sorted({drawn.numbers.photographs for drawn in evaluated if drawn.numbers})
    over = listed([f"{number:,}" for number in counts])
    others = "" if len(evaluated) == len(studio.drawn) else f"; others are over the {measured} photographs here"
    source = f"come from deepsim evaluate where it measured a run, over {over} photographs{others}"
    return f"{own} Errors and sharpness {source}."
