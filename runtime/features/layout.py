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

import numpy as np
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
    """How the axes of an array hold N features of ``shape``: ``groups`` has the letters of each of its axes."""

    groups: tuple[str, ...]
    shape: tuple[int, ...]
    count: int

    @property
    def axis(self) -> int | None:
        """The axis of the photographs; None where the array is a single feature."""
        return self.groups.index("N") if "N" in self.groups else None

    def rows(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return an array in this order, of any count of photographs, as (n, *shape)."""
        sizes = dict(zip(_LETTERS, self.shape, strict=False))
        letters = "".join(self.groups)
        extents = [sizes.get(letter, -1) for letter in letters]  # -1: N
        split = values.reshape(extents)
        order = [letters.index(letter) for letter in ("N" * ("N" in letters)) + _LETTERS[: len(self.shape)]]
        found: NDArray[Any] = split.transpose(order)
        return found if "N" in letters else found[None]


def layout_of(found: tuple[int, ...], shape: tuple[int, ...], subject: str, axes: str | None = None) -> Layout:
    """Find how an array of shape ``found`` holds features of ``shape``, (C,) or (C, H, W).

    Without ``axes`` it must be (N, *shape) or flattened rows of it, and of no other known order too. MATLAB drops
    trailing axes of extent 1: these are added where ``axes`` names them. Raises UsageError when ``axes`` is no order,
    ShapeError when the array does not fit it, or fits several orders, naming them.

    >>> layout_of((13, 13, 256, 40), (256, 13, 13), "codes.mat", "HWCN").count
    40
    """
    if axes is not None:
        layout = _fit(_groups(axes, len(shape)), found, shape)
        if layout is None:
            expected = _shown(_groups(axes, len(shape)), shape)
            raise ShapeError(f"{subject}: features of shape {found}, expected {axes} of {expected}.")
        return layout
    fitting = {
        order: layout
        for order in _KNOWN[len(shape)]
        if (layout := _fit(_groups(order, len(shape)), found, shape)) is not None and len(layout.groups) == len(found)
    }
    expected = f"(N, {', '.join(map(str, shape))})"
    if not fitting:
        raise ShapeError(f"{subject}: features of shape {found}, expected {expected}. Use the layer of this bundle.")
    usual = [order for order in fitting if order in _KNOWN[len(shape)][:2]]
    if len(fitting) > 1 or not usual:
        raise ShapeError(
            f"{subject}: features of shape {found} can be read as {' or '.join(fitting)}, expected {expected}. "
            f"Name the order, as with --axes {next(iter(fitting))}."
        )
    return fitting[usual[0]]


def check_axes(axes: str, rank: int) -> None:
    """Raise UsageError unless ``axes`` is an order of the axes of features of this rank."""
    _groups(axes, rank)


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


def _fit(groups: Sequence[str], found: tuple[int, ...], shape: tuple[int, ...]) -> Layout | None:
    """Return the layout when an array of shape ``found`` fits the order, trailing axes of extent 1 being optional."""
    sizes = dict(zip(_LETTERS, shape, strict=False))
    padded = (*found, *[1] * (len(groups) - len(found)))
    if len(padded) != len(groups):
        return None
    for group, extent in zip(groups, padded, strict=True):
        if group != "N" and extent != math.prod(sizes[letter] for letter in group):
            return None
    return Layout(tuple(groups), shape, padded[groups.index("N")] if "N" in groups else 1)


def _shown(groups: Sequence[str], shape: tuple[int, ...]) -> str:
    sizes = dict(zip(_LETTERS, shape, strict=False))
    extents = ["N" if group == "N" else str(np.prod([sizes[letter] for letter in group])) for group in groups]
    return f"({', '.join(extents)})"
