"""The names that public PyTorch ports give the published networks' tensors, and the release's names for them.

A port's names follow from a network's table by a rule, so the rules stand here instead of lists. No port flips or
rotates a kernel: tensors are taken as they are.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal

from deepsim.export.published.layouts import BVLC_ALEXNET
from deepsim.kernels.layers import Layer
from deepsim.runtime.errors import CheckpointError
from deepsim.runtime.generators import generator_spec
from deepsim.runtime.networks import ALEXNET, CAFFENET, VGG16, VGG19

PREFIXES = ("module.", "G.", "_network.", "net.")  # DataParallel, circuit_toolkit, bdpy, others
BUFFERS = frozenset({"mean_img"})  # saved beside weights by pytorch-caffe; no layer reads them
_NEAREST = 3  # layouts that a refusal names


@dataclass(frozen=True)
class PortLayout:
    """One port's names for one network: each of the release's tensors with all names that the port gives it.

    ``port`` is what a person calls it, ``network`` a generator's layers or an encoder's name. ``layers`` is a table
    with these names; channel counts and strides may be those of another layer.
    """

    port: str
    network: str
    role: Literal["encoder", "generator"]
    layers: tuple[Layer, ...]
    spellings: dict[str, tuple[str, ...]]

    @property
    def optional(self) -> frozenset[str]:
        """Return the biases of a generator's up-convolutional part."""
        return frozenset(f"{layer.name}.bias" for layer in self.layers if layer.role == "upconv")

    def outputs_axis(self, layer: str) -> int:
        """Return the axis of a layer's weight that counts its outputs: 1 for a transposed convolution, else 0."""
        kinds = {entry.name: entry.kind for entry in self.layers}
        return 1 if kinds[layer] == "deconv" else 0

    def __str__(self) -> str:
        return f"{self.port}: {self.network} {self.role}"

    def missing(self, names: Collection[str]) -> list[str]:
        """List the names of tensors that ``names`` lack, in the network's order, by their first spelling.

        A generator's biases that were 0 in the release may be absent, but only all of them together.
        """
        absent = [tensor for tensor, known in self.spellings.items() if not set(known) & set(names)]
        if self.optional <= set(absent):
            absent = [tensor for tensor in absent if tensor not in self.optional]
        return [self.spellings[tensor][0] for tensor in absent]

    def unknown(self, names: Collection[str]) -> list[str]:
        """List those of ``names`` that the layout does not know, in their order."""
        known = {name for spellings in self.spellings.values() for name in spellings}
        return [name for name in names if name not in known]


@dataclass(frozen=True)
class Renaming:
    """What a file's names mean: the layout, and the file's names of each of the release's tensors.

    A tensor with two names has both; one that the file lacks, and whose values are 0, has none.
    """

    layout: PortLayout
    names: dict[str, tuple[str, ...]]
    buffers: tuple[str, ...]


def strip_prefixes(names: Collection[str]) -> dict[str, str]:
    """Map names to themselves without the prefixes that all tensors of layers share, such as ``module.G.``.

    >>> strip_prefixes(["module.G.defc7.weight"])
    {'module.G.defc7.weight': 'defc7.weight'}
    """
    short = {name: name for name in names}
    while found := next((prefix for prefix in PREFIXES if _share(prefix, short.values())), None):
        short = {name: stripped.removeprefix(found) for name, stripped in short.items()}
    return short


def _share(prefix: str, names: Collection[str]) -> bool:
    own = [name for name in names if name.rpartition(".")[2] not in BUFFERS]
    return bool(own) and all(name.startswith(prefix) for name in own)


def recognise(names: Collection[str], source: str) -> Renaming:
    """Find the layout that a state dict's names are of.

    Raises CheckpointError that names the nearest known layouts and the first name that differs.
    """
    short = strip_prefixes(names)
    plain = [name for name in short.values() if name not in BUFFERS]
    fitting = [layout for layout in port_layouts() if not layout.missing(plain) and not layout.unknown(plain)]
    if not plain or not fitting:
        raise CheckpointError(_refusal(plain, source))
    layout = fitting[0]
    back = {stripped: name for name, stripped in short.items()}
    found = {
        tensor: tuple(back[spelling] for spelling in spellings if spelling in back)
        for tensor, spellings in layout.spellings.items()
    }
    return Renaming(layout, found, tuple(name for name in names if short[name] in BUFFERS))


def _refusal(names: list[str], source: str) -> str:
    if not names:
        return f"{source}: no tensors, expected the weights of a network."
    ranked = sorted(port_layouts(), key=lambda layout: len(layout.missing(names)) + len(layout.unknown(names)))
    nearest = "; ".join(_difference(layout, names) for layout in ranked[:_NEAREST])
    return f"{source}: names of no known network, first {names[0]}, expected one of the nearest: {nearest}."


def _difference(layout: PortLayout, names: list[str]) -> str:
    missing, unknown = layout.missing(names), layout.unknown(names)
    first = [f"the file lacks {missing[0]}"] if missing else []
    first += [f"the file also has {unknown[0]}"] if unknown else []
    return f"{layout} ({', '.join(first)})"


@cache
def port_layouts() -> tuple[PortLayout, ...]:
    """List the known layouts, encoders last."""
    return (*_generator_layouts(), *_encoder_layouts())


def _generator_layouts() -> Iterator[PortLayout]:
    # One layer for each set of names; the file cannot tell apart those that share one.
    for network, layer in (("fc6, fc7 or fc8", "fc6"), ("pool5", "pool5"), ("conv3 or conv4", "conv3")):
        yield from _ports_of(network, generator_spec(layer).layers)
    yield from _ports_of("norm1 or norm2", generator_spec("norm2").layers)


def _ports_of(network: str, layers: tuple[Layer, ...]) -> Iterator[PortLayout]:
    weighted = [layer for layer in layers if layer.has_weights]
    second, numbered = _bdpy_names(weighted), _numbered(weighted)
    release = {layer.name: (layer.name, second[layer.name], *numbered.get(layer.name, ())) for layer in weighted}
    yield PortLayout("release names, bdpy", network, "generator", layers, _tensors(release))
    yield PortLayout("XDream", network, "generator", layers, _tensors(_xdream_names(weighted)))
    if weighted[0].kind == "fc":
        yield PortLayout("XDream of 2019-04-03", network, "generator", layers, _tensors(_first_xdream_names(weighted)))


def _tensors(names: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Return the spellings of each tensor from those of each layer."""
    return {
        f"{layer}.{kind}": tuple(f"{name}.{kind}" for name in spellings)
        for layer, spellings in names.items()
        for kind in ("weight", "bias")
    }


def _numbered(layers: list[Layer]) -> dict[str, tuple[str]]:
    """Return the names of pytorch-caffe's fully connected layers, which follow a flattening: ``defc7.1``."""
    return {layer.name: (f"{layer.name}.1",) for layer in layers if layer.kind == "fc"}


def _bdpy_names(layers: list[Layer]) -> dict[str, str]:
    """Return bdpy's second name of each layer: its place in one of three sequences of layers and activations."""
    places = {"defc": 0, "rconv": 0, "deconv": 0}
    names = {}
    for layer in layers:
        sequence = "defc" if layer.kind == "fc" else "rconv" if layer.role == "feature" else "deconv"
        names[layer.name] = f"{sequence}.{places[sequence]}"
        places[sequence] += 1 if layer.activation == "none" else 2
    return names


def _xdream_names(layers: list[Layer]) -> dict[str, tuple[str]]:
    """Return XDream's names since 2019-04-10: ``tconv`` for transposed convolutions, ``_0`` where a ``_1`` follows."""
    paired = _paired(layers)
    names = {}
    for layer in layers:
        stem = re.sub("^(defc|Rconv|deconv|conv)", "", layer.name)
        if layer.kind == "fc":
            name = f"fc{stem}"
        elif layer.kind == "deconv":
            name = f"tconv{stem}_0" if layer.name in paired else f"tconv{stem}"
        else:
            name = f"conv{stem}"
        names[layer.name] = (name,)
    return names


def _first_xdream_names(layers: list[Layer]) -> dict[str, tuple[str]]:
    """Return XDream's first names: the release's, but ``deconv5_0`` and ``deconv5_1`` for deconv5 and conv5_1."""
    paired = _paired(layers)
    return {
        layer.name: (f"{layer.name}_0" if layer.name in paired else re.sub("^conv", "deconv", layer.name),)
        for layer in layers
    }


def _paired(layers: list[Layer]) -> set[str]:
    """Return the up-convolutions ``deconvN`` that a layer ``convN_1`` follows."""
    names = {layer.name for layer in layers}
    return {name for name in names if name.startswith("deconv") and f"{name.removeprefix('de')}_1" in names}


def _encoder_layouts() -> Iterator[PortLayout]:
    release = {layer.name: (layer.name, f"{layer.name}.1") for layer in CAFFENET.layers if layer.has_weights}
    yield PortLayout("release names", "caffenet", "encoder", CAFFENET.layers, _tensors(release))
    for port, network, layers, heads in (
        ("bdpy reference_net", "caffenet", CAFFENET.layers, (1, 4, 6)),
        ("bdpy alexnet", BVLC_ALEXNET.name, BVLC_ALEXNET.layers, (0, 2, 4)),
        ("torchvision alexnet", "alexnet", ALEXNET.layers, (1, 4, 6)),
        ("bdpy or torchvision vgg19", "vgg19", VGG19.layers, (0, 3, 6)),
        ("torchvision vgg16", "vgg16", VGG16.layers, (0, 3, 6)),
    ):
        yield PortLayout(port, network, "encoder", layers, _tensors(_sequential(layers, heads)))
    for spec in (VGG16, VGG19):
        names = {layer.name: (layer.name, f"{layer.name}.1") for layer in spec.layers if layer.has_weights}
        yield PortLayout("release names", spec.name, "encoder", spec.layers, _tensors(names))


def _sequential(layers: tuple[Layer, ...], heads: tuple[int, int, int]) -> dict[str, tuple[str]]:
    """Return names by place: ``features.N``, where layers and activations count, and ``classifier.N`` of the heads."""
    names, place = {}, 0
    fc = iter(heads)
    for layer in layers:
        if layer.kind == "fc":
            names[layer.name] = (f"classifier.{next(fc)}",)
        elif layer.has_weights:
            names[layer.name] = (f"features.{place}",)
        place += 1 if layer.activation == "none" else 2
    return names
