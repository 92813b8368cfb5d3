"""What other programs call a layer, and which layers have no negative values.

Caffe applies a ReLU in place, so that its "fc6", like ours, is after the ReLU. PyTorch's users (bdpy among them) name
both: there "fc6" is before the ReLU and "relu6" after it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from deepsim.kernels.layers import Layer
from deepsim.runtime.networks import CAFFENET, EncoderSpec, GraphEncoder

_KEEP_SIGN = ("pool", "lrn", "reshape")  # kinds whose outputs have no negative values where their inputs have none


def layer_names(layer: str) -> tuple[str, ...]:
    """List the names under which features of a layer are looked for, the surest first.

    >>> layer_names("fc6"), layer_names("conv5_4"), layer_names("fc8"), layer_names("pool5")
    (('relu6', 'fc6'), ('relu5_4', 'conv5_4'), ('fc8',), ('pool5',))
    """
    found = re.fullmatch(r"(?:conv|fc)(\d(?:_\d)?)", layer)
    return (layer,) if found is None or layer == "fc8" else (f"relu{found[1]}", layer)


def is_rectified(layer: str, encoder: EncoderSpec | GraphEncoder | None) -> bool:
    """Tell whether a layer's features cannot be negative: a ReLU, with nothing after it but pooling or normalisation.

    Without an encoder the layer counts as CaffeNet's; of a graph nothing is known.

    >>> is_rectified("norm2", None), is_rectified("fc8", None)
    (True, False)
    """
    if isinstance(encoder, GraphEncoder):
        return False
    spec = encoder or CAFFENET
    if layer not in [entry.name for entry in spec.layers]:
        return False
    return _ends_rectified(spec.up_to(layer))


def _ends_rectified(layers: Sequence[Layer]) -> bool:
    for entry in reversed(layers):
        if entry.activation == "relu":
            return True
        if entry.kind not in _KEEP_SIGN or entry.activation != "none":
            return False
    return False
