"""Time a generation of a closed loop beside the same generation through plain PyTorch, after checking the images.

Plain PyTorch is what one writes by hand: nn.Sequential, the whole generation as one batch, no gradients, then mean,
channel order and rounding; a second form of it in channels-last memory is the stronger peer. All decode the same codes
of the same optimiser. Contenders alternate; medians are compared.

    deepsim export --random --layer fc6 --engine onnx -o fc6.deepsim
    python -m deepsim.benchmarks.closed_loop fc6.deepsim [--optimizer cholesky] [-o result.json]
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import click
import numpy as np
import torch
from numpy.typing import NDArray

from deepsim.benchmarks.timing import refuse_by_raising, verify
from deepsim.benchmarks.training_step import plain_network
from deepsim.runtime.backends.torch import stored_weights, weights_of
from deepsim.runtime.bundle import Bundle
from deepsim.runtime.cli.exits import run
from deepsim.runtime.cli.options import GivenPath
from deepsim.runtime.errors import UsageError
from deepsim.runtime.files import write_atomic
from deepsim.runtime.generators import GeneratorSpec
from deepsim.runtime.inverter import Inverter
from deepsim.runtime.machine import environment
from deepsim.runtime.pixels import Pixels
from deepsim.train.networks import LayerStack
from deepsim.train.optimize.black_box import PRESETS, CodeOptimizer, make_optimizer

Decode = Callable[[NDArray[np.float32]], Pixels]
Times: TypeAlias = dict[str, list[float]]
WARM_UP = 13  # generations of an optimiser that are not timed; CholeskyCMAES has updated its factor by then


def generator_of(bundle: Bundle) -> GeneratorSpec:
    """Return a bundle's generator. Raises UsageError where it has none."""
    if bundle.manifest.generator is None:
        raise UsageError(f"{bundle.path}: has an encoder alone, expected a generator.")
    return bundle.manifest.generator


class PlainTorch:
    """A bundle's generator as an nn.Sequential."""

    def __init__(self, bundle: Bundle, memory_format: torch.memory_format) -> None:
        generator, self._geometry = generator_of(bundle), bundle.manifest.geometry
        stack = LayerStack(generator.layers)
        stack.load_state_dict(weights_of(stored_weights(bundle), "generator", generator.layers))
        self._network = plain_network(stack).eval().to(memory_format=memory_format)
        self._mean = torch.tensor(generator.pixels.mean).view(3, 1, 1)
        self._order = generator.pixels.order

    def __call__(self, codes: NDArray[np.float32]) -> Pixels:
        """Decode codes, all at once."""
        start, end = self._geometry.offset, self._geometry.offset + self._geometry.side
        with torch.no_grad():
            output = self._network(torch.from_numpy(codes))[:, :, start:end, start:end] + self._mean
            pixels = output.round().clamp(0, 255).byte().permute(0, 2, 3, 1)
            images: Pixels = (pixels.flip(-1) if self._order == "BGR" else pixels).contiguous().numpy()
        return images


def contenders(bundle: Bundle, population: int) -> dict[str, Decode]:
    """Return what decodes a generation; ours first."""
    inverter = Inverter(bundle, "cpu", max_batch=population)
    return {
        "deepsim": inverter.decode,
        "plain PyTorch": PlainTorch(bundle, torch.contiguous_format),
        "plain PyTorch, channels last": PlainTorch(bundle, torch.channels_last),
    }


def check(decoders: dict[str, Decode], codes: NDArray[np.float32]) -> dict[str, dict[str, float]]:
    """Return how far each contender's images are from ours. Raises NumericError beyond one grey level."""
    calls = {name: _bound(decode, codes) for name, decode in decoders.items()}
    return verify(calls, {}, refuse_by_raising)


def _bound(decode: Decode, codes: NDArray[np.float32]) -> Callable[[], Pixels]:
    return lambda: decode(codes)


def score(images: Pixels) -> NDArray[np.float64]:
    """Score images by a few pixels: nothing beside the decoding."""
    return np.asarray(images[:, ::64, ::64].mean(axis=(1, 2, 3), dtype=np.float64))


def warmed_up(name: str, dimensions: int) -> CodeOptimizer:
    """Return an optimiser after some generations with scores of the codes themselves."""
    optimizer = make_optimizer(name, dimensions)
    for _ in range(WARM_UP):
        optimizer.tell(optimizer.ask()[:, 0])
    return optimizer


def measure(
    decoders: dict[str, Decode], optimizer: CodeOptimizer, shape: tuple[int, ...], repeats: int
) -> tuple[dict[str, Times], list[float]]:
    """Time generations in turn, after one round of warming up: seconds of decoding and of all, and of the optimiser."""
    times: dict[str, Times] = {name: {"decode": [], "generation": []} for name in decoders}
    search: list[float] = []
    for number in range(repeats + 1):
        for name, decode in decoders.items():
            began = time.perf_counter()
            codes = optimizer.ask().reshape(-1, *shape)
            asked = time.perf_counter()
            images = decode(codes)
            decoded = time.perf_counter()
            optimizer.tell(score(images))
            ended = time.perf_counter()
            if number:
                times[name]["decode"].append(decoded - asked)
                times[name]["generation"].append(ended - began)
                search.append(ended - began - (decoded - asked))
    return times, search


def time_search(name: str, dimensions: int, generations: int) -> dict[str, float]:
    """Time the optimiser alone, seconds per generation: the median and the largest."""
    optimizer, seconds = warmed_up(name, dimensions), []
    for _ in range(generations):
        began = time.perf_counter()
        optimizer.tell(optimizer.ask()[:, 0])
        seconds.append(time.perf_counter() - began)
    return {"median": statistics.median(seconds), "largest": max(seconds)}


@click.command()
@click.argument("bundle", type=GivenPath(path_type=Path))
@click.option("--optimizer", type=click.Choice(list(PRESETS)), default="cholesky", show_default=True, help="The rule.")
@click.option("--repeats", type=click.IntRange(1), default=15, show_default=True, help="Timed generations of each.")
@click.option("--searches/--no-searches", default=False, help="Time every optimiser alone too, 25 generations each.")
@click.option("-o", "--output", type=GivenPath(path_type=Path), help="Write the figures as JSON.")
def main(bundle: Path, optimizer: str, repeats: int, searches: bool, output: Path | None) -> None:
    """Compare a generation of a closed loop with plain PyTorch's on this machine's CPU."""
    opened = Bundle.open(bundle)
    shape = generator_of(opened).input_shape
    rule = warmed_up(optimizer, int(np.prod(shape)))
    codes = rule.ask().reshape(-1, *shape)
    decoders = contenders(opened, len(codes))
    load_before = os.getloadavg()[0]
    agreement = check(decoders, codes)
    times, search = measure(decoders, rule, shape, repeats)
    medians = {name: {what: statistics.median(values) for what, values in own.items()} for name, own in times.items()}
    click.echo(f"{bundle}: {len(codes)} codes, {optimizer}, {torch.get_num_threads()} threads of PyTorch")
    click.echo(f"load before {load_before:.1f}, after {os.getloadavg()[0]:.1f}; {optimizer} alone {_ms(search)}")
    for name, own in medians.items():
        ratios = {what: seconds / medians["deepsim"][what] for what, seconds in own.items()}
        levels = f"{agreement[name]['grey_levels']:.0f} grey level(s) in {agreement[name]['different']:.3%}"
        click.echo(
            f"{name:30} decode {own['decode']:.3f} s ({ratios['decode']:.2f}x ours), "
            f"generation {own['generation']:.3f} s ({ratios['generation']:.2f}x ours); {levels}"
        )
    record = {"optimizer": optimizer, "codes": len(codes), "agreement": agreement, "median_seconds": medians}
    record |= {"seconds": times, "search_seconds": search, "load": [load_before, os.getloadavg()[0]]}
    if searches:
        alone = {name: time_search(name, int(np.prod(shape)), 25) for name in PRESETS}
        for name, figures in alone.items():
            click.echo(f"{name:16} alone {figures['median']:.4f} s, at most {figures['largest']:.4f} s")
        record |= {"optimizers_alone": alone}
    if output:
        write_atomic(output, json.dumps({**record, "environment": environment()}, indent=2) + "\n")


def _ms(seconds: list[float]) -> str:
    return f"{1000 * statistics.median(seconds):.1f} ms"


if __name__ == "__main__":
    run(main, "closed_loop.py")
