"""The command ``deepsim figures``: the paper's figures from runs, bundles and other methods' pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from itertools import chain
from pathlib import Path

import click

from deepsim.evaluate.figures.members import Member, read_given
from deepsim.runtime.cli.options import (
    GivenPath,
    backend_options,
    check_absent,
    check_apart,
    command,
    examples,
    footer,
    overwrite_option,
)
from deepsim.runtime.errors import UsageError, missing_extra
from deepsim.runtime.files import replacing, reserved
from deepsim.runtime.images import find_images

SUFFIXES = (".html", ".pdf")


@click.command(
    epilog=examples(
        "deepsim figures runs/ -o paper.html",
        "deepsim figures runs/ fc6.deepsim evaluation/ -o paper.html -o paper.pdf",
        "deepsim figures runs/ 'Mahendran & Vedaldi@fc6=mv/fc6' --photos held-out/ -o paper.html",
    )
)
@click.argument("runs", nargs=-1, required=True, metavar="[NAME=]RUN...")
@click.option(
    "-o",
    "--output",
    "outputs",
    multiple=True,
    required=True,
    type=GivenPath(path_type=Path),
    help="Page to write, .html or .pdf (repeatable).",
)
@click.option(
    "--photos",
    type=GivenPath(path_type=Path),
    help="Folder of photographs to show and measure. Default: four of scikit-image, which training has not seen.",
)
@click.option("--show", default=4, show_default=True, type=click.IntRange(2, 16), help="Most photographs to picture.")
@click.option("--limit", default=64, show_default=True, type=click.IntRange(2), help="Most photographs to measure.")
@overwrite_option
@backend_options
def figures(
    runs: tuple[str, ...],
    outputs: tuple[Path, ...],
    photos: Path | None,
    show: int,
    limit: int,
    overwrite: bool,
    backend: str,
    device: str,
    max_batch: int,
) -> None:
    """Draw Figures 1 and 3 to 8 and Table 2 of Dosovitskiy & Brox 2016 from RUNS.

    A RUN is a training run, a bundle, a folder of these, an evaluation of deepsim evaluate, or METHOD[@LAYER]=FOLDER:
    pictures of another method, named as the photographs. What a run records decides in which figures it is drawn. The
    paper's own numbers stand beside, named as theirs; a figure without its runs is left out, with the commands to make
    them.
    """
    _check_outputs(outputs)
    for module in ("torch", "matplotlib", "jinja2"):
        if find_spec(module) is None:
            raise missing_extra(module, "evaluate")
    check_absent(outputs, overwrite)
    from deepsim.evaluate.figures.compose import asked, compose
    from deepsim.evaluate.figures.drawing import Engine, Studio, check_enough
    from deepsim.evaluate.figures.gallery import folder_gallery, own_gallery

    found = find_images([photos]) if photos else []
    given = read_given(runs)
    _check_apart(outputs, given.members, found)
    gallery = folder_gallery(photos, found, show, limit) if photos else own_gallery(show)
    check_enough(gallery)
    with reserved(*outputs):
        studio = Studio(gallery, given.evaluations, Engine(backend, device, max_batch))
        studio.draw(asked(given.members))
        document = compose(given.members, studio)
        for output in outputs:
            _write(document, output)
    for figure in document.figures:
        click.echo(figure.title)
    for absent in document.missing:
        click.echo(f"{absent.title}: left out, needs {absent.want.words}.", err=True)
    written = ", ".join(f"{output}: {output.stat().st_size / 1e6:.1f} MB" for output in outputs)
    footer(written, f"open {command(outputs[0])}")


def _check_outputs(outputs: Sequence[Path]) -> None:
    for output in outputs:
        if output.suffix.lower() not in SUFFIXES:
            raise UsageError(f"{output}: expected a name that ends in {' or '.join(SUFFIXES)}.")
    if len({output.resolve() for output in outputs}) < len(outputs):
        raise UsageError(f"-o: {outputs[0]} given twice, expected different names.")


def _check_apart(outputs: Sequence[Path], members: Sequence[Member], photographs: Sequence[Path]) -> None:
    """Raise UsageError where a page would replace, or lie in, what it is drawn from."""

    def read() -> Iterator[Path]:
        return chain.from_iterable(member.path.rglob("*") for member in members)

    check_apart(outputs, chain(read(), photographs))
    for output in outputs:
        for member in members:
            if member.source == "bundle" and member.path.resolve() in output.resolve().parents:
                raise UsageError(f"{output}: in the bundle {member.path}, expected a place outside.")


def _write(document: object, output: Path) -> None:
    from deepsim.evaluate.figures.document import Document
    from deepsim.evaluate.figures.html import render
    from deepsim.evaluate.figures.pdf import write_pdf

    assert isinstance(document, Document)
    with replacing(output) as file:
        if output.suffix.lower() == ".pdf":
            write_pdf(document, file)
        else:
            file.write(render(document).encode())
