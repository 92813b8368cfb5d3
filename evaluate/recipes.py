"""Which settings bring a short training furthest: recipes trained by the clock, each with several seeds, compared.

    python -m deepsim.evaluate.recipes --data train/ --validation held-out/ --minutes 2 -o recipes.json

Each recipe changes one thing in the recipe that it names, so that what a change brings can be read off. All train the
preset "demo" for the same minutes and are measured on all validation photographs: the normalised image error of the
paper, and how sharp the images are (gradient energy relative to the photographs'). Recipes and seeds take turns, so
that a machine that becomes slower is fair to all. Results are kept as they come; the command goes on where it was
stopped. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from deepsim.evaluate.metrics.sharpness import gradient_energy, luma
from deepsim.runtime.checkout import process_environment
from deepsim.runtime.cli.exits import run
from deepsim.runtime.errors import DataError, DeepsimError, UsageError
from deepsim.runtime.files import write_atomic
from deepsim.runtime.machine import environment
from deepsim.runtime.metrics import normalized_error
from deepsim.runtime.run_folder import CONFIG
from deepsim.train.checkpoints import load_newest
from deepsim.train.config import TrainConfig, read_config
from deepsim.train.data import FolderDataset, validation_batch
from deepsim.train.distributed import World
from deepsim.train.loop import reconstruct
from deepsim.train.models import build_models
from deepsim.train.settings import arguments_of

CHUNK = 16  # photographs reconstructed at once
_PROGRAM = "from deepsim.runtime.cli import main; main()"


@dataclass(frozen=True)
class Recipe:
    """Settings that are changed in another recipe (in the preset "demo" where ``of`` is empty)."""

    of: str
    changes: dict[str, Any] = field(default_factory=dict)


RECIPES: dict[str, Recipe] = {
    "adam": Recipe(
        "", {"optimizer": "adam", "precision": "fp32", "lambda_feat": 2e-3, "learning_rate": 1e-3, "warm_up": 0}
    ),
    "adam, rate x 3": Recipe("adam", {"learning_rate": 3e-3, "warm_up": 50}),
    "adam, rate x 1/3": Recipe("adam", {"learning_rate": 3e-4}),
    "adam, average": Recipe("adam", {"average": 0.99}),
    "adam, even start": Recipe("adam", {"even_start": True}),
    "adam, constant rate": Recipe("adam", {"schedule": "constant"}),
    "adam, image loss alone": Recipe("adam", {"lambda_feat": 0.0}),
    "adam, bf16 where faster": Recipe("adam", {"precision": "auto"}),
    "muon": Recipe("adam", {"optimizer": "muon", "learning_rate": 3e-3, "warm_up": 50}),
    "muon, fast": Recipe("muon", {"lambda_feat": 0.0, "precision": "auto"}),
    "muon, fast, rate x 1/2": Recipe("muon, fast", {"learning_rate": 1.5e-3}),
    "muon, fast, rate x 2": Recipe("muon, fast", {"learning_rate": 6e-3}),
    "muon, fast, average": Recipe("muon, fast", {"average": 0.99}),
    "muon, fast, even start": Recipe("muon, fast", {"even_start": True}),
    "muon, fast, batch 4": Recipe("muon, fast", {"batch": 4}),
    "muon, fast, batch 16": Recipe("muon, fast", {"batch": 16}),
    "muon, fast, full width": Recipe("muon, fast", {"width": 1.0}),
    "muon, fast, no mirror": Recipe("muon, fast", {"mirror": False}),
    "muon, fast, no zoom": Recipe("muon, fast", {"zoom": 0.0}),
}


def settings_of(name: str) -> dict[str, Any]:
    """Return all settings that a recipe changes in the preset "demo". Raises UsageError naming the recipes.

    >>> settings_of("muon, fast")["learning_rate"]
    0.003
    """
    if name not in RECIPES:
        raise UsageError(f"recipe {name!r}: unknown, expected one of {'; '.join(RECIPES)}.")
    recipe = RECIPES[name]
    return {**(settings_of(recipe.of) if recipe.of else {}), **recipe.changes}


@dataclass(frozen=True)
class Photographs:
    """Where recipes train, and what they are measured on."""

    data: tuple[str, ...]
    validation: tuple[str, ...]


def measure(folder: Path, validation: tuple[str, ...]) -> dict[str, float]:
    """Return the steps of a run, and error and sharpness of its newest checkpoint on validation photographs."""
    config = TrainConfig().updated(read_config(folder / CONFIG))
    models = build_models(config, torch.device("cpu"), World(), folder)
    state = load_newest(folder, models)
    if state is None:
        raise DataError(f"{folder}: no checkpoint, expected one.")
    dataset = FolderDataset(validation)
    photos = validation_batch(dataset, len(dataset), models.geometry.framing).numpy()
    images = np.concatenate([reconstruct(models, photos[at : at + CHUNK]) for at in range(0, len(photos), CHUNK)])
    energy = [float(gradient_energy(luma(pixels)).sum()) for pixels in (images, photos)]
    error = normalized_error(images, photos)
    return {"steps": state["step"], "error": error, "sharpness": energy[0] / energy[1]}


def train_and_measure(name: str, seed: int, minutes: float, photographs: Photographs) -> dict[str, Any]:
    """Train a recipe in a process of its own, in a folder that is removed; return what it came to.

    Raises DeepsimError with the last line of a training that failed.
    """
    folders = {"data": photographs.data, "validation": photographs.validation}
    with tempfile.TemporaryDirectory() as scratch:
        run_folder = Path(scratch) / "run"
        settings = {**settings_of(name), "seed": seed, "minutes": minutes, "output": run_folder}
        options = arguments_of(settings) + [f"--{option}={path}" for option, paths in folders.items() for path in paths]
        command = [sys.executable, "-P", "-c", _PROGRAM, "train", "--preset=demo", "--quiet", *options]
        done = subprocess.run(command, env=process_environment(), capture_output=True, text=True, check=False)
        if done.returncode:
            raise DeepsimError(f"recipe {name!r}, seed {seed}: {(done.stderr.strip() or 'no word').splitlines()[-1]}")
        return {"recipe": name, "seed": seed, **measure(run_folder, photographs.validation)}


def table(rows: list[dict[str, Any]]) -> str:
    """Return a line for each recipe, the least error first: means over seeds, and the range of the error."""
    lines = [f"{'recipe':28}{'seeds':>6}{'error':>9}{'least':>9}{'most':>9}{'sharpness':>11}{'steps':>8}"]
    by_recipe = {name: [row for row in rows if row["recipe"] == name] for name in {row["recipe"]: None for row in rows}}
    for name, found in sorted(by_recipe.items(), key=lambda item: statistics.mean(row["error"] for row in item[1])):
        errors = [100 * row["error"] for row in found]
        sharpness, steps = (statistics.mean(row[key] for row in found) for key in ("sharpness", "steps"))
        spread = f"{statistics.mean(errors):7.2f} %{min(errors):7.2f} %{max(errors):7.2f} %"
        lines.append(f"{name:28}{len(found):6}{spread}{sharpness:11.3f}{steps:8.0f}")
    return "\n".join(lines)


@click.command()
@click.option("--data", multiple=True, required=True, help="Folder of photographs to train on (repeatable).")
@click.option("--validation", multiple=True, required=True, help="Folder of photographs to measure on (repeatable).")
@click.option(
    "--minutes", type=click.FloatRange(0.05), default=2.0, show_default=True, help="Minutes of each training."
)
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True, help="Seeds of each recipe.")
@click.option("--recipe", "names", multiple=True, help="Only this recipe (repeatable). Default: all.")
@click.option("--most", type=click.IntRange(0), default=0, help="Stop after so many trainings; 0: none is left.")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="JSON file of results, kept on.")
def main(
    data: tuple[str, ...],
    validation: tuple[str, ...],
    minutes: float,
    seeds: int,
    names: tuple[str, ...],
    most: int,
    output: Path,
) -> None:
    """Train every recipe with several seeds and print what each came to."""
    for name in names:
        settings_of(name)
    record = _begun(output, minutes)
    known = {(row["recipe"], row["seed"]) for row in record["rows"]}
    wanted = [(name, seed) for seed in range(seeds) for name in names or RECIPES if (name, seed) not in known]
    for name, seed in wanted[: most or None]:
        record["rows"].append(train_and_measure(name, seed, minutes, Photographs(data, validation)))
        write_atomic(output, json.dumps(record, indent=2) + "\n")
        last = record["rows"][-1]
        click.echo(f"{name}, seed {seed}: error {last['error']:.2%}, sharpness {last['sharpness']:.3f}", err=True)
    click.echo(table(record["rows"]))


def _begun(output: Path, minutes: float) -> dict[str, Any]:
    """Return the results so far. Raises UsageError where they are of other minutes, DataError where unreadable."""
    if not output.exists():
        return {"minutes": minutes, "environment": environment(), "rows": []}
    try:
        record: dict[str, Any] = json.loads(output.read_bytes())
        begun, _ = float(record["minutes"]), [(row["recipe"], row["seed"], row["error"]) for row in record["rows"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{output}: unreadable ({error}), expected results of this program.") from error
    if begun != minutes:
        raise UsageError(f"{output}: of trainings of {begun:g} minutes, expected {minutes:g}. Pass another --output.")
    return record


if __name__ == "__main__":
    run(main, "python -m deepsim.evaluate.recipes")
