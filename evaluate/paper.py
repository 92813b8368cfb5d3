"""What the paper printed: Table 2 of Dosovitskiy & Brox 2016, normalised error in image and feature space, per cent.

None stands where the table has no number. Every figure here is theirs, for other photographs and trained networks; none
is a result of this program.
"""

from __future__ import annotations

from dataclasses import dataclass

SOURCE = "Dosovitskiy & Brox 2016, Table 2"
_NONE = "\u2013"
LAYERS = ("pool5", "fc6", "fc7", "fc8")  # of CaffeNet; the paper calls the first CONV5


@dataclass(frozen=True)
class PaperRow:
    """A method, and (image, feature) error in per cent by layer."""

    method: str
    errors: dict[str, tuple[int, int | None]]


TABLE_2 = (
    PaperRow("Mahendran & Vedaldi 2015", {"pool5": (71, 19), "fc6": (80, 19), "fc7": (82, 16), "fc8": (84, 9)}),
    PaperRow("Dosovitskiy & Brox 2015", {"pool5": (35, None), "fc6": (51, None), "fc7": (56, None), "fc8": (58, None)}),
    PaperRow("The paper, image loss only", {"fc6": (46, 79)}),
    PaperRow(
        "The paper, AlexNet conv5 comparator", {"pool5": (43, 37), "fc6": (55, 48), "fc7": (61, 45), "fc8": (63, 29)}
    ),
    PaperRow("The paper, VideoNet conv5 comparator", {"fc6": (51, 57)}),
)


def cell(row: PaperRow, layer: str) -> str:
    """Write an entry as the table has it: "55 / 48", "35 / -" with a dash without a feature error, "" without any."""
    if layer not in row.errors:
        return ""
    image, feature = row.errors[layer]
    return f"{image} / {_NONE if feature is None else feature}"
