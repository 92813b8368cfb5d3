"""Time the optimisation of codes beside the same rule one target at a time, as bdpy has it: weights get gradients.

The plain form is torch.nn modules, one code, weights that require gradients, torch.optim.SGD with the gradient divided
by its mean absolute value. Both find the same codes, which is checked first; then they alternate, and medians count.

    python -m deepsim.benchmarks.optimize_codes --encoder caffenet [--quick] [-o result.json]
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import click
import torch
from torch import Tensor, nn

from deepsim.benchmarks.training_step import plain_module
from deepsim.kernels.layers import macs
from deepsim.runtime.cli.exits import run
from deepsim.runtime.errors import NumericError
from deepsim.runtime.files import write_atomic
from deepsim.runtime.generators import GeneratorSpec, generator_spec
from deepsim.runtime.machine import environment
from deepsim.runtime.networks import EncoderSpec, encoder_spec
from deepsim.train.encoders import random_encoder
from deepsim.train.frozen import LINEAR
from deepsim.train.networks import Generator, LayerStack, initialise_generator
from deepsim.train.optimize.encoders import TableEncoder
from deepsim.train.optimize.evaluation import Evaluator, Wanted
from deepsim.train.optimize.layer_weights import weigh
from deepsim.train.optimize.pictures import GeneratorPictures
from deepsim.train.optimize.place import Place
from deepsim.train.optimize.presets import preset
from deepsim.train.optimize.randomness import Stream
from deepsim.train.optimize.rules import Rule
from deepsim.train.optimize.view import View

EXACT = 1e-6  # relative difference of codes and losses in fp64 after the checked iterations
NEAR = 1e-2  # of losses in fp32 from those in fp64, in the first iteration
CHECKED, VERIFIED = 2, 2  # iterations and targets
STEPS = (2.0, 1e-10)
DECAY = 0.01
LAYERS = {
    "caffenet": ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"),
    "vgg19": (
        *(f"conv{block}_{index}" for block, count in enumerate((2, 2, 4, 4, 4), 1) for index in range(1, count + 1)),
        *("fc6", "fc7", "fc8"),
    ),
}


@dataclass(frozen=True)
class Case:
    """One comparison: networks with random weights, targets (n, ...) by tap, and the codes to begin with (n, C)."""

    generator: Generator
    encoder: LayerStack
    spec: EncoderSpec
    taps: tuple[str, ...]
    targets: dict[str, Tensor]
    codes: Tensor
    view: View

    @property
    def work(self) -> float:
        """Return the 1e9 floating-point operations of one iteration of one target: two passes of both networks."""
        own = self.generator.spec
        return 4e-9 * (macs(own.layers, own.input_shape) + macs(self.encoder.layers, self.spec.input_shape))


def build_case(encoder: str, count: int, width: float, seed: int = 0) -> Case:
    """Draw networks and targets: the features of other codes' pictures, so that there is something to be found."""
    spec = encoder_spec(encoder)
    generator = Generator(generator_spec("fc6", width=width))
    initialise_generator(generator, torch.Generator().manual_seed(seed))
    network = random_encoder(spec, "fc8", seed)
    own: GeneratorSpec = generator.spec
    taps = tuple(tap_of(spec, layer) for layer in LAYERS[encoder])
    view = View.between(own.pixels, spec.pixels, own.output_size, spec.framing.side)
    codes = torch.stack([Stream(seed, str(row), 0).start_at("normal", 1.0, own.input_shape) for row in range(count)])
    rng = torch.Generator().manual_seed(seed + 1)
    case = Case(generator, network, spec, taps, {}, codes, view)
    table = TableEncoder(spec, dict(network.state_dict()), "random", Place())
    for row in range(count):
        picture = view(generator(torch.randn(1, *own.input_shape, generator=rng).relu()).detach())
        for tap, values in table.features(picture, taps).items():
            case.targets.setdefault(tap, values.new_empty(count, *values.shape[1:]))[row] = values[0]
    return case


def tap_of(spec: EncoderSpec, layer: str) -> str:
    """Return the tap of bdpy's layer of that name: before the activation."""
    entry = next(entry for entry in spec.layers if entry.name == layer)
    return layer if entry.activation == "none" else layer + LINEAR


class Plain:
    """One target, as bdpy does it: modules whose weights get gradients, hooks on the layers, torch's SGD."""

    def __init__(self, case: Case, row: int, place: Place) -> None:
        self.case, self.place, self.features = case, place, dict[str, Tensor]()
        self.generator, self.encoder = (
            plain_modules(network).to(place.dtype) for network in (case.generator, case.encoder)
        )
        for tap in case.taps:
            self.encoder.get_submodule(tap.removesuffix(LINEAR)).register_forward_hook(self._keep(tap))
        self.begin(row)

    def begin(self, row: int) -> None:
        """Start with the code of a target."""
        case = self.case
        self.targets = {tap: values[row : row + 1].to(self.place.dtype) for tap, values in case.targets.items()}
        inverse = {tap: 1 / float(values.square().sum()) for tap, values in self.targets.items()}
        self.weights = {tap: value / sum(inverse.values()) for tap, value in inverse.items()}
        self.code = case.codes[row : row + 1].to(self.place.dtype, copy=True).requires_grad_()
        self.optimizer = torch.optim.SGD([self.code], lr=STEPS[0], momentum=0.9)
        self.iteration = 0

    def _keep(self, tap: str) -> Callable[[nn.Module, object, Tensor], None]:
        def hook(module: nn.Module, inputs: object, output: Tensor) -> None:
            self.features[tap] = output

        return hook

    def step(self, iterations: int) -> float:
        """Make one iteration of ``iterations``; return the loss before it."""
        for group in self.optimizer.param_groups:
            group["lr"] = STEPS[0] + self.iteration * (STEPS[1] - STEPS[0]) / iterations
        for module in (self.generator, self.encoder, self.optimizer):
            module.zero_grad()
        self.encoder(self.case.view(self.generator(self.code)))
        loss = torch.stack(
            [
                self.weights[tap] * nn.functional.mse_loss(self.features[tap], wanted, reduction="sum")
                for tap, wanted in self.targets.items()
            ]
        ).sum()
        torch.autograd.backward(loss)
        assert self.code.grad is not None
        self.code.grad /= self.code.grad.abs().mean()
        self.optimizer.step()
        with torch.no_grad():
            self.code.mul_(1 - DECAY)
        self.iteration += 1
        return float(loss.item())


def plain_modules(stack: LayerStack) -> nn.Sequential:
    """Copy a network into named torch.nn modules, an activation after its layer; its weights want gradients."""
    modules = nn.Sequential()
    for layer in stack.layers:
        module = plain_module(layer)
        if layer.has_weights:
            target = module[1] if isinstance(module, nn.Sequential) else module
            target.load_state_dict(stack.get_submodule(layer.name).state_dict())
        modules.add_module(layer.name, module)
        if layer.activation == "relu":
            modules.add_module(f"{layer.name}_relu", nn.ReLU())
        elif layer.activation == "lrelu":
            modules.add_module(f"{layer.name}_lrelu", nn.LeakyReLU(0.3))
        elif layer.activation != "none":
            raise ValueError(f"{layer.name}: {layer.activation}, expected relu, lrelu or none.")
    return modules


class Ours:
    """All targets at once, by the engine behind ``deepsim optimize features``."""

    def __init__(self, case: Case, at_once: int, place: Place) -> None:
        settings = preset("icnn-gd", {"bounds": "none"})
        spec = case.generator.spec
        pictures = GeneratorPictures(spec, dict(case.generator.state_dict()), place)
        encoder = TableEncoder(case.spec, dict(case.encoder.state_dict()), "random", place)
        self.evaluator = Evaluator(pictures, encoder, case.view, settings, case.taps, {}, at_once)
        targets = {tap: place.put(values) for tap, values in case.targets.items()}
        self.wanted = Wanted(targets, weigh("shares", targets, list(map(str, range(len(case.codes)))), {}, {}))
        self.case, self.place = case, place
        self.begin()

    def begin(self) -> None:
        """Start with the codes of all targets."""
        self.codes, self.iteration = self.place.put(self.case.codes), 0
        self.rule = Rule(self.evaluator.settings, (None, None))
        self.rule.begin(self.codes)

    def step(self, iterations: int) -> Tensor:
        """Make one iteration of ``iterations``; return the losses before it (n,)."""
        if self.rule.settings.iterations != iterations:
            self.rule.settings = self.rule.settings.updated({"iterations": iterations})
        found = self.evaluator.evaluate(self.codes, self.wanted)
        self.codes = self.rule.advance(self.codes, found.gradient, self.iteration)
        self.iteration += 1
        return found.loss


def verify(case: Case) -> tuple[float, float]:
    """Run a few iterations of both from the same codes, in fp64, where rounding turns no ReLU the other way.

    Return how far codes and losses are apart at most, and how far ours in fp32 are from those in fp64 in the first
    iteration. Raises NumericError.
    """
    few = replace(
        case, codes=case.codes[:VERIFIED], targets={tap: values[:VERIFIED] for tap, values in case.targets.items()}
    )
    exact = Ours(few, VERIFIED, Place(precision="fp64"))
    losses, worst = torch.stack([exact.step(CHECKED) for _ in range(CHECKED)]), 0.0
    for row in range(len(few.codes)):
        plain = Plain(few, row, exact.place)
        found = torch.tensor([plain.step(CHECKED) for _ in range(CHECKED)], dtype=torch.float64)
        wanted = plain.code.detach()[0]
        off = ((exact.codes[row] - wanted).norm() / wanted.norm(), (losses[:, row] / found - 1).abs().max())
        worst = max(worst, *(float(value) for value in off))
    near = float((Ours(few, VERIFIED, Place()).step(CHECKED) / losses[0] - 1).abs().max())
    if not (worst <= EXACT and near <= NEAR):
        raise NumericError(f"optimize: codes or losses differ by {worst:.2e}, in fp32 by {near:.2e}. Not timed.")
    return worst, near


def sgemm_rate(size: int = 2048, repeats: int = 5) -> float:
    """Return the machine's 1e9 floating-point operations per second in a product of fp32 matrices, its best of five."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    best = min(timed(lambda: torch.mm(a, b)).wall for _ in range(repeats + 1))
    return 2e-9 * size**3 / best


class Seconds(NamedTuple):
    """Seconds of a call: on the clock, and of all CPUs together, which other programs disturb less."""

    wall: float
    cpu: float


def timed(call: Callable[[], object], count: int = 1) -> Seconds:
    """Time a call that does a thing ``count`` times; return the seconds of one."""
    began, used = time.perf_counter(), time.process_time()
    call()
    return Seconds((time.perf_counter() - began) / count, (time.process_time() - used) / count)


def measure(ours: Ours, plain: Plain, rounds: int) -> dict[str, list[Seconds]]:
    """Time iterations of both in turn: seconds of an image and iteration, after a round that does not count."""
    count, times = len(ours.codes), dict[str, list[Seconds]]()
    for number in range(rounds + 1):
        found = {
            "deepsim": timed(lambda: ours.step(200), count),
            "one at a time": timed(lambda: [plain.step(200) for _ in range(3)], 3),
        }
        for name, seconds in found.items() if number else ():
            times.setdefault(name, []).append(seconds)
    return times


def report(case: Case, times: dict[str, list[Seconds]], roof: float) -> dict[str, float]:
    """Print medians, and return how many times as fast ours is, on the clock and in CPU time."""
    wall = {name: statistics.median(seconds.wall for seconds in values) for name, values in times.items()}
    cpu = {name: statistics.median(seconds.cpu for seconds in values) for name, values in times.items()}
    for name, values in times.items():
        spread = f"{min(values).wall:.4f} to {max(values).wall:.4f}"
        share = f"{case.work / wall[name] / roof:.0%} of sgemm's rate"
        click.echo(f"{name:14} {wall[name]:.4f} s an image and iteration ({spread}), CPU {cpu[name]:.4f} s, {share}")
    ratios = {"wall": wall["one at a time"] / wall["deepsim"], "cpu": cpu["one at a time"] / cpu["deepsim"]}
    click.echo(
        f"deepsim is {ratios['wall']:.2f}x as fast, {ratios['cpu']:.2f}x in CPU time; "
        f"sgemm {roof:.0f} GFLOP/s, {case.work:.2f} GFLOP an image and iteration"
    )
    return ratios


@click.command()
@click.option("--encoder", type=click.Choice(list(LAYERS)), default="caffenet", show_default=True, help="Encoder.")
@click.option("--targets", type=click.IntRange(1), default=32, show_default=True, help="Targets at once.")
@click.option("--at-once", type=click.IntRange(1), default=32, show_default=True, help="Rows in one pass.")
@click.option("--threads", type=click.IntRange(0), default=0, help="CPU threads; 0: PyTorch's choice.")
@click.option("--rounds", type=click.IntRange(1), default=7, show_default=True, help="Timed rounds.")
@click.option("--quick", is_flag=True, help="Two targets, a narrow generator, one round: to see that it runs.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the figures as JSON.")
def main(encoder: str, targets: int, at_once: int, threads: int, rounds: int, quick: bool, output: Path | None) -> None:
    """Compare the optimisation of many codes at once with the same rule one code at a time, on this machine's CPU."""
    if threads:
        torch.set_num_threads(threads)
    targets, rounds, width = (2, 1, 1 / 16) if quick else (targets, rounds, 1.0)
    case = build_case(encoder, targets, width)
    worst, near = verify(case)
    ours, plain = Ours(case, at_once, Place()), Plain(case, 0, Place())
    before = sgemm_rate()
    times = measure(ours, plain, rounds)
    roof = max(before, sgemm_rate())
    click.echo(f"{encoder}, {len(case.taps)} layers, {targets} targets, {torch.get_num_threads()} threads, fp32")
    click.echo(f"in fp64 codes and losses after {CHECKED} iterations agree to {worst:.1e}; fp32 losses to {near:.1e}")
    ratios = report(case, times, roof)
    if output:
        record = {
            "encoder": encoder,
            "targets": targets,
            "layers": list(case.taps),
            "relative_difference_fp64": worst,
            "relative_difference_fp32": near,
        }
        figures = {"seconds": times, "ratios": ratios, "sgemm_gflops": roof, "threads": torch.get_num_threads()}
        write_atomic(output, json.dumps({**record, **figures, "gflop": case.work, "environment": environment()}) + "\n")


if __name__ == "__main__":
    run(main, "optimize_codes.py")
