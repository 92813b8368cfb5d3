"""The command ``deepsim posterior``: what the codes of a variational autoencoder tell about photographs."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from tqdm import tqdm

from deepsim.runtime.cli.bulk import Bulk
from deepsim.runtime.cli.options import (
    check_absent,
    check_apart,
    check_folder,
    command,
    examples,
    footer,
    output_option,
    overwrite_option,
    photos_argument,
)
from deepsim.runtime.dataset import OnError, Photographs, path_of, read_batches
from deepsim.runtime.errors import missing_extra
from deepsim.runtime.files import write_atomic
from deepsim.runtime.images import image_names, save_png

if TYPE_CHECKING:
    from deepsim.evaluate.posterior.measure import Figures
    from deepsim.evaluate.posterior.networks import Autoencoder

PICTURE, CHART, FIGURES = "posterior.png", "kl.png", "posterior.json"
BATCH = 8
_NEEDED = {"torch": "train", "safetensors": "train", "matplotlib": "evaluate"}


@click.command(
    epilog=examples(
        "deepsim posterior runs/vae held-out/ -o posterior",
        "deepsim posterior runs/vae/checkpoints/step-00005000 held-out/ -o posterior --draws 5 --json",
    )
)
@click.argument("run", type=click.Path(path_type=Path))
@photos_argument
@output_option(f"Folder for {PICTURE}, {CHART} and {FIGURES}.")
@click.option(
    "--draws", type=click.IntRange(1, 32), default=3, show_default=True, help="Codes to draw of each photograph shown."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the draws.")
@click.option(
    "--on-error",
    type=click.Choice(["stop", "skip"]),
    default="stop",
    show_default=True,
    help="At an unusable photograph.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON on stdout.")
@overwrite_option
def posterior(
    run: Path,
    photos: Sequence[Path],
    output: Path,
    draws: int,
    seed: int,
    on_error: OnError,
    device: str,
    as_json: bool,
    overwrite: bool,
) -> None:
    """Show what a variational autoencoder's codes tell about photographs (files or folders).

    RUN is the folder of a run of --task vae, or one of its checkpoints. The picture has rows of photographs, of images
    of their mean and of drawn codes, and of samples of the prior; the chart has the divergence of each unit from it.
    """
    for module, extra in _NEEDED.items():
        if importlib.util.find_spec(module) is None:
            raise missing_extra(module, extra)
    import torch

    from deepsim.evaluate.posterior.networks import Autoencoder
    from deepsim.train.devices import device_of

    check_folder(output)
    photographs, targets = (
        Photographs(image_names(photos, apart_from=output)),
        [output / name for name in (PICTURE, CHART, FIGURES)],
    )
    check_apart(targets, map(path_of, photographs))
    check_absent(targets, overwrite)
    networks = Autoencoder.open(run, torch.device(device_of(device, torch.cuda.is_available())))
    bulk = Bulk(overwrite, False, on_error, can_resume=False)
    figures = _measured(networks, photographs, draws, seed, bulk)
    record = _write(networks, figures, output, draws, seed)
    click.echo(json.dumps(record, indent=2) if as_json else _told(record))
    footer(f"{output}: {bulk.outcome(figures.count, 'photographs')}", command("deepsim", "export", run))


def _measured(networks: Autoencoder, photographs: Photographs, draws: int, seed: int, bulk: Bulk) -> Figures:
    """Measure all photographs under a progress bar. Raises DataError when none can be used."""
    from deepsim.evaluate.posterior.measure import Figures, measure

    figures = Figures(networks.units)
    read = read_batches(photographs, BATCH, networks.geometry.framing, bulk.on_error, bulk.report)
    with (
        tqdm(total=len(photographs), unit="image", disable=None) as bar,
        bulk.going_on(lambda: figures.count, len(photographs)),
    ):
        for figures in measure(networks, (batch.pixels for batch in read), draws, seed):
            bar.update(figures.count - bar.n)
    if figures.count == 0:
        bulk.outcome(0, "photographs")  # raises
    return figures


def _write(networks: Autoencoder, figures: Figures, output: Path, draws: int, seed: int) -> dict[str, Any]:
    """Write both pictures and the figures; return these."""
    from deepsim.evaluate.posterior.measure import sampled
    from deepsim.evaluate.posterior.picture import divergence_chart, labelled_rows

    shown = len(figures.rows["photograph"])
    samples = sampled(networks, 2 * shown, seed)
    rows = {**figures.rows, "prior sample": list(samples[:shown]), "prior sample, more": list(samples[shown:])}
    save_png(labelled_rows(rows), output / PICTURE)
    write_atomic(output / CHART, divergence_chart(figures.per_unit))
    record = {"run": networks.run, "step": networks.step, "draws": draws, "seed": seed, **figures.to_json()}
    write_atomic(output / FIGURES, json.dumps(record, indent=2) + "\n")
    return record


def _told(record: dict[str, Any]) -> str:
    told, count = record["collapsed"], record["units"]
    return "\n".join(
        [
            f"KL from the prior      {record['kl']['total']:.2f} nats for a photograph",
            f"collapsed units        {told['count']} of {count} (below {told['below']:g} nats)",
            f"RMSE of mean codes     {record['rmse']['mean code']:.1f} grey levels",
            f"RMSE of drawn codes    {record['rmse']['drawn code']:.1f} grey levels",
        ]
    )
