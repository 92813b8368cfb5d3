"""How the generator was trained: curves, settings, the last samples."""

from __future__ import annotations

from deepsim.benchmarks.charts.charts import Frame, Line, Shade, line_chart
from deepsim.benchmarks.charts.markup import Html, element, join
from deepsim.benchmarks.charts.wording import count, duration, percent, short, significant
from deepsim.evaluate.report.content import Content
from deepsim.evaluate.report.layout import facts, figure, note, paragraph, section
from deepsim.evaluate.report.pictures import picture, thumbnail
from deepsim.evaluate.report.training_run import TrainingRun
from deepsim.train import objective

GRID_WIDTH = 1040  # pixels of the sample grid on the page


def panels() -> list[tuple[str, str, bool]]:
    """List the series of the log that are drawn, each with its title and whether its axis is logarithmic."""
    losses = [*(term.name for term in objective.TERMS), "discriminator_loss", "generator_loss"]
    return [
        *((name, name.replace("_", " ").capitalize(), True) for name in losses),
        ("validation_error", "Image error, %", False),
        ("images_per_second", "Images per second", False),
    ]


def training(content: Content) -> Html:
    """Show the curves of a run as small multiples, its settings, and its last sample grid."""
    run = content.run
    if run is None:
        body: Html = note("No training run was given: pass its folder with --run for curves, settings and samples.")
    elif not run.lines:
        body = note(f"The log of {run.path.name} is empty: train for a few steps, then write this report again.")
    else:
        drawn = [_panel(run, name, title, log) for name, title, log in panels() if run.series(name)]
        body = join(
            paragraph(_summary(run)),
            _mismatch(content, run),
            facts(_settings(run), "facts columns"),
            element("div", *drawn, class_="panels"),
            paragraph(_reading(run), style="small"),
            _samples(run),
        )
    return section("training", "Training", body)


def _panel(run: TrainingRun, name: str, title: str, log: bool) -> Html:
    points = run.series(name)
    scale = 100.0 if name == "validation_error" else 1.0
    shades = [Shade(stretches, style) for stretches, style, _ in _paused(run)]
    style = "second" if name == "images_per_second" else "first"
    line = Line([(float(step), value * scale) for step, value in points], style, dots=len(points) < 20)
    (_, first), (_, last) = points[0], points[-1]
    write = percent if scale == 100 else short
    frame = Frame(log=log, x_range=(0, run.steps))
    chart = line_chart(f"{title}: {write(first)} at the start, {write(last)} at the end", [line], shades, frame)
    ends = element("span", f"{write(first)} \u2192 {write(last)}", class_="number")
    return figure(chart, join(element("span", title, class_="name"), ends), "panel")


def _summary(run: TrainingRun) -> str:
    seen = f": {run.images_seen:,} training crops, repeats counted" if run.images_seen else ""
    rate = f", {significant(run.images_seen / run.seconds)} per second" if run.images_seen and run.seconds else ""
    source = f" Trained on {run.data}." if run.data else ""
    minutes = run.config.get("minutes")
    budget = f" (by the clock: {minutes:g} minutes)" if isinstance(minutes, float) and minutes > 0 else ""
    return f"{run.steps:,} steps in {duration(run.seconds)}{budget}{seen}{rate}.{source}"


def _mismatch(content: Content, run: TrainingRun) -> Html | None:
    """Say so where the bundle records another run, or another step of this one, than the curves show."""
    made = content.manifest.provenance
    name, step = made.get("run"), made.get("step")
    if name is not None and name != run.path.resolve().name:
        return note(f"The bundle was exported from a run named {name}, these curves are of {run.path.resolve().name}.")
    if isinstance(step, int) and step != run.steps:
        return note(f"The bundle was exported at step {step:,}; the log goes to step {run.steps:,}.")
    return None


def _settings(run: TrainingRun) -> list[tuple[str, str]]:
    config = run.config
    names = {
        "width": "Width of the generator",
        "batch": "Batch",
        "learning_rate": "Learning rate",
        "schedule": "Schedule",
        "comparator": "Comparator",
        **{term.weight: f"\u03bb {term.label}" for term in objective.TERMS},
        "normalisation": "Loss normalisation",
        "precision": "Precision",
        "seed": "Seed",
    }
    return [(title, _value(config[name])) for name, title in names.items() if config.get(name) not in (None, "")]


def _value(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _reading(run: TrainingRun) -> Html:
    """Explain the panels, and the shading where there is any."""
    text = (
        "Steps along the bottom; losses on logarithmic axes, that of the generator being the weighted sum of its "
        "parts. Where points are many, the line is their median and the "
        "band their range. Images per second are those of a step, without reading the photographs."
    )
    if run.series("validation_error"):
        text += f" The image error is normalised, and that of the samples below: {run.validated_on}."
    swatches = []
    for stretches, style, network in _paused(run):
        steps = sum(last - first for first, last in stretches)
        swatch = element("i", class_=f"swatch {style}")
        paused = f" {network} paused, {count(steps, 'step')} in all."
        swatches.append(join(" ", element("span", swatch, paused, class_="together")))
    unused = [term.weight for term in objective.TERMS if run.config.get(term.weight) == 0]
    off = f" Not used in this run: {', '.join(unused)} is 0." if len(unused) == 1 else ""
    off = f" Not used in this run: {', '.join(unused)} are 0." if len(unused) > 1 else off
    return join(text, *swatches, off)


def _paused(run: TrainingRun) -> list[tuple[list[tuple[int, int]], str, str]]:
    """Return stretches, style and name of each network that ever paused; without adversarial training nothing does."""
    if not run.series("discriminator_loss"):
        return []
    networks = (("discriminator", "paused-d"), ("generator", "paused-g"))
    return [(run.pauses(name), style, name) for name, style in networks if run.pauses(name)]


def _samples(run: TrainingRun) -> Html | None:
    grid = run.last_grid
    if grid is None:
        return None
    step, pixels = grid
    image = picture(thumbnail(pixels, GRID_WIDTH), f"Sample grid at step {step}")
    return figure(
        image, f"Samples that training wrote at step {step:,}: originals above, reconstructions below.", "grid"
    )
