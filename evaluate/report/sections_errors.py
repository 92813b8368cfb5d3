"""The errors: against guesses that need no features, and normalised as in the paper beside the paper's own."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from deepsim.benchmarks.charts.wording import NBSP, count, listed, percent, signed
from deepsim.evaluate.paper import LAYERS, TABLE_2, cell
from deepsim.evaluate.pictures import picture, thumbnail
from deepsim.evaluate.report.baselines import BLUR_SIGMA, ImageError
from deepsim.evaluate.report.content import Content
from deepsim.evaluate.report.layout import Cell, Table, bar, span


def baselines(content: Content) -> dict[str, Any]:
    """Compare the reconstruction with images that need no features."""
    figures = content.figures
    errors = [figures.reconstruction, *figures.baselines]
    worst = max(error.distance for error in errors) or 1.0
    return {
        "summary": _summary(content),
        "errors": Table(
            f"Image error, mean over {count(len(figures.photos), 'photograph')}",
            ["Guess", "", "Distance", "RMSE", "PSNR", "Normalised", "Margin"],
            [_row(error, worst) for error in errors],
            marked=0,
        ),
        "mean_known": content.run is not None and content.run.mean_image is not None,
        "thumbnails": _thumbnails(content),
        "side": content.side,
        "photographs": len(figures.photos),
        "sigma": BLUR_SIGMA,
    }


def normalized(content: Content) -> dict[str, Any]:
    """Give the normalised errors in image and feature space, with the paper's table beside for context."""
    figures, photos = content.figures, len(content.figures.photos)
    own = None
    if figures.reconstruction.normalized is not None:
        errors = [content.layer, _with_error(content), _optional(figures.feature_error)]
        own = Table("This bundle, normalised error", ["Layer", "Image space", "Feature space"], [errors], marked=0)
    return {
        "own": own,
        "layer": content.layer,
        "photographs": photos,
        "pairs": count(photos * (photos - 1) // 2, "pair"),
        "context": _paper_text(content),
        "paper": Table(
            "Dosovitskiy & Brox 2016, Table 2: normalised error, image / feature space, %",
            ["Method", *(_column(layer, content) for layer in LAYERS)],
            [[row.method, *(cell(row, layer) for layer in LAYERS)] for row in TABLE_2],
        ),
    }


def _row(error: ImageError, worst: float) -> list[Cell]:
    own = error.margin is None
    return [
        error.name[0].upper() + error.name[1:],
        bar(error.distance / worst, "own" if own else "other"),
        f"{error.distance:,.0f}",
        signed(error.rmse, 1),
        f"{signed(error.psnr, 1)}{NBSP}dB",
        _optional(error.normalized),
        _optional(error.margin),
    ]


def _optional(fraction: float | None) -> str:
    return "\u2013" if fraction is None else percent(fraction)


def _summary(content: Content) -> str:
    beaten = [error for error in content.figures.baselines if (error.margin or 0) > 0]
    lost = [error for error in content.figures.baselines if (error.margin or 0) <= 0]
    better = [f"{percent(error.margin or 0)} lower than that of {error.name}" for error in beaten]
    worse = [f"{percent(-(error.margin or 0))} higher than that of {error.name}" for error in lost]
    return (
        "Features are worth something only where the reconstruction is nearer to the photograph than a picture made "
        f"without them. Here its error is {listed(better + worse)}."
    )


def _thumbnails(content: Content) -> list[tuple[Markup, str]]:
    photo = content.figures.photos[0].name
    guesses = [("the reconstruction", content.pictures.reconstructions[0])]
    for name, image in content.pictures.baselines.items():
        guesses.append((name, image if image.ndim == 3 else image[0]))
    original = picture(thumbnail(content.pictures.photos[0], 160), f"Photograph {photo}")
    shown = [(picture(thumbnail(image, 160), f"{name} for {photo}"), name) for name, image in guesses]
    return [(original, "the photograph"), *shown]


def _with_error(content: Content) -> str:
    figures = content.figures
    error = figures.standard_error
    return _optional(figures.reconstruction.normalized) + (f" \u00b1 {signed(100 * error, 1)}" if error else "")


def _paper_text(content: Content) -> str:
    if content.layer in LAYERS and content.manifest.encoder_name == "caffenet":
        own = f"The column {_paper_name(content.layer)} inverts the same layer of the same architecture."
    elif content.layer in LAYERS:
        own = f"None of it is {content.encoder}, the encoder of this bundle."
    else:
        own = f"It has no number for {content.layer}: it starts at the deeper conv5, which keeps less of the picture."
    return (
        f"For context only, the paper\u2019s Table 2. {own} Its encoder learned from ImageNet, its generators for "
        "500,000 steps of 64 images or more, and its test photographs are other ones, so the two tables are not a "
        "comparison on equal terms."
    )


def _column(layer: str, content: Content) -> Cell:
    own = layer == content.layer and content.manifest.encoder_name == "caffenet"
    return span(_paper_name(layer), "own") if own else _paper_name(layer)


def _paper_name(layer: str) -> str:
    return "conv5 (pool5)" if layer == "pool5" else layer
