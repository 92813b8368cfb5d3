"""Which layer a published generator inverts, from the name that its publisher gave the file."""

from __future__ import annotations

import re
from pathlib import Path

from deepsim.runtime.errors import UsageError
from deepsim.runtime.generators import released_layers

_LAYER = re.compile(r"(norm|conv|relu|pool|fc)(\d)(?![\d_.]*\d)")
_RELU = {"3": "conv3", "4": "conv4", "6": "fc6", "7": "fc7"}  # bdpy's names of features after the ReLU


def layer_from_name(path: Path) -> tuple[str, str] | None:
    """Return the one released layer that a file's name holds, else its folder's, and that name; None without one.

    Raises UsageError for a name with two of them.

    >>> layer_from_name(Path("upconvGAN_fc6_eucl.pt")), layer_from_name(Path("relu7/generator.pt"))
    (('fc6_eucl', 'upconvGAN_fc6_eucl.pt'), ('fc7', 'relu7'))
    """
    for name in (path.name, path.absolute().parent.name):
        found = _layers_in(name.lower())
        if len(found) > 1:
            raise UsageError(f"--layer auto: {name} names {' and '.join(sorted(found))}, expected one layer.")
        if found:
            return found.pop(), name
    return None


def _layers_in(name: str) -> set[str]:
    layers = {_RELU.get(digit, "") if kind == "relu" else f"{kind}{digit}" for kind, digit in _LAYER.findall(name)}
    found = layers & set(released_layers())
    for variant in ("eucl", "places365"):
        if variant in name and "fc6" in found:
            found = found - {"fc6"} | {f"fc6{'_' if variant == 'eucl' else '-'}{variant}"}
    return found
