"""The command ``deepsim import``: published weights in, a verified bundle out."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from deepsim.export.cli import require_packages
from deepsim.export.engine_options import engine_options
from deepsim.export.published.licence import NOTICE
from deepsim.export.telling import Bar, tell
from deepsim.runtime.cli.exits import Program
from deepsim.runtime.cli.options import GivenPath, output_option, overwrite_option
from deepsim.runtime.errors import CheckpointError, UsageError

if TYPE_CHECKING:
    from deepsim.export.published.networks import PublishedNetwork
    from deepsim.export.published.pixel_choice import Order
    from deepsim.export.sources import Source
    from deepsim.runtime.pixels import Display


@dataclass(frozen=True)
class Given:
    """The files that were named, and what was told of them."""

    source: Path | None
    encoder: str | None
    generator: Path | None
    prototxts: tuple[Path, ...]
    layer: str | None
    mean: str | None
    order: Order
    display: Display


@click.command(
    name="import",
    cls=Program,
    epilog="""\b
Examples:
  deepsim import fc6/generator.caffemodel --layer fc6 -o fc6.deepsim
  deepsim import upconvGAN_pool5.pt -o pool5.deepsim
  deepsim import --encoder bvlc_reference_caffenet.caffemodel --generator generator_relu6.pt --layer fc6 -o fc6.deepsim
  deepsim import VGG_ILSVRC_19_layers.pt --encoder vgg19-caffe -o vgg19.deepsim""",
)
@click.argument("source", required=False, type=GivenPath(path_type=Path))
@output_option("Bundle folder to write.")
@click.option("--layer", help="The layer that the generator inverts, or auto: what the file's name says.")
@click.option(
    "--encoder",
    help="What an encoder is, where its file cannot tell (caffenet, bvlc-alexnet, alexnet, vgg16, vgg19, vgg16-caffe, "
    "vgg19-caffe), its file, or NAME:FILE.",
)
@click.option("--generator", type=GivenPath(path_type=Path), help="The generator's file, to be joined to --encoder.")
@click.option(
    "--prototxt",
    "prototxts",
    multiple=True,
    type=GivenPath(path_type=Path),
    help="Topology of a Caffe model; of two, the encoder's first.",
)
@click.option("--mean", help="Mean in the network's channel order, or the file of a mean image. [104,117,123]")
@click.option(
    "--order", type=click.Choice(["BGR", "RGB"]), default="BGR", show_default=True, help="The network's channel order."
)
@click.option(
    "--display",
    type=click.Choice(["clip", "stretch"]),
    default="clip",
    show_default=True,
    help="stretch: the pictures of icnn and brain-decoding-cookbook, whose colours are not the network's.",
)
@engine_options("onnx")
@overwrite_option
@click.option("--json", "as_json", is_flag=True, help="Print files, figures and provenance as JSON on stdout.")
def main(
    source: Path | None,
    output: Path,
    layer: str | None,
    encoder: str | None,
    generator: Path | None,
    prototxts: tuple[Path, ...],
    mean: str | None,
    order: Order,
    display: Display,
    engine: str,
    target: str,
    gpus: str,
    max_batch: int,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Turn published weights into a bundle: ONNX graphs, verified against PyTorch.

    SOURCE is a Caffe model (.caffemodel, .caffemodel.h5) or a state dict of a PyTorch port (.pt, .pth, .safetensors),
    told by its content. An encoder or a generator alone is a bundle too.
    """
    require_packages("import")
    from deepsim.export.bundle import Options, export_bundle

    options = Options(engine, target, max_batch, gpus=gpus)  # type: ignore[arg-type]  # click has checked them
    if output.exists() and not overwrite:
        raise UsageError(f"{output}: exists already. Choose another name, or pass --overwrite to replace it.")
    began = time.monotonic()
    with Bar(engine) as bar:
        bar.stage("read")
        loaded = load(Given(source, encoder, generator, prototxts, layer, mean, order, display), bar)
        manifest = export_bundle(loaded, output, options, overwrite, bar)
    tell(manifest, output, time.monotonic() - began, as_json)


def load(given: Given, bar: Bar) -> Source:
    """Read the files that were named, and say what was assumed of them."""
    from deepsim.export.published.assembly import assemble, heeds
    from deepsim.export.published.pixel_choice import choose_pixels

    pixels = replace(choose_pixels(given.mean, given.order), display=given.display)
    networks, layer, layer_from = _read(given)
    source = assemble(networks, pixels, layer, layer_from)
    if source.generator is None and given.display != "clip":
        raise UsageError(f"--display {given.display}: an encoder alone makes no pictures.")
    told = heeds(source, pixels)
    for option, value, default in (("--mean", given.mean, None), ("--order", given.order, "BGR")):
        if value != default and not told:
            raise UsageError(f"{option} {value}: {source.table.name} has its own pixels, expected no other ones.")
    bar.warn(f"Licence: {NOTICE}.")
    if told:
        bar.warn(f"Pixels: {pixels}")
    for note in source.provenance["notes"]:
        bar.warn(f"Note: {note}")
    return source


def _read(given: Given) -> tuple[list[PublishedNetwork], str | None, str | None]:
    """Return the networks, and the layer that was told, with who told it."""
    from deepsim.export.published.reading import read_published

    name, file = _encoder(given.encoder)
    if given.source is not None:
        for option, path in (("--generator", given.generator), ("--encoder", file)):
            if path is not None:
                raise UsageError(f"{given.source}: a SOURCE and {option} {path}, expected --encoder and --generator.")
        if len(given.prototxts) > 1:
            raise UsageError(f"--prototxt {given.prototxts[1]}: a second one for one SOURCE.")
        found = read_published(given.source, given.layer, name, next(iter(given.prototxts), None))
        return found.networks, found.layer, found.layer_from
    if name is not None and file is None:
        raise UsageError(f"--encoder {name}: no file of it, expected {name}:FILE, or a SOURCE.")
    if file is None and given.generator is None:
        raise UsageError("no SOURCE, expected a file of published weights, or --encoder FILE and --generator FILE.")
    prototxts = _prototxt_of(given, file)
    networks: list[PublishedNetwork] = []
    if file is not None:
        own = given.layer if given.generator is None else None
        first = read_published(file, own, name, prototxts.get(file))
        networks += _only("encoder", first.networks, file)
        if given.generator is None:
            return networks, first.layer, first.layer_from
    assert given.generator is not None
    second = read_published(given.generator, given.layer, None, prototxts.get(given.generator))
    networks += _only("generator", second.networks, given.generator)
    return networks, second.layer, second.layer_from


def _encoder(text: str | None) -> tuple[str | None, Path | None]:
    """Read ``--encoder``: what the encoder is, its file, or both."""
    from deepsim.export.published.reading import ENCODER_NAMES

    if text is None or text in ENCODER_NAMES:
        return text, None
    name, colon, file = text.partition(":")
    if colon and name in ENCODER_NAMES and file:
        return name, Path(file)
    if not Path(text).exists():
        raise UsageError(f"--encoder {text}: neither a file nor one of {', '.join(ENCODER_NAMES)}.")
    return None, Path(text)


def _prototxt_of(given: Given, encoder: Path | None) -> dict[Path, Path]:
    """Return which prototxt belongs to which of the files that are joined."""
    files = [path for path in (encoder, given.generator) if path is not None]
    if not given.prototxts:
        return {}
    if len(given.prototxts) != len(files):
        raise UsageError(f"--prototxt: {len(given.prototxts)} for {len(files)} files, expected one for each.")
    return dict(zip(files, given.prototxts, strict=True))


def _only(role: str, networks: list[PublishedNetwork], path: Path) -> list[PublishedNetwork]:
    found = [network for network in networks if network.role == role]
    if not found:
        held = " and ".join(network.role for network in networks)
        raise CheckpointError(f"{path}: holds no {role}, but the {held}. Name it with the other option.")
    return found
