"""Caffe's files, told apart by content, as arrays by release names and a topology."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from deepsim.export.published.caffe_hdf5 import read_hdf5
from deepsim.export.published.caffe_model import LIMIT, Blob, CaffeModel, looks_like_model, read_model
from deepsim.export.published.caffe_prototxt import looks_like_prototxt, read_prototxt
from deepsim.export.published.layouts import LAYOUTS
from deepsim.export.published.networks import PublishedNetwork, SourceFile, find_networks
from deepsim.export.published.topology import WITH_WEIGHTS, LayerFacts, Topology, in_order
from deepsim.runtime.errors import CheckpointError
from deepsim.runtime.features.hdf5_file import MAGIC
from deepsim.runtime.files import sha256
from deepsim.runtime.os_errors import disk_errors

PROTOTXT = "Caffe prototxt"
_KINDS = {layer.name: layer.kind for layouts in LAYOUTS.values() for known in layouts for layer in known.layers}


@dataclass(frozen=True)
class CaffeFiles:
    """What a Caffe model, with a prototxt or without, brings: arrays by release names, topology, files."""

    weights: dict[str, NDArray[np.float32]]
    topology: Topology | None
    sources: tuple[SourceFile, ...]

    def networks(self, layer: str | None = None, encoder: str | None = None) -> list[PublishedNetwork]:
        """Return the networks that the files hold (see :func:`deepsim.export.published.networks.find_networks`)."""
        return find_networks(self.weights, self.sources, self.topology, layer, encoder)


def caffe_format(data: bytes) -> Literal["model", "hdf5", "prototxt"] | None:
    """Tell by the whole content what a file of Caffe is, None for something else; no name is looked at."""
    if data.startswith(MAGIC):
        return "hdf5"
    if looks_like_model(data):
        return "model"
    return "prototxt" if looks_like_prototxt(data) else None


def read_caffe(path: Path, prototxt: Path | None = None) -> CaffeFiles:
    """Read a .caffemodel or .caffemodel.h5, and a prototxt that says what its layers do.

    Without a prototxt the topology is what the model's own layers say, None where they say nothing. Needs memory for
    the file and its weights. Raises CheckpointError naming the file and layer, DeviceError when a package is missing.
    """
    text = None if prototxt is None else (_bytes(prototxt), prototxt.name)
    return read_bytes(_bytes(path), path.name, text)


def read_bytes(data: bytes, name: str, prototxt: tuple[bytes, str] | None = None) -> CaffeFiles:
    """Read what :func:`read_caffe` reads from bytes; ``name`` and the prototxt's are for messages and the record."""
    if data.startswith(MAGIC):
        model = read_hdf5(data, name)
    elif looks_like_prototxt(data) and not looks_like_model(data):
        raise CheckpointError(f"{name}: a prototxt, expected a Caffe model with weights beside it.")
    else:
        model = read_model(data, name)
    sources = [SourceFile(name, len(data), sha256(data), model.format)]
    topology = _own_topology(model, name)
    if prototxt is not None:
        topology = read_prototxt(*prototxt)
        sources.append(SourceFile(prototxt[1], len(prototxt[0]), sha256(prototxt[0]), PROTOTXT))
    return CaffeFiles(_weights(model, topology, name), topology, tuple(sources))


def _bytes(path: Path) -> bytes:
    with disk_errors(path):
        if not path.is_file():
            raise CheckpointError(f"{path}: no file, expected a Caffe model or prototxt.")
        with path.open("rb") as file:
            size, hdf5 = path.stat().st_size, file.read(len(MAGIC)) == MAGIC
            if size > LIMIT and not hdf5:
                raise CheckpointError(f"{path}: {size:,} bytes, expected at most {LIMIT:,}, the limit of protobuf.")
            file.seek(0)
            return file.read()


def _own_topology(model: CaffeModel, file: str) -> Topology | None:
    described = any(layer.bottoms or layer.tops for layer in model.layers)
    return Topology(file, False, in_order(model.layers), model.inputs) if described else None


def _weights(model: CaffeModel, topology: Topology | None, file: str) -> dict[str, NDArray[np.float32]]:
    """Name every layer's arrays as release state dicts do, in their layout; those of other kinds by their number."""
    weights: dict[str, NDArray[np.float32]] = {}
    for name, blobs in model.blobs.items():
        facts = _facts(topology, name)
        kind = WITH_WEIGHTS.get(facts.kind) if facts else _KINDS.get(name) if topology is None else None
        if kind is None or not blobs:
            weights |= {f"{name}.{index}": blob.values for index, blob in enumerate(blobs)}
            continue
        _check_count(file, name, facts, blobs)
        weights[f"{name}.weight"] = _weight(blobs[0], kind == "fc", facts is not None and facts.transpose)
        weights |= {f"{name}.bias": _vector(blob) for blob in blobs[1:]}
    return weights


def _facts(topology: Topology | None, name: str) -> LayerFacts | None:
    index = None if topology is None else topology.find(name)
    return None if topology is None or index is None else topology.layers[index]


def _check_count(file: str, name: str, facts: LayerFacts | None, blobs: Sequence[Blob]) -> None:
    expected = 2 if facts is None or facts.bias else 1
    if len(blobs) != expected:
        what = "a weight and a bias" if expected == 2 else "a weight (bias_term is false)"
        raise CheckpointError(f"{file}: layer {name} has {len(blobs)} blobs, expected {what}.")


def _weight(blob: Blob, fully_connected: bool, transpose: bool) -> NDArray[np.float32]:
    values = blob.values
    if fully_connected and blob.legacy and values.shape[:2] == (1, 1):
        values = values[0, 0]
    return np.ascontiguousarray(values.T) if transpose and values.ndim == 2 else values


def _vector(blob: Blob) -> NDArray[np.float32]:
    return blob.values[0, 0, 0] if blob.legacy and blob.values.shape[:3] == (1, 1, 1) else blob.values
