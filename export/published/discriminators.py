"""The discriminator of the release: does an image, with the feature that it shows, come from the data?

It is no chain: global average pooling of its convolutions' output joins the feature that has passed Dfeat1 and Dfeat2;
Dfc6 and Dfc7 follow. A file's topology is compared with that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from deepsim.export.published.topology import PASSING, LayerFacts, Topology, relu_name, weighted
from deepsim.kernels.layers import Layer
from deepsim.runtime.errors import CheckpointError

if TYPE_CHECKING:
    from deepsim.export.published.networks import PublishedNetwork
    from deepsim.train.discriminator import Discriminator

_PARTS = ("convolutions", "condition", "classify")  # of deepsim.train.discriminator


def check_counts(layers: tuple[Layer, ...], source: str) -> None:
    """Raise CheckpointError naming the first layer whose inputs are not what the layers before it give."""
    by_name = {layer.name: layer for layer in layers}
    for layer in layers:
        before = _before(layer.name, by_name)
        given = sum(by_name[name].outputs for name in before)
        if before and layer.inputs != given:
            raise CheckpointError(f"{source}: {layer.name}.weight takes {layer.inputs}, expected {given} inputs.")


def check_discriminator(topology: Topology, layers: tuple[Layer, ...]) -> None:
    """Raise CheckpointError naming the first layer of a file's discriminator that is not the release's."""
    shapes = {f"{layer.name}.weight": layer.weight_shape for layer in layers}
    by_name = {layer.name: layer for layer in layers}
    for layer in layers:
        index = topology.find(layer.name)
        if index is None:
            raise CheckpointError(f"{topology.file}: no layer {layer.name} with weights.")
        _same(topology, topology.layers[index], layer, shapes)
        expected = _before(layer.name, by_name)
        found = _sources(topology, index) if expected else []
        if found != expected:
            raise topology.refuse(topology.layers[index], f"follows {_words(found)}", _words(expected))
        if layer.activation == "relu" and not _activated(topology, index):
            raise topology.refuse(topology.layers[index], "no ReLU follows", "one")


def _words(names: list[str]) -> str:
    return " and ".join(names) or "an input"


def _same(topology: Topology, facts: LayerFacts, layer: Layer, shapes: dict[str, tuple[int, ...]]) -> None:
    found = weighted(topology, facts, shapes)
    for name in ("kind", "kernel", "stride", "padding", "groups"):
        if getattr(found, name) != getattr(layer, name):
            raise topology.refuse(facts, f"{name} {getattr(found, name)}", f"{getattr(layer, name)}")


def _before(name: str, layers: dict[str, Layer]) -> list[str]:
    """Return which layers with weights a layer reads, in order."""
    if name == "Dfc6":
        return ["Dconv5", "Dfeat2"] if "Dfeat2" in layers else ["Dconv5"]
    chain = ["Dconv1", "Dconv2", "Dconv3", "Dconv4", "Dconv5"], ["Dfeat1", "Dfeat2"], ["Dfc6", "Dfc7"]
    return next(([part[part.index(name) - 1]] if part.index(name) else [] for part in chain if name in part), [])


def _sources(topology: Topology, index: int) -> list[str]:
    """Return the discriminator's layers with weights that one reads, through pooling, ReLU, Dropout and Concat."""
    found: list[str] = []
    pending = [(blob, index) for blob in topology.layers[index].bottoms]
    for _ in range(len(topology.layers)):
        if not pending:
            break
        blob, before = pending.pop(0)
        producer = topology.producer(blob, before)
        layer = None if producer is None else topology.layers[producer]
        if producer is None or layer is None:
            continue
        if layer.name.startswith("D") and topology.find(layer.name) == producer:
            found.append(layer.name)
        elif _hands_on(topology, layer):
            pending = [(bottom, producer) for bottom in layer.bottoms] + pending
    return found


def _hands_on(topology: Topology, layer: LayerFacts) -> bool:
    """Tell whether a layer of the discriminator has no weights. Raises CheckpointError for what it may not hold."""
    if layer.kind == "Pooling" and (layer.pool, layer.whole) != ("AVE", True):
        raise topology.refuse(layer, layer.pool, "AVE with global_pooling")
    if layer.kind == "ReLU" and relu_name(topology, layer) != "relu":
        raise topology.refuse(layer, f"negative_slope {layer.slope:g}", "0")
    return layer.kind in PASSING | {"ReLU", "Pooling", "Flatten", "Concat"}


def _activated(topology: Topology, index: int) -> bool:
    top = topology.layers[index].tops[0] if topology.layers[index].tops else ""
    readers = topology.readers(top, index)
    return bool(readers) and topology.layers[readers[0]].kind == "ReLU"


def build_discriminator(network: PublishedNetwork) -> Discriminator:
    """Return a published discriminator as the module that training uses.

    Raises CheckpointError where its channel counts are not the published ones at one width.
    """
    import torch

    from deepsim.train.discriminator import Discriminator

    layers = {layer.name: layer for layer in network.layers}
    feature_size = layers["Dfeat1"].inputs if "Dfeat1" in layers else None
    module = Discriminator(feature_size, layers["Dconv5"].outputs / 256)
    order = [name for part in _PARTS for name in module.state_dict() if name.startswith(part)]
    state = {}
    for layer, (weight, bias) in zip(network.layers, zip(order[::2], order[1::2], strict=True), strict=True):
        for name, kind in ((weight, "weight"), (bias, "bias")):
            state[name] = torch.from_numpy(network.weights[f"{layer.name}.{kind}"])
            if state[name].shape != module.state_dict()[name].shape:
                found, expected = tuple(state[name].shape), tuple(module.state_dict()[name].shape)
                raise CheckpointError(f"discriminator: {layer.name}.{kind} has shape {found}, expected {expected}.")
    module.load_state_dict(state)
    return module.eval()
