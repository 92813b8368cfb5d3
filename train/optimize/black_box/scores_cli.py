"""The command ``deepsim optimize scores``: a closed loop with a function or an encoder's unit for a neuron."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
from tqdm import tqdm

from deepsim.runtime.cli.bulk import check_inputs_stay
from deepsim.runtime.cli.options import (
    GivenPath,
    backend_options,
    bundle_argument,
    check_folder,
    command,
    footer,
    open_inverter,
    output_option,
)
from deepsim.runtime.errors import UsageError
from deepsim.runtime.features.rows import open_rows
from deepsim.runtime.inverter import Inverter
from deepsim.train.optimize.black_box.closed_loop import ClosedLoop
from deepsim.train.optimize.black_box.loop_folder import BEST, CODES
from deepsim.train.optimize.black_box.optimizer import MAX_SEED, Start
from deepsim.train.optimize.black_box.presets import PRESETS
from deepsim.train.optimize.black_box.scores import Score, UnitScore, load_score, parse_unit, repeat


@dataclass(frozen=True)
class Search:
    """What was asked for besides the bundle and who scores: one field per option of that name."""

    optimizer: str
    generations: int
    start: str | None
    seed: int
    settings: tuple[str, ...]
    presentations: int
    missing: str
    full: bool
    strip: int
    resume: bool


@click.command(
    epilog="""\b
Examples:
  deepsim optimize scores fc6.deepsim -o run --score my_module:score
  deepsim optimize scores fc6.deepsim -o run --encoder vgg16.deepsim --unit 123 --optimizer genetic --generations 200
  deepsim optimize scores fc6.deepsim -o run --encoder conv4.deepsim --unit 5,6,6 --optimizer cma-diagonal
  deepsim optimize scores fc6.deepsim -o run --score my_module:score --start codes.npy --set sigma=1.5 --resume"""
)
@bundle_argument
@output_option("Folder of the search: state, log, codes and pictures.")
@click.option("--optimizer", type=click.Choice(list(PRESETS)), default="cholesky", show_default=True, help="The rule.")
@click.option("--generations", type=click.IntRange(1), default=75, show_default=True, help="Generations in all.")
@click.option("--score", "reference", help="MODULE:FUNCTION: uint8 RGB (n, S, S, 3) to n numbers, higher is better.")
@click.option("--encoder", type=GivenPath(path_type=Path), help="Bundle whose encoder gives the scores, with --unit.")
@click.option("--unit", help="Index of a unit of the encoder's layer, or c,y,x.")
@click.option("--presentations", type=click.IntRange(1, 10_000), default=1, show_default=True, help="Scores per image.")
@click.option(
    "--missing",
    type=click.Choice(["refuse", "allow"]),
    default="refuse",
    show_default=True,
    help="What a score of NaN does: allow leaves it out of the average of its image.",
)
@click.option("--start", help="normal, zeros, or a file or folder of codes. Default: as the rule was published.")
@click.option("--seed", type=click.IntRange(0, MAX_SEED), default=0, show_default=True, help="Decides all draws.")
@click.option(
    "--set", "settings", multiple=True, help="NAME=VALUE: another value for a setting of the rule (repeatable)."
)
@click.option("--strip", type=click.IntRange(1, 1024), default=8, show_default=True, help="Best images in a picture.")
@click.option("--full", is_flag=True, help="Use the generator's whole images, not the part that training scored.")
@click.option("--resume", is_flag=True, help="Go on where an earlier search in this folder stopped, or begin one.")
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON on stdout.")
@partial(backend_options, max_batch=64)  # generations of all presets at once
def scores(
    bundle: Path,
    output: Path,
    reference: str | None,
    encoder: Path | None,
    unit: str | None,
    quiet: bool,
    as_json: bool,
    backend: str,
    device: str,
    max_batch: int,
    **options: Any,
) -> None:
    """Search for codes whose images get the highest scores, a generation at a time.

    Scores come from a Python function, or from a unit of an encoder. Each generation is decoded at once, and kept.
    """
    search = Search(**options)
    check_folder(output)
    check_inputs_stay([output], [] if encoder is None else [encoder], bundle)
    if (reference is None) == (encoder is None):
        raise UsageError("scores: expected either --score, or --encoder with --unit.")
    if (encoder is None) != (unit is None):
        raise UsageError("--unit: expected with --encoder, and only there.")
    with (
        open_inverter(bundle, backend, device, max_batch) as inverter,
        _scorer(reference, encoder, unit, backend) as score,
    ):
        loop = _loop(inverter, output, search)
        _run(loop, score, search, quiet)
    _tell(loop, bundle, output, as_json)


@contextmanager
def _scorer(reference: str | None, encoder: Path | None, unit: str | None, backend: str) -> Iterator[Score]:
    if reference is not None:
        yield load_score(reference)
        return
    assert encoder is not None and unit is not None, "checked before"
    with Inverter(encoder, backend) as inverter:
        yield UnitScore(inverter, parse_unit(unit))


def _loop(inverter: Inverter, output: Path, search: Search) -> ClosedLoop:
    return ClosedLoop(
        inverter,
        search.optimizer,
        search.generations,
        output,
        search.resume,
        search.seed,
        _start(search.start, inverter),
        _settings(search.settings),
        search.missing,  # type: ignore[arg-type]  # click has checked it
        search.full,
        search.strip,
    )


def _start(start: str | None, inverter: Inverter) -> Start | None:
    """Return a word of the option, or the codes of a file or folder."""
    if start is None or start in ("normal", "zeros"):
        return start  # type: ignore[return-value]
    rows = open_rows(start, inverter.feature_shape, inverter.layer)
    return rows.stack(range(len(rows)))


def _settings(given: Sequence[str]) -> dict[str, str | bool]:
    """Read NAME=VALUE. Raises UsageError."""
    pairs = [text.partition("=") for text in given]
    for text, (name, sign, _) in zip(given, pairs, strict=True):
        if not name or not sign:
            raise UsageError(f"--set {text}: expected NAME=VALUE.")
    words = {"true": True, "false": False}
    return {name: words.get(value.lower(), value) for name, _, value in pairs}


def _run(loop: ClosedLoop, score: Score, search: Search, quiet: bool) -> None:
    with tqdm(total=search.generations, unit="generation", disable=True if quiet else None) as bar:
        for _, images in loop:
            bar.update(loop.generation - bar.n)  # a resumed loop begins later
            loop.tell(repeat(score, images, search.presentations))
            bar.update(1)
            bar.set_postfix(mean=loop.log[-1]["mean"], best=loop.best.score if loop.best else None)


def _tell(loop: ClosedLoop, bundle: Path, output: Path, as_json: bool) -> None:
    last = loop.log[-1]
    if as_json:
        best = None if loop.best is None else {"name": loop.best.name, "score": loop.best.score}
        seconds = sum(line["seconds"] for line in loop.log)
        outcome = {"generations": loop.generation, "best": best, "mean": last["mean"], "sd": last["sd"]}
        click.echo(json.dumps({**outcome, "seconds": seconds, "folder": str(output)}))
    found = "no score at all" if loop.best is None else f"best score {loop.best.score:.6g} ({loop.best.name}, {BEST})"
    footer(
        f"{output}: {loop.generation} generations, {found}",
        command("deepsim", "decode", bundle, output / CODES / f"gen{last['generation']:03d}", "-o", "images"),
    )
