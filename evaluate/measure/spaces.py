"""Spaces in which pictures are compared: pixels, the inverted layer, other layers and other networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from deepsim.runtime.bundle import Bundle
from deepsim.runtime.errors import UsageError
from deepsim.runtime.files import sha256
from deepsim.runtime.images import prepare_batch
from deepsim.runtime.inverter import Inverter
from deepsim.runtime.manifest import Manifest
from deepsim.runtime.pixels import Pixels

PIXELS = "pixels"  # as a space for identification
GRAPH = "encoder.onnx"


@dataclass(frozen=True)
class Space:
    """A layer of a network: ``identity`` tells its features from all others, ``shape`` is that of one feature.

    ``origin`` is its bundle; it is part of the name where another space would have the same (``told_apart``).
    """

    network: str
    layer: str
    shape: tuple[int, ...]
    identity: str
    origin: str = ""
    told_apart: bool = False

    @property
    def name(self) -> str:
        """Return how tables call it, such as "caffenet fc6"."""
        return f"{self.network} {self.layer}" + (f" ({self.origin})" if self.told_apart else "")

    @property
    def key(self) -> str:
        """Return the name of its array of features."""
        return f"features-{self.identity[:12]}.f32"


class Network(Protocol):
    """What computes features in one or several spaces of one network."""

    spaces: tuple[Space, ...]

    def features(self, pixels: Pixels) -> list[NDArray[np.float32]]:
        """Return the features of pictures (n, side, side, 3) in each space, in order; any side is framed first."""
        ...


class EncodingBundle:
    """The layer that a bundle inverts or encodes, computed by its own backend."""

    def __init__(self, inverter: Inverter) -> None:
        manifest, origin = inverter.bundle.manifest, inverter.bundle.path.stem
        self.inverter = inverter
        identity = sha256(f"{encoder_identity(manifest)} {inverter.encoder_backend}".encode())
        named = str(manifest.encoder_name)
        self.spaces: tuple[Space, ...] = (Space(named, inverter.layer, inverter.feature_shape, identity, origin),)

    def features(self, pixels: Pixels) -> list[NDArray[np.float32]]:
        """Return the features of pictures."""
        return [self.inverter.encode(pixels)]


class TableLayers:
    """Some layers of a bundle's encoder, which is a table, computed by PyTorch in one pass."""

    def __init__(self, bundle: Path, layers: Sequence[str]) -> None:
        """Open the bundle. Raises BundleError where its encoder is no table, UsageError for unknown layers."""
        from deepsim.train.optimize.encoders import open_encoder
        from deepsim.train.optimize.place import Place

        self._layers, self._encoder = list(layers), open_encoder(str(bundle), layers, None, Place())
        whole = encoder_identity(Bundle.open(bundle).manifest)
        self.spaces: tuple[Space, ...] = tuple(
            Space(
                self._encoder.name,
                layer,
                self._encoder.shape_of(layer),
                sha256(f"{whole} torch {layer}".encode()),
                f"{bundle.stem} by PyTorch",
            )
            for layer in layers
        )

    def features(self, pixels: Pixels) -> list[NDArray[np.float32]]:
        """Return the features of pictures in each layer."""
        import torch

        seen = self._encoder.pixels.to_network(prepare_batch(pixels, self._encoder.framing))
        found = self._encoder.features(torch.from_numpy(seen), self._layers)
        return [np.ascontiguousarray(found[layer].numpy()) for layer in self._layers]


def tell_apart(networks: Sequence[Network]) -> None:
    """Let every space have a name of its own: of two equal names the later one gets its bundle's."""
    taken: set[str] = set()
    for network in networks:
        plain = (replace(space, told_apart=False) for space in network.spaces)
        network.spaces = tuple(replace(space, told_apart=space.name in taken) for space in plain)
        taken |= {space.name for space in network.spaces}


def encoder_identity(manifest: Manifest) -> str:
    """Tell a bundle's encoder, with its weights, from others: equal for bundles that were exported around the same.

    A bundle without a graph of its encoder is told by its whole manifest.
    """
    graph = manifest.files.get(GRAPH)
    return sha256(manifest.to_bytes()) if graph is None else f"{manifest.layer} {graph.sha256}"


def split_space(text: str) -> tuple[Path, list[str]]:
    """Split "BUNDLE" or "BUNDLE:LAYER,LAYER" into a bundle and layers; the bundle is the shortest path that exists.

    Raises UsageError for an empty name.

    >>> split_space("norm2.deepsim:conv2,norm2:linear")
    (PosixPath('norm2.deepsim'), ['conv2', 'norm2:linear'])
    """
    places = [place for place, letter in enumerate(text) if letter == ":"]
    place = next((place for place in places if Path(text[:place]).exists()), None)
    if Path(text).exists() or place is None:
        return Path(text), []
    names = text[place + 1 :].split(",")
    if not all(names):
        raise UsageError(f"--space {text}: an empty name, expected BUNDLE or BUNDLE:LAYER,LAYER.")
    return Path(text[:place]), names
