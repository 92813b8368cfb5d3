"""How the generator was trained: curves, settings, the last samples."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from deepsim.benchmarks.charts.lines import Frame, Line, Shade, line_chart
from deepsim.benchmarks.charts.wording import count, duration, percent, short, significant
from deepsim.evaluate.pictures import picture, thumbnail
from deepsim.evaluate.report.content import Content
from deepsim.evaluate.report.layout import Chart
from deepsim.evaluate.report.training_run import TrainingRun
from deepsim.train import objective

GRID_WIDTH = 1040  # pixels of the sample grid on the page
_OTHER_LOSSES = {"discriminator_loss": "discriminator", "generator_loss": "generator"}  # that are no terms


def panels() -> list[tuple[str, str, bool]]:
    """List the series of the log that are drawn, each with its title and whether its axis is logarithmic."""
    losses = {**{term.name: term.label for term in objective.TERMS}, **_OTHER_LOSSES}
    return [
        *((name, f"{label[0].upper()}{label[1:]} loss", True) for name, label in losses.items()),
        ("validation_error", "Image error, %", False),
        ("validation_kl", "KL of validation codes, nats", False),
        ("collapsed_units", "Collapsed units", False),
        ("images_per_second", "Images per second", False),
    ]


def training(content: Content) -> dict[str, Any]:
    """Return the curves of a run as small multiples, its settings, and its last sample grid."""
    run = content.run
    if run is None:
        return {"missing": "No training run was given: pass its folder with --run for curves, settings and samples."}
    if not run.lines:
        return {"missing": f"The log of {run.path.name} is empty: train for a few steps, then write this report again."}
    return {
        "missing": None,
        "summary": _summary(run),
        "mismatch": _mismatch(content, run),
        "settings": _settings(run),
        "charts": [_chart(run, name, title, log) for name, title, log in panels() if run.series(name)],
        "validated_on": run.validated_on if run.series("validation_error") else None,
        "paused": [(f"paused-{network[0]}", _told(stretches, network)) for stretches, network in _paused(run)],
        "unused": _unused(run),
        "samples": _samples(run),
    }


def _chart(run: TrainingRun, name: str, title: str, log: bool) -> Chart:
    points = run.series(name)
    scale = 100.0 if name == "validation_error" else 1.0
    shades = [Shade(stretches, f"pause-{network[0]}") for stretches, network in _paused(run)]
    colour = "second" if name == "images_per_second" else "first"
    line = Line([(float(step), value * scale) for step, value in points], colour, dots=len(points) < 20)
    (_, first), (_, last) = points[0], points[-1]
    write = percent if scale == 100 else short
    frame = Frame(log=log, x_range=(0, run.steps))
    svg = line_chart(f"{title}: {write(first)} at the start, {write(last)} at the end", [line], shades, frame)
    return Chart(Markup(svg), title, f"{write(first)} \u2192 {write(last)}")


def _summary(run: TrainingRun) -> str:
    seen = f": {run.images_seen:,} training crops, repeats counted" if run.images_seen else ""
    rate = f", {significant(run.images_seen / run.seconds)} per second" if run.images_seen and run.seconds else ""
    source = f" Trained on {run.data}." if run.data else ""
    minutes = run.config.get("minutes")
    budget = f" (by the clock: {minutes:g} minutes)" if isinstance(minutes, float) and minutes > 0 else ""
    return f"{run.steps:,} steps in {duration(run.seconds)}{budget}{seen}{rate}.{source}"


def _mismatch(content: Content, run: TrainingRun) -> str | None:
    """Say so where the bundle records another run, or another step of this one, than the curves show."""
    made = content.manifest.provenance
    name, step = made.get("run"), made.get("step")
    if name is not None and name != run.path.resolve().name:
        return f"The bundle was exported from a run named {name}, these curves are of {run.path.resolve().name}."
    if isinstance(step, int) and step != run.steps:
        return f"The bundle was exported at step {step:,}; the log goes to step {run.steps:,}."
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


def _told(stretches: list[tuple[int, int]], network: str) -> str:
    steps = sum(last - first for first, last in stretches)
    return f" {network} paused, {count(steps, 'step')} in all."


def _unused(run: TrainingRun) -> str:
    unused = [term.weight for term in objective.TERMS if run.config.get(term.weight) == 0]
    verb = "is" if len(unused) == 1 else "are"
    return f" Not used in this run: {', '.join(unused)} {verb} 0." if unused else ""


def _paused(run: TrainingRun) -> list[tuple[list[tuple[int, int]], str]]:
    """Return stretches and name of each network that ever paused; without adversarial training nothing does."""
    if not run.series("discriminator_loss"):
        return []
    return [(run.pauses(name), name) for name in ("discriminator", "generator") if run.pauses(name)]


def _samples(run: TrainingRun) -> dict[str, Any] | None:
    grid = run.last_grid
    if grid is None:
        return None
    step, pixels = grid
    image = picture(thumbnail(pixels, GRID_WIDTH), f"Sample grid at step {step}")
    return {"picture": image, "step": f"{step:,}"}
