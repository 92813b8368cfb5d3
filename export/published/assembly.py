"""Published networks as a source of an export: which ones, joined at which layer, with which pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from deepsim.export.published.licence import NOTICE
from deepsim.export.published.networks import PublishedNetwork
from deepsim.export.published.pixel_choice import PixelChoice
from deepsim.export.sources import Source
from deepsim.runtime.errors import CheckpointError, UsageError
from deepsim.runtime.generators import GeneratorSpec
from deepsim.runtime.geometry import CAFFE_FRAMING, IMAGENET_FRAMING, MAX_SIDE
from deepsim.runtime.networks import CAFFENET, EncoderSpec
from deepsim.runtime.pixels import PixelConvention


def assemble(
    networks: Sequence[PublishedNetwork], pixels: PixelChoice, layer: str | None = None, layer_from: str | None = None
) -> Source:
    """Join the encoder and the generator among ``networks``, or take the one that is there.

    An encoder ends at the layer that the generator inverts, or at ``layer``; ``layer_from`` says who named that, None
    where the files tell. A discriminator has no place in a bundle and is left out, with a note. Raises CheckpointError
    when there is neither, or the two do not fit; UsageError for two of a kind.
    """
    encoder, generator = _one(networks, "encoder"), _one(networks, "generator")
    if encoder is None and generator is None:
        names = ", ".join(file.name for network in networks for file in network.sources)
        raise CheckpointError(f"{names}: a discriminator alone, expected an encoder or a generator.")
    spec = None if generator is None else _generator_spec(generator, pixels)
    inverted = layer if spec is None else spec.layer
    table = None if encoder is None else _encoder_spec(encoder, pixels, inverted)
    side = (CAFFE_FRAMING if table is None else table.framing).side
    _check_fit(table, spec, side)
    notes = _notes(networks, table, spec, pixels)
    source = Source(
        table,
        spec,
        {} if encoder is None or table is None else _weights_of(encoder, table),
        {} if generator is None else generator.weights,
        np.zeros((0, side, side, 3), np.uint8),
        {},
        display=pixels.display,
    )
    return replace(source, provenance=_provenance(source, networks, layer_from, notes, pixels))


def heeds(source: Source, pixels: PixelChoice) -> bool:
    """Tell whether a network of a source has the pixels that were chosen; torchvision's encoders have their own."""
    return source.generator is not None or source.table.pixels == pixels.convention


def _one(networks: Sequence[PublishedNetwork], role: str) -> PublishedNetwork | None:
    found = [network for network in networks if network.role == role]
    if len(found) > 1:
        names = " and ".join(network.sources[0].name for network in found)
        raise UsageError(f"{names}: both hold a network of the kind {role}, expected one.")
    return found[0] if found else None


def _generator_spec(network: PublishedNetwork, pixels: PixelChoice) -> GeneratorSpec:
    return GeneratorSpec(network.name, network.input_shape, network.layers, pixels.convention)


def _encoder_spec(network: PublishedNetwork, pixels: PixelChoice, layer: str | None) -> EncoderSpec:
    """Return the encoder's table up to ``layer``; the file's input decides the side of its photographs."""
    framing = IMAGENET_FRAMING if network.name.startswith("vgg") else CAFFE_FRAMING
    side = network.input_shape[-1]
    if network.input_shape != (3, side, side) or side > MAX_SIDE:
        raise CheckpointError(
            f"{network.sources[0].name}: an encoder's input has shape {network.input_shape}, expected (3, S, S)."
        )
    framing = replace(framing, side=side, size=max(framing.size, side))
    spec = EncoderSpec(network.name, network.layers, _encoder_pixels(network, pixels), framing)
    return spec if layer is None else replace(spec, layers=spec.up_to(layer))


def _encoder_pixels(network: PublishedNetwork, pixels: PixelChoice) -> PixelConvention:
    """Return Caffe's convention with the mean and the order that were chosen, or the network's own, normalised one."""
    return pixels.convention if network.pixels.scale == pixels.convention.scale else network.pixels


def _weights_of(network: PublishedNetwork, spec: EncoderSpec) -> dict[str, Any]:
    names = [f"{layer.name}.{kind}" for layer in spec.layers if layer.has_weights for kind in ("weight", "bias")]
    return {name: network.weights[name] for name in names}


def _check_fit(encoder: EncoderSpec | None, generator: GeneratorSpec | None, side: int) -> None:
    if generator is None:
        return
    if generator.output_size < side:
        raise CheckpointError(
            f"generator of {generator.layer}: its images have {generator.output_size} pixels a side, "
            f"expected at least {side}, the side of the encoder's input."
        )
    if encoder is not None and encoder.feature_shape(generator.layer) != generator.input_shape:
        raise CheckpointError(
            f"{generator.layer} of {encoder.name} has shape {encoder.feature_shape(generator.layer)}, "
            f"expected {generator.input_shape}, which the generator takes."
        )


def _notes(
    networks: Sequence[PublishedNetwork],
    encoder: EncoderSpec | None,
    generator: GeneratorSpec | None,
    pixels: PixelChoice,
) -> list[str]:
    notes = [note for network in networks for note in network.notes]
    if any(network.role == "discriminator" for network in networks):
        notes.append("the discriminator is left out: a bundle holds an encoder and a generator")
    if encoder is not None and generator is not None and encoder.pixels.scale != pixels.convention.scale:
        notes.append(f"{encoder.name} has its own pixels ({_words(encoder.pixels)}, normalised), not those of --mean")
    if encoder is not None and generator is not None and encoder.name != CAFFENET.name:
        notes.append(f"the released generators invert CaffeNet; this one is joined to {encoder.name}")
    return list(dict.fromkeys(notes))


def _words(pixels: PixelConvention) -> str:
    return f"{pixels.order} minus {', '.join(f'{mean:g}' for mean in pixels.mean)}"


def _provenance(
    source: Source,
    networks: Sequence[PublishedNetwork],
    layer_from: str | None,
    notes: list[str],
    pixels: PixelChoice,
) -> dict[str, Any]:
    """Return what the manifest keeps of where the weights come from, as plain JSON values."""
    read = [file for network in networks for file in network.sources]
    files = {file.sha256: asdict(file) for file in (*read, *([pixels.source] if pixels.source else []))}
    told = heeds(source, pixels)
    convention, mean_from = (
        (pixels.convention, pixels.mean_from) if told else (source.table.pixels, "the network's own")
    )
    return {
        "from": "published weights",
        "sources": list(files.values()),
        "layer": {"name": source.layer, "told by": layer_from or "the files"},
        "pixels": {**convention.to_json(), "mean from": mean_from, "display": pixels.display},
        "notes": notes,
        "licence": NOTICE,
    }
