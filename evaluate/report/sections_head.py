"""The top of the page: what this is, and the figures that matter most."""

from __future__ import annotations

from typing import Any

from deepsim.benchmarks.charts.wording import NBSP, count, duration, percent, signed, significant
from deepsim.evaluate.report.content import Content

TRAINING_MEAN = "the mean training image"


Figure = tuple[str, str, str]  # what, its value, what to hold it against


def head(content: Content) -> dict[str, Any]:
    """Return where the pictures come from, how many were measured, and the key figures."""
    measured = count(len(content.figures.photos), "held-out photograph")
    return {
        "origin": _origin(content),
        "encoder": content.encoder,
        "measured": measured,
        "figures": _key_figures(content),
    }


def _origin(content: Content) -> str:
    shape = " \u00d7 ".join(f"{extent:,}" for extent in content.manifest.feature_shape)
    return f"{content.encoder}, layer {content.layer} ({shape} values), backend {content.backend}"


def _key_figures(content: Content) -> list[Figure]:
    figures = content.figures
    keys: list[Figure] = []
    if figures.reconstruction.normalized is not None:
        keys.append(("Image error", percent(figures.reconstruction.normalized), "100 % is a random photograph"))
    keys.append(_margin(content))
    keys.append(("PSNR", f"{signed(figures.reconstruction.psnr, 1)}{NBSP}dB", "mean over the photographs"))
    best = content.throughput.best() if content.throughput else None
    if best:
        rate = f"{significant(best['images_per_second'])}/s"
        backend = best.get("backend", content.backend)
        keys.append(("Images decoded", rate, f"{backend}, batches of {best['batch']}"))
    if content.run:
        seen = content.run.images_seen
        shown = f"{content.run.steps:,} steps" + (f", {seen:,} crops" if seen else "")
        keys.append(("Training", duration(content.run.seconds), shown))
    return keys


def _margin(content: Content) -> Figure:
    """Name the margin over the mean training image, or over the blurred mean where that is not known."""
    rivals = content.figures.baselines
    rival = next((error for error in rivals if error.name == TRAINING_MEAN), rivals[0])
    return "Margin", percent(rival.margin or 0.0), f"over {rival.name}"
