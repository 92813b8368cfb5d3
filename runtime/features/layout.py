"""The order of a feature array's axes: found where there is one reading only, else named by the user, never guessed.

An order is written with one letter per axis: N (photographs), C, H, W; features without extent have N and C. Letters
in parentheses share one axis, in row-major order.

========  ==========================================================================
NCHW      PyTorch, Caffe, and what deepsim writes; also N(CHW): flattened rows
NHWC      TensorFlow, JAX
HWCN      MatConvNet
WHCN      an NCHW array as MATLAB sees it, all axes reversed
CN        one photograph per column, as MATLAB users store codes
N(CWH)    rows that MATLAB flattened, ``reshape(f, [], N)'`` of a MatConvNet array
========  ==========================================================================
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from deepsim.runtime.errors import ShapeError, UsageError

_LETTERS = "CHW"
_GRAMMAR = re.compile(r"\([NCHW]+\)|[NCHW]")
# Orders that arrays are met in, by the rank of one feature; the first two need no naming where nothing else fits.
_KNOWN = {
    1: ("NC", "NC", "CN", "C"),
    3: ("NCHW", "N(CHW)", "NHWC", "HWCN", "WHCN", "CHWN", "(CHW)N", "CHW", "HWC", "WHC"),
}


@dataclass(frozen=True)
class Layout:
    """How the axes of an array hold N features of ``shape``.

    ``groups`` has the letters of each axis of the array, ``extents`` what C, H and W are (H and W of features without
    extent are 1, where the array has such axes).
    """

    groups: tuple[str, ...]
    extents: tuple[int, ...]
    shape: tuple[int, ...]
    count: int

    @property
    def axis(self) -> int | None:
        """The axis of the photographs; None where the array is a single feature."""
        return self.groups.index("N") if "N" in self.groups else None

    def rows(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return an array in this order, of any count of photographs, as (n, *shape)."""
        sizes = _sizes(self.extents)
        letters = "".join(self.groups)
        split = values.reshape([sizes.get(letter, -1) for letter in letters])  # -1: N
        order = [letters.index(letter) for letter in ("N" * ("N" in letters)) + _LETTERS[: len(self.extents)]]
        found: NDArray[Any] = split.transpose(order).reshape(-1, *self.shape)
        return found


def layout_of(found: tuple[int, ...], shape: tuple[int, ...], subject: str, axes: str | None = None) -> Layout:
    """Find how an array of shape ``found`` holds features of ``shape``, (C,) or (C, H, W).

    Without ``axes`` it must be (N, *shape) or flattened rows of it, and of no other known order too; orders that differ
    in axes of extent 1 alone are one. Features (C,) may have axes H and W of extent 1. MATLAB drops trailing axes of
    extent 1: these are added where ``axes`` names them. Raises UsageError when ``axes`` is no order, ShapeError when
    the array does not fit it, or fits several orders, naming them.

    >>> layout_of((13, 13, 256, 40), (256, 13, 13), "codes.mat", "HWCN").count
    40
    """
    spatial = bool(set(axes.upper()) & {"H", "W"}) if axes is not None else len(found) > 2
    extents = (*shape, 1, 1) if len(shape) == 1 and spatial else shape
    if axes is not None:
        layout = _fit(_groups(axes, len(extents)), found, extents, shape)
        if layout is None:
            expected = _shown(_groups(axes, len(extents)), extents)
            raise ShapeError(f"{subject}: features of shape {found}, expected {axes} of {expected}.")
        return layout
    fitting = _fitting(found, extents, shape)
    expected = f"(N, {', '.join(map(str, shape))})"
    if not fitting:
        raise ShapeError(f"{subject}: features of shape {found}, expected {expected}. Use the layer of this bundle.")
    usual = [order for order in fitting if order in _KNOWN[len(extents)][:2]]
    if len(fitting) > 1 or not usual:
        raise ShapeError(
            f"{subject}: features of shape {found} can be read as {' or '.join(fitting)}, expected {expected}. "
            f"Name the order, as with --axes {next(iter(fitting))}."
        )
    return fitting[usual[0]]


def _fitting(found: tuple[int, ...], extents: tuple[int, ...], shape: tuple[int, ...]) -> dict[str, Layout]:
    """Return the known orders that an array can be read in, of those that read it alike the first."""
    readings: dict[tuple[str, ...], tuple[str, Layout]] = {}
    for order in _KNOWN[len(extents)]:
        layout = _fit(_groups(order, len(extents)), found, extents, shape)
        if layout is not None and len(layout.groups) == len(found):
            readings.setdefault(_reading(layout), (order, layout))
    return dict(readings.values())


def _reading(layout: Layout) -> tuple[str, ...]:
    """Return the letters of each axis without those of extent 1, which have no order."""
    sizes = _sizes(layout.extents)
    kept = ("".join(letter for letter in group if sizes.get(letter) != 1) for group in layout.groups)
    return tuple(group for group in kept if group)


def _groups(axes: str, rank: int) -> tuple[str, ...]:
    """Return the letters of each axis. Raises UsageError unless every letter of the rank is there once."""
    parts = _GRAMMAR.findall(axes.upper())
    groups = tuple(part.strip("()") for part in parts)
    letters = sorted("".join(groups))
    wanted = sorted(_LETTERS[:rank])
    whole = "".join(parts) == axes.upper() and letters in (wanted, sorted([*wanted, "N"]))
    if not whole or any("N" in group and len(group) > 1 for group in groups):
        examples = "NC, CN" if rank == 1 else "NCHW, HWCN, WHCN, NHWC, N(CHW)"
        raise UsageError(f"axes {axes!r}: expected each of N{_LETTERS[:rank]} once, such as {examples}.")
    return groups


def _fit(
    groups: Sequence[str], found: tuple[int, ...], extents: tuple[int, ...], shape: tuple[int, ...]
) -> Layout | None:
    """Return the layout when an array of shape ``found`` fits the order, trailing axes of extent 1 being optional."""
    sizes = _sizes(extents)
    padded = (*found, *[1] * (len(groups) - len(found)))
    if len(padded) != len(groups):
        return None
    for group, extent in zip(groups, padded, strict=True):
        if group != "N" and extent != math.prod(sizes[letter] for letter in group):
            return None
    return Layout(tuple(groups), extents, shape, padded[groups.index("N")] if "N" in groups else 1)


def _sizes(extents: tuple[int, ...]) -> dict[str, int]:
    return dict(zip(_LETTERS, extents, strict=False))


def _shown(groups: Sequence[str], extents: tuple[int, ...]) -> str:
    sizes = _sizes(extents)
    found = ["N" if group == "N" else str(math.prod(sizes[letter] for letter in group)) for group in groups]
    return f"({', '.join(found)})"
