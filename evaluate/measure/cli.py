"""The command ``deepsim evaluate``."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from deepsim.runtime.cli.bulk import Bulk, bulk_options, check_inputs_stay
from deepsim.runtime.cli.options import (
    GivenPath,
    backend_options,
    check_absent,
    check_apart,
    check_folder,
    command,
    examples,
    footer,
    output_option,
)
from deepsim.runtime.errors import UsageError, missing_extra
from deepsim.runtime.files import reserved

PATH = GivenPath(path_type=Path)


@dataclass(frozen=True)
class Request:
    """What was asked for: one field per option of that name."""

    bundles: tuple[Path, ...]
    photos: Path
    output: Path
    names: tuple[str, ...]
    images: tuple[str, ...]
    spaces: tuple[str, ...]
    reference: Path | None
    limit: int | None
    lpips_weights: Path | None
    inception_weights: Path | None
    neighbours: Path | None
    k: int
    drift: int | None
    interpolation: int | None
    shown: int
    resamples: int
    confidence: float
    seed: int
    keep: bool
    as_json: bool
    bulk: Bulk
    backend: str
    device: str
    max_batch: int

    @property
    def where(self) -> dict[str, Any]:
        """Return what opens an Inverter besides a bundle."""
        return {"backend": self.backend, "device": self.device, "max_batch": self.max_batch}


@click.command(
    epilog=examples(
        "deepsim evaluate fc6.deepsim --photos held-out/ -o evaluation",
        "deepsim evaluate full.deepsim image-loss.deepsim --photos val/ --space net.deepsim:conv2,fc7 -o table",
        "deepsim evaluate fc6.deepsim --images 'Mahendran & Vedaldi@fc6=mv/' --photos val/ -o table --resume",
        "deepsim evaluate fc6.deepsim --photos val/ --neighbours train/ --drift 64 --interpolation 8 -o paper",
    )
)
@click.argument("bundles", nargs=-1, type=PATH)
@click.option("--photos", required=True, type=PATH, help="Folder of photographs that training has not seen.")
@output_option("Folder for evaluation.json, table.txt, table.csv and a line for each photograph.")
@click.option("--name", "names", multiple=True, help="Name of a method, in the bundles' order (repeatable).")
@click.option(
    "--images",
    multiple=True,
    metavar="NAME[@LAYER]=FOLDER",
    help="Pictures by another program as one more method, named as the photographs (repeatable).",
)
@click.option(
    "--space",
    "spaces",
    multiple=True,
    metavar="BUNDLE[:LAYER,...]",
    help="Another network or other layers to compare and identify in; pixels for identification there (repeatable).",
)
@click.option("--reference", type=PATH, help="Photographs that N is of, instead of those evaluated.")
@click.option("--limit", type=click.IntRange(1), help="Most photographs to measure, spread over the folder.")
@click.option("--lpips-weights", type=PATH, help="State dict of torchvision's AlexNet, for LPIPS.")
@click.option("--inception-weights", type=PATH, help="Inception weights of torch-fidelity, for FID and KID.")
@click.option("--neighbours", type=PATH, help="Folder whose photographs nearest to each reconstruction are found.")
@click.option("--k", type=click.IntRange(1, 1000), default=5, show_default=True, help="Neighbours of each.")
@click.option("--drift", type=click.IntRange(2, 1 << 16), help="Re-encode so many times, and draw the strip of Fig. 5.")
@click.option("--interpolation", type=click.IntRange(2, 256), help="Draw so many images between photographs (Fig. 7).")
@click.option("--shown", type=click.IntRange(2, 64), default=4, show_default=True, help="Photographs in drawn strips.")
@click.option(
    "--resamples", type=click.IntRange(1), default=2000, show_default=True, help="Bootstrap resamples of intervals."
)
@click.option(
    "--confidence",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.95,
    show_default=True,
    help="How often an interval holds the true value.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the resamples.")
@click.option(
    "--keep", is_flag=True, help="Keep pixels, pictures and features in rows/: more methods are quicker then."
)
@click.option("--json", "as_json", is_flag=True, help="Print evaluation.json instead of the tables.")
@bulk_options
@backend_options
def evaluate(**options: Any) -> None:
    """Measure BUNDLES on photographs: the paper's Table 2, structure, sharpness and identification, with intervals.

    Each bundle is a method, a row of the table. A run that was stopped goes on with --resume; more methods can be added
    so.
    """
    for module, extra in (("torch", "evaluate"), ("safetensors", "evaluate")):
        if importlib.util.find_spec(module) is None:
            raise missing_extra(module, extra)
    asked = Request(**options)
    _check(asked)
    with reserved(asked.output):
        from deepsim.evaluate.measure.run import run

        record, text = run(asked)
    click.echo(json.dumps(record, indent=2, allow_nan=False) if asked.as_json else text)
    following = command("deepsim", "report", *asked.bundles[:1], "--photos", asked.photos)
    methods, photographs = len(record["methods"]), record["photographs"]["count"]
    words = f"{methods} method{'s' * (methods != 1)}, {photographs} photographs"
    footer(f"{asked.output}: {words}", following)


def _check(asked: Request) -> None:
    """Refuse what makes no sense, before any work."""
    if not asked.bundles and not asked.images:
        raise UsageError("evaluate: neither a bundle nor --images, expected one or several methods.")
    if asked.names and len(asked.names) != len(asked.bundles):
        raise UsageError(f"--name: {len(asked.names)} names for {len(asked.bundles)} bundles, expected one for each.")
    check_folder(asked.output)
    folders = [path for path in (asked.photos, asked.reference, asked.neighbours) if path is not None]
    if asked.output.is_dir():
        check_apart([asked.output], folders)
    targets = [asked.output / name for name in ("evaluation.json", "table.txt", "table.csv")]
    for bundle in asked.bundles:
        check_inputs_stay(targets, [], bundle)
    if not asked.bulk.resume:
        check_absent(targets, asked.bulk.overwrite, other="pass --resume to go on")
