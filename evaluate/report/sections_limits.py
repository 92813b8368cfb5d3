"""What so much training, on this layer and with this encoder, can and cannot show."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from deepsim.benchmarks.charts.wording import count, duration, percent, signed, significant
from deepsim.evaluate.report.coarse import CLEAR, GRID
from deepsim.evaluate.report.content import Content
from deepsim.evaluate.report.layout import code
from deepsim.train.module_references import is_module_reference, parse

FULL_TRAINING = 500_000 * 64  # images seen in the paper's shortest training

RANDOM = "random weights"  # what a bundle's provenance says of a generator that was never trained

Point = tuple[str, str | Markup]  # what, and why


def limits(content: Content) -> dict[str, Any]:
    """Say in plain words what the pictures and figures above mean, and what they do not."""
    run = content.run
    nothing: list[Point] = [("Nothing yet.", "What a longer training should show stands beside.")]
    return {
        "subject": f"{duration(run.seconds)} of training" if run and run.seconds else "these pictures",
        "who": "It" if run and run.seconds else "They",
        "can": _can(content) or nothing,
        "cannot": _cannot(content),
    }


def _can(content: Content) -> list[Point]:
    coarse = content.figures.coarse
    points: list[Point] = []
    least = _least_margin(content)
    if least > 0:
        why = (
            f"Every guess without features is beaten, the hardest by {percent(least)}: so much of the photographs is "
            f"still in {content.layer}, and the generator has learned to read it."
        )
        points.append(("That the features hold these pictures.", why))
    if _clear(coarse.brightness):
        points.append(("Layout.", f"Where things are and how bright they are: {_correlation(coarse.brightness)}."))
    if _clear(coarse.colour):
        points.append(("Colour.", f"Which colours there are, and where: {_correlation(coarse.colour)}."))
    if _clear(coarse.brightness) and _clear(coarse.colour):
        why = "Swapped channels, a forgotten mean or a shifted crop would be plain to see in the pairs above."
        points.append(("That pixels pass correctly from end to end.", why))
    return points


def _missing(content: Content) -> list[Point]:
    """Name what a reconstruction should have and these do not have yet."""
    coarse = content.figures.coarse
    points: list[Point] = []
    if _least_margin(content) <= 0:
        why = "Not yet: at least one guess without features is as near to the photographs as the reconstruction."
        points.append(("That the features hold these pictures.", why))
    if coarse.brightness is not None and not _clear(coarse.brightness):
        points.append(("Layout.", f"Not learned yet: {_correlation(coarse.brightness)}."))
    if coarse.colour is not None and not _clear(coarse.colour):
        points.append(("Colour.", f"Not learned yet: {_correlation(coarse.colour)}."))
    return points


def _clear(correlation: float | None) -> bool:
    return correlation is not None and correlation >= CLEAR


def _correlation(value: float | None) -> str:
    number = "none" if value is None else signed(value, 2)
    return f"the correlation over a grid of {GRID} by {GRID} cells is {number} (1 would be perfect)"


def _least_margin(content: Content) -> float:
    return min(error.margin or 0.0 for error in content.figures.baselines)


def _cannot(content: Content) -> list[Point]:
    config, steps = _training(content)
    points = [*_about_training(config, steps, content.layer), *_about_encoder(config, content)]
    if content.manifest.provenance.get("from") == RANDOM:
        points = [("Anything at all.", "Encoder and generator hold random weights; nothing was trained.")]
    photos = len(content.figures.photos)
    no = f"{count(photos, 'photograph')} {'is' if photos == 1 else 'are'} no benchmark"
    return [
        *_missing(content),
        *points,
        (
            "How it does on other photographs.",
            f"{no}: other ones, or more of them, move every percentage on this page. The paper measured on "
            "ImageNet\u2019s validation set.",
        ),
    ]


def _training(content: Content) -> tuple[dict[str, Any], int]:
    """Return settings and steps of the training, from the run or, without it, from what the bundle records."""
    if content.run:
        return content.run.config, content.run.steps
    config, step = (content.manifest.provenance.get(name) for name in ("config", "step"))
    return config if isinstance(config, dict) else {}, step if isinstance(step, int) else 0


def _about_training(config: dict[str, Any], steps: int, layer: str) -> list[Point]:
    points: list[Point] = []
    batch = config.get("batch")
    seen = steps * batch if isinstance(batch, int) else 0
    if 0 < seen < FULL_TRAINING / 10:
        times = significant(FULL_TRAINING / seen, 2)
        why = (
            f"The generator saw {seen:,} crops; the paper\u2019s saw {FULL_TRAINING:,} or more, {times} "
            f"times as many. Blur and grain here are those of a young generator, and say nothing about what {layer} "
            "has lost."
        )
        points.append(("Fine texture.", why))
    if config.get("lambda_adv") == 0:
        why = (
            "It was off in this run. Without it a generator averages over everything that fits the features, which is "
            "what blur is."
        )
        points.append(("What the adversarial loss adds.", why))
    return points


def _about_encoder(config: dict[str, Any], content: Content) -> list[Point]:
    """Warn about random encoder weights: the configuration names no file for those, and the encoder did not learn.

    A user's own callable returns a module with weights of its own.
    """
    learned = config.get("task", "inversion") != "inversion"
    encoder = config.get("encoder", "")
    own = is_module_reference(encoder) and parse(encoder).kind == "python"
    if config.get("encoder_weights") != "" or learned or own:
        return []
    why = Markup("{}{}{}").format(
        f"The encoder\u2019s weights are random (seed {config.get('seed')}). Its features respond to edges and "
        f"colours and know no objects; what a trained {content.encoder} keeps of a photograph may be quite different. "
        "Train with ",
        code("--encoder-weights"),
        " for that.",
    )
    return [("Anything about objects.", why)]
