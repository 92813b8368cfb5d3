"""The top of the page: what this is, and the figures that matter most."""

from __future__ import annotations

from deepsim.benchmarks.charts.markup import Html, element, join
from deepsim.benchmarks.charts.wording import NBSP, count, duration, percent, signed, significant
from deepsim.evaluate.report.content import Content
from deepsim.evaluate.report.layout import facts, paragraph

TRAINING_MEAN = "the mean training image"


def head(content: Content, links: list[tuple[str, str]]) -> Html:
    """Build the head: title, a plain-language statement, the key figures and the contents."""
    return element(
        "header",
        paragraph("deepsim report", style="kicker"),
        element("h1", f"Photographs from {content.layer} features"),
        paragraph(
            element("span", content.manifest.name, class_="bundle"), " \u00b7 ", _origin(content), style="origin"
        ),
        paragraph(_statement(content), style="lead"),
        facts(_key_figures(content), style="keys"),
        element("nav", *(element("a", title, href=f"#{anchor}") for anchor, title in links), aria_label="Contents"),
    )


def _origin(content: Content) -> str:
    shape = " \u00d7 ".join(f"{extent:,}" for extent in content.manifest.generator.input_shape)
    return f"{content.encoder}, layer {content.layer} ({shape} values), backend {content.backend}"


def _statement(content: Content) -> str:
    measured = len(content.figures.photos)
    its = "its" if measured == 1 else "their"
    return (
        f"{content.encoder} reduced {count(measured, 'held-out photograph')} to {its} {content.layer} features, and a "
        "generator turned these features, and nothing else, back into pictures. This page shows the pictures beside "
        "the photographs, says how far apart they are, and compares that with guesses that need no features at all."
    )


def _key_figures(content: Content) -> list[tuple[str | Html, str | Html]]:
    figures = content.figures
    keys: list[tuple[str | Html, str | Html]] = []
    if figures.reconstruction.normalized is not None:
        keys.append(_key("Image error", percent(figures.reconstruction.normalized), "100 % is a random photograph"))
    keys.append(_margin(content))
    keys.append(_key("PSNR", f"{signed(figures.reconstruction.psnr, 1)}{NBSP}dB", "mean over the photographs"))
    best = content.throughput.best() if content.throughput else None
    if best:
        rate = f"{significant(best['images_per_second'])}/s"
        backend = best.get("backend", content.backend)
        keys.append(_key("Images decoded", rate, f"{backend}, batches of {best['batch']}"))
    if content.run:
        seen = content.run.images_seen
        shown = f"{content.run.steps:,} steps" + (f", {seen:,} crops" if seen else "")
        keys.append(_key("Training", duration(content.run.seconds), shown))
    return keys


def _margin(content: Content) -> tuple[str | Html, str | Html]:
    """Name the margin over the mean training image, or over the blurred mean where that is not known."""
    rivals = content.figures.baselines
    rival = next((error for error in rivals if error.name == TRAINING_MEAN), rivals[0])
    return _key("Margin", percent(rival.margin or 0.0), f"over {rival.name}")


def _key(term: str, value: str, explanation: str) -> tuple[str | Html, str | Html]:
    return term, join(element("span", value, class_="value"), element("span", explanation, class_="small"))
