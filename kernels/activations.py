"""The activations in one table: what a layer applies to its linear output, as records that every reader computes from.

A reader (numpy, PyTorch, ONNX, a scan of ranges ...) looks a name up here and reads the record; it refuses what it
cannot compute with :class:`UnknownLayerError`. ``runtime/native/src/layer.h`` has the same names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ActivationName = Literal["none", "relu", "lrelu", "lrelu0.2", "tanh255"]

LRELU_SLOPE = 0.3  # Dosovitskiy & Brox 2016, section 4: max(x, 0) + 0.3 min(x, 0)
LRELU_2015_SLOPE = 0.2  # of the generators of Dosovitskiy & Brox 2015 (arXiv 1506.02753)


class UnknownLayerError(ValueError):
    """A layer's kind or activation that the code which reads the layer does not know."""


@dataclass(frozen=True)
class Activation:
    """One activation: either ``slope``, for max(x, 0) + slope min(x, 0), or ``scale``, for scale tanh(x).

    The other one is None. A record with neither is of a form that no reader computes yet.
    """

    name: str
    slope: float | None = None
    scale: float | None = None


ACTIVATIONS: dict[str, Activation] = {
    record.name: record
    for record in (
        Activation("none", slope=1.0),
        Activation("relu", slope=0.0),
        Activation("lrelu", slope=LRELU_SLOPE),
        Activation("lrelu0.2", slope=LRELU_2015_SLOPE),
        Activation("tanh255", scale=255.0),
    )
}


def activation(name: str) -> Activation:
    """Look an activation up by its name. Raises UnknownLayerError naming the known ones.

    >>> activation("lrelu").slope
    0.3
    """
    if name not in ACTIVATIONS:
        raise UnknownLayerError(f"activation {name!r}: unknown, expected one of {', '.join(ACTIVATIONS)}.")
    return ACTIVATIONS[name]


def refuse_activation(record: Activation, reader: str) -> UnknownLayerError:
    """Build the error of a reader, named in words, that cannot compute an activation."""
    return UnknownLayerError(f"activation {record.name!r}: {reader} cannot compute it, expected a slope or a tanh.")
