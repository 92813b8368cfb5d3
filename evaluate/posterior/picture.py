"""The pictures of ``deepsim posterior``: rows of images with their names, and the divergence of each unit."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from deepsim.runtime.pixels import Pixels
from deepsim.train.latent import COLLAPSED

_MARGIN, _TEXT, _GAP = 170, 16, 4  # pixels: the names' column, their size, between images
_PAPER, _INK = 255, (40, 40, 40)
_FLOOR = 1e-5  # nats at which the chart ends


def labelled_rows(rows: Mapping[str, Sequence[Pixels]]) -> Pixels:
    """Put images (side, side, 3) of one size in rows, each behind its name: uint8 RGB (H, W, 3)."""
    height, width = next(iter(rows.values()))[0].shape[:2]
    across = max(map(len, rows.values()))
    shape = (len(rows) * (height + _GAP) - _GAP, _MARGIN + across * (width + _GAP) - _GAP, 3)
    sheet = np.full(shape, _PAPER, np.uint8)
    for row, images in enumerate(rows.values()):
        for column, image in enumerate(images):
            top, left = row * (height + _GAP), _MARGIN + column * (width + _GAP)
            sheet[top : top + height, left : left + width] = image
    picture = Image.fromarray(sheet)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(_TEXT)
    for row, name in enumerate(rows):
        draw.text((_GAP, row * (height + _GAP) + height // 2), name, _INK, font, anchor="lm")
    return np.asarray(picture)


def divergence_chart(per_unit: NDArray[np.float64]) -> bytes:
    """Draw the divergence of each unit in nats, the largest first, on a logarithmic axis: PNG."""
    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes = figure.subplots()
    ordered = np.maximum(np.sort(per_unit)[::-1], _FLOOR)
    axes.step(np.arange(1, len(ordered) + 1), ordered, where="mid", color="#3b5bdb")
    axes.axhline(COLLAPSED, color="#868e96", linestyle="--", linewidth=1)
    axes.text(len(ordered), COLLAPSED, "below: collapsed", ha="right", va="top", color="#495057", fontsize=9)
    axes.set(yscale="log", xlabel="unit, by its divergence", ylabel="KL from the prior, nats")
    axes.set_ylim(bottom=_FLOOR)
    axes.spines[["top", "right"]].set_visible(False)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=150, metadata={"Software": None})
    return content.getvalue()
