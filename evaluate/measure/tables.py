"""The figures as tables: for a terminal, as CSV, and a line for each photograph."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepsim.evaluate.paper import LAYERS, SOURCE, TABLE_2, cell

_NONE = "-"
_HEAD = ("method", "layer", "image %", "feature %", "PSNR dB", "SSIM", "MS-SSIM", "sharpness", "two-way %")


def written(evaluation: Mapping[str, Any]) -> str:
    """Write an evaluation as tables for a terminal, with the paper's beside it."""
    count = evaluation["photographs"]["count"]
    lines = _aligned([_HEAD, *(_row(method, evaluation) for method in evaluation["methods"])])
    lines += ["", *_notes(evaluation, count)]
    if len(evaluation["spaces"]) > 1 or any(
        "pixels" in method["figures"]["spaces"] for method in evaluation["methods"]
    ):
        lines += ["", *_aligned([_SPACES_HEAD, *_space_rows(evaluation)])]
    return "\n".join([*lines, "", *paper_lines()])


def paper_lines() -> list[str]:
    """Write the paper's table, named as theirs."""
    head = ("image / feature, %", *(f"conv5 ({layer})" if layer == "pool5" else layer for layer in LAYERS))
    rows = [(row.method, *(cell(row, layer) or _NONE for layer in LAYERS)) for row in TABLE_2]
    return [
        f"{SOURCE}: the paper's own figures (a trained CaffeNet, ImageNet photographs), not results of this program.",
        *_aligned([head, *rows]),
    ]


def as_csv(evaluation: Mapping[str, Any]) -> str:
    """Write every figure of every method with its interval, a line each: method, layer, space, figure."""
    output = io.StringIO()
    lines = csv.writer(output, lineterminator="\n")
    lines.writerow(["method", "layer", "space", "figure", "value", "low", "high"])
    for method in evaluation["methods"]:
        figures = method["figures"]
        groups = {"image": figures["image"], "sharpness": figures["sharpness"], **figures["spaces"]}
        for space, named in groups.items():
            for name, found in named.items():
                numbers = ["" if found[part] is None else repr(found[part]) for part in ("value", "low", "high")]
                lines.writerow([method["name"], method["layer"] or "", space, name, *numbers])
    return output.getvalue()


def photograph_lines(names: Sequence[str], columns: Mapping[str, NDArray[np.float64]]) -> str:
    """Write a line for each photograph of one method: its name, and every column but the spectra's bands."""
    output = io.StringIO()
    lines = csv.writer(output, lineterminator="\n")
    shown = [name for name in columns if not name.startswith("power_")]
    lines.writerow(["photograph", *shown])
    for name, *values in zip(names, *(columns[column] for column in shown), strict=True):
        plain = name.encode(errors="surrogateescape").decode(errors="backslashreplace")
        lines.writerow([plain, *("" if math.isnan(value) else repr(float(value)) for value in values)])
    return output.getvalue()


_SPACES_HEAD = ("method", "space", "", "error %", "correlation", "2-way %", "10-way %", "50-way %", "first %")


def _row(method: Mapping[str, Any], evaluation: Mapping[str, Any]) -> tuple[str, ...]:
    figures, own = method["figures"], method["space"]
    image, in_space = figures["image"], figures["spaces"].get(own, {})
    other = next((name for name in figures["spaces"] if name not in (own, "pixels")), own)
    return (
        method["name"],
        method["layer"] or _NONE,
        _percent(image["normalized_error"], True),
        _percent(in_space.get("normalized_error"), True),
        _number(image["psnr"], 1),
        _number(image["ssim"], 3),
        _number(image["ms_ssim"], 3),
        _number(figures["sharpness"]["gradient_energy"], 2),
        _percent(figures["spaces"].get(other, {}).get("2_way")),
    )


def _space_rows(evaluation: Mapping[str, Any]) -> list[tuple[str, ...]]:
    rows = []
    for method in evaluation["methods"]:
        for space, found in method["figures"]["spaces"].items():
            ways = [_percent(found.get(name)) for name in ("2_way", "10_way", "50_way", "first")]
            inverted = "inverted" if space == method["space"] else ""
            error, correlation = _percent(found.get("normalized_error")), _number(found.get("correlation"), 3)
            rows.append((method["name"], space, inverted, error, correlation, *ways))
    return rows


def _notes(evaluation: Mapping[str, Any], count: int) -> list[str]:
    how, reference = evaluation["intervals"], evaluation["reference"]
    notes = [
        f"{count} photographs; in brackets {100 * how['confidence']:g} % intervals. Errors are of N, the mean "
        f"distance of two of {reference['count']} photographs ({reference['photographs']}).",
        "Sharpness is the gradient energy over the photographs' own: 1 is as sharp as they are; noise raises it too.",
    ]
    if len(evaluation["spaces"]) == 1:
        notes.append(
            f"Identification is in {evaluation['spaces'][0]['name']} alone, which the methods invert. "
            "Another layer or network says more: --space BUNDLE or --space BUNDLE:LAYER."
        )
    return notes


def _percent(figure: Mapping[str, Any] | None, interval: bool = False) -> str:
    if figure is None or figure["value"] is None:
        return _NONE
    text = f"{100 * figure['value']:.1f}"
    return f"{text} [{100 * figure['low']:.1f}, {100 * figure['high']:.1f}]" if interval else text


def _number(figure: Mapping[str, Any] | None, digits: int) -> str:
    return _NONE if figure is None or figure["value"] is None else f"{figure['value']:.{digits}f}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Write rows in columns: the first to the left, numbers to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    texts = []
    for row in rows:
        cells = [
            text.ljust(width) if place < 2 else text.rjust(width)
            for place, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        texts.append("  ".join(cells).rstrip())
    return texts
