"""One file of published weights to its networks, whatever wrote it: Caffe or PyTorch."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from deepsim.export.published.foreign_files import HEAD, foreign
from deepsim.export.published.layer_names import layer_from_name
from deepsim.export.published.layouts import BVLC_ALEXNET
from deepsim.export.published.networks import CAFFE, PublishedNetwork, SourceFile, find_networks
from deepsim.export.published.state_dicts import is_state_dict, read_port
from deepsim.export.sources import as_text
from deepsim.runtime.errors import CheckpointError, UsageError
from deepsim.runtime.files import sha256
from deepsim.runtime.networks import ENCODERS
from deepsim.runtime.os_errors import disk_errors

ENCODER_NAMES = (*ENCODERS, BVLC_ALEXNET.name, *(f"{name}{CAFFE}" for name in ("vgg16", "vgg19")))
"""What ``--encoder`` can say that an encoder is."""

AUTO = "auto"  # a layer that the file's name tells


@dataclass(frozen=True)
class Reading:
    """The networks of a file, the layer that was told for it, and by whom; both None where the file tells."""

    networks: list[PublishedNetwork]
    layer: str | None
    layer_from: str | None


def read_published(
    path: Path, layer: str | None = None, encoder: str | None = None, prototxt: Path | None = None
) -> Reading:
    """Read every network that a file of weights holds.

    ``layer`` and ``encoder`` say what the file cannot; "auto" takes the layer from the name of the file or its folder.
    Raises CheckpointError for a file that is damaged, of another format or of an unknown network; UsageError where
    something must be told, or what was told is not so.
    """
    if layer is not None and not re.fullmatch(r"[\w-]{1,60}", layer):
        raise UsageError(f"--layer {layer!r}: expected a layer's name, such as fc6, or {AUTO}.")
    find = _finder(path, prototxt)
    told, layer_from = (layer, "--layer") if layer not in (None, AUTO) else (None, None)
    if layer == AUTO and (named := layer_from_name(path)) is not None:
        told, layer_from = named[0], f"the name {as_text(named[1])}"
    try:
        networks = find(told, encoder)
    except UsageError as error:
        if layer == AUTO and told is None and str(error).startswith("--layer"):
            raise UsageError(f"--layer auto: the name of {path} holds no layer. {error}") from error
        raise
    if encoder is not None and all(network.role != "encoder" for network in networks):
        raise UsageError(f"--encoder {encoder}: {path} holds no encoder.")
    return Reading(networks, told, layer_from)


_Find = Callable[[str | None, str | None], list[PublishedNetwork]]


def _finder(path: Path, prototxt: Path | None) -> _Find:
    """Read a file, and return what finds its networks from a layer and an encoder that are told."""
    if not path.is_file():
        found = "a folder" if path.is_dir() else "no such file"
        raise CheckpointError(f"{path}: {found}, expected a file of published weights.")
    with disk_errors(path), path.open("rb") as file:
        head = file.read(HEAD)
    if (what := foreign(head)) is not None:
        raise CheckpointError(f"{path}: {what}")
    if not is_state_dict(head):
        from deepsim.export.published.caffe_files import read_caffe

        return read_caffe(path, prototxt).networks
    if prototxt is not None:
        raise UsageError(f"--prototxt {prototxt}: {path} is a PyTorch file, expected a Caffe model.")
    return _port_finder(path)


def _port_finder(path: Path) -> _Find:
    port = read_port(path)
    source = SourceFile(as_text(path.name), path.stat().st_size, sha256(path), port.format)
    meant = BVLC_ALEXNET.name if port.renaming.layout.network == BVLC_ALEXNET.name else None

    def find(layer: str | None, encoder: str | None) -> list[PublishedNetwork]:
        if meant is not None and encoder not in (None, meant):
            raise UsageError(f"--encoder {encoder}: the names in {path} are those of {meant}.")
        networks = find_networks(port.weights, (source,), None, layer, encoder or meant)
        return [replace(network, notes=(*network.notes, *port.notes)) for network in networks]

    return find
