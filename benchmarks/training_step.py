"""Time a training step beside a plain PyTorch loop of the same networks, after checking that both compute the same.

The plain loop is what one writes by hand: nn.Sequential, NCHW memory, one encoder pass per use, torch's own Adam; a
second form of it in channels-last memory is the stronger peer. Contenders alternate; medians are compared.

    python -m deepsim.benchmarks.training_step --layer norm2 --batch 8 [--adversarial] [-o result.json]
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import click
import torch
from torch import Tensor, nn

from deepsim.kernels.layers import Layer, refuse_kind
from deepsim.runtime.cli.exits import run
from deepsim.runtime.errors import NumericError
from deepsim.runtime.files import write_atomic
from deepsim.runtime.geometry import CAFFE_FRAMING
from deepsim.runtime.machine import environment
from deepsim.train.config import PRESETS, TrainConfig
from deepsim.train.discriminator import Discriminator
from deepsim.train.distributed import World
from deepsim.train.encoders import pink_noise
from deepsim.train.models import Models, build_models
from deepsim.train.networks import LayerStack
from deepsim.train.step import train_step

_NO_PAUSING = {"stop_discriminator": 0.0, "stop_generator": 1e30}  # a paused network would be time not spent
TOLERANCE = 1e-3  # relative difference of the two losses after three steps


class _Lambda(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def plain_module(layer: Layer) -> nn.Module:
    """Build the torch.nn module of one layer, as a textbook would."""
    if layer.kind == "fc":
        return nn.Sequential(nn.Flatten(), nn.Linear(layer.inputs, layer.outputs))
    if layer.kind == "conv":
        return nn.Conv2d(layer.inputs, layer.outputs, layer.kernel, layer.stride, layer.padding, groups=layer.groups)
    if layer.kind == "deconv":
        return nn.ConvTranspose2d(layer.inputs, layer.outputs, layer.kernel, layer.stride, layer.padding)
    if layer.kind == "pool":
        return nn.MaxPool2d(layer.kernel, layer.stride, ceil_mode=layer.ceil_mode)
    if layer.kind == "lrn":
        return nn.LocalResponseNorm(5, 1e-4, 0.75, 1.0)
    if layer.kind == "reshape":
        return nn.Unflatten(1, layer.shape)
    raise refuse_kind(layer, "the plain loop")


def plain_network(stack: LayerStack) -> nn.Sequential:
    """Copy one of the project's networks into an nn.Sequential."""
    activations: dict[str, Callable[[], nn.Module]] = {
        "relu": nn.ReLU,
        "lrelu": lambda: nn.LeakyReLU(0.3),
        "tanh255": lambda: _Lambda(_tanh255),
    }
    modules: list[nn.Module] = []
    for layer in stack.layers:
        module = plain_module(layer)
        if layer.has_weights:
            target = module[1] if isinstance(module, nn.Sequential) else module
            target.load_state_dict(stack.get_submodule(layer.name).state_dict())
        modules.append(module)
        if layer.activation != "none":
            modules.append(activations[layer.activation]())
    return nn.Sequential(*modules)


def _tanh255(x: Tensor) -> Tensor:
    return 255 * torch.tanh(x)


class PlainLoop:
    """The step written by hand for the same configuration and initial weights."""

    def __init__(self, models: Models, memory_format: torch.memory_format) -> None:
        self.config, self.memory_format = models.config, memory_format
        generator, encoder = models.generator.module, models.encoder
        assert isinstance(generator, LayerStack) and isinstance(encoder, LayerStack)
        self.generator = plain_network(generator).to(memory_format=memory_format)
        self.encoder = plain_network(encoder).to(memory_format=memory_format).requires_grad_(False)
        self.layers = encoder.layers
        names = [layer.name for layer in self.layers]
        self.depth = self._modules_up_to(names.index(self.config.layer))
        self.comparator_depth = self._modules_up_to(names.index(self.config.comparator))
        rate, betas = self.config.learning_rate, (self.config.beta1, self.config.beta2)
        self.optimizer = torch.optim.Adam(self.generator.parameters(), rate, betas)
        self.judge = None
        if models.discriminator is not None:
            self.judge = Discriminator(width=self.config.width).to(memory_format=memory_format)
            self.judge.load_state_dict(models.discriminator.module.state_dict())
            self.judge_optimizer = torch.optim.Adam(self.judge.parameters(), rate, betas)

    def _modules_up_to(self, index: int) -> int:
        return sum(1 + (layer.activation != "none") for layer in self.layers[: index + 1])

    def step(self, photos: Tensor) -> float:
        """Make one update of both networks; return the generator's loss."""
        config, n = self.config, len(photos)
        mean = torch.tensor([104.0, 117.0, 123.0]).view(3, 1, 1)
        real = (photos.flip(-1).permute(0, 3, 1, 2).float() - mean).contiguous(memory_format=self.memory_format)
        with torch.no_grad():
            features = self.encoder[: self.depth](real)
            target = self.encoder[: self.comparator_depth](real)
        image = self.generator(features)
        side = CAFFE_FRAMING.side
        offset = (image.shape[-1] - side) // 2
        fake = image[:, :, offset : offset + side, offset : offset + side]
        loss = config.lambda_img * (fake - real).square().sum() / (2 * n)
        compared = self.encoder[: self.comparator_depth](fake)
        loss = loss + config.lambda_feat * (compared - target).square().sum() / (2 * n)
        if self.judge is not None:
            loss = loss + self._adversarial(real, fake)
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        self.optimizer.step()
        return float(loss.item())

    def _adversarial(self, real: Tensor, fake: Tensor) -> Tensor:
        assert self.judge is not None
        zeros = torch.zeros(len(real), dtype=torch.long)
        entropy = nn.functional.cross_entropy
        judged = 100 * (entropy(self.judge(real), zeros) + entropy(self.judge(fake.detach()), zeros + 1))
        self.judge_optimizer.zero_grad()
        torch.autograd.backward(judged)
        self.judge_optimizer.step()
        return self.config.lambda_adv * entropy(self.judge(fake), zeros)


def contenders(config: TrainConfig) -> dict[str, Callable[[Tensor], float]]:
    """Build all contenders from the same initial weights; ours first."""

    def fresh() -> Models:
        return build_models(config, torch.device("cpu"), World())

    ours = fresh()
    return {
        "deepsim": lambda photos: float(train_step(ours, photos)["generator_loss"] or 0),
        "plain": PlainLoop(fresh(), torch.contiguous_format).step,
        "plain channels_last": PlainLoop(fresh(), torch.channels_last).step,
    }


def verify(config: TrainConfig, photos: Tensor) -> float:
    """Run three steps of every contender; return the largest relative difference of their last losses.

    Dropout differs between forms that draw their masks in another order, so it is switched off here.
    """
    losses = {}
    dropout, nn.Dropout.forward = nn.Dropout.forward, lambda self, input: input  # type: ignore[method-assign]
    try:
        for name, step in contenders(config).items():
            losses[name] = [step(photos) for _ in range(3)][-1]
    finally:
        nn.Dropout.forward = dropout  # type: ignore[method-assign]
    reference = losses["deepsim"]
    worst = max(abs(loss / reference - 1) for loss in losses.values())
    if worst > TOLERANCE:
        raise NumericError(f"training step: losses {losses} differ by {worst:.2e}, expected {TOLERANCE}. Not timed.")
    return worst


def measure(config: TrainConfig, photos: Tensor, repeats: int) -> dict[str, list[float]]:
    """Time one step of each contender in turn, ``repeats`` times, after two warm-up rounds; seconds."""
    times: dict[str, list[float]] = {}
    steps = contenders(config)
    for number in range(repeats + 2):
        for name, step in steps.items():
            began = time.perf_counter()
            step(photos)
            if number >= 2:
                times.setdefault(name, []).append(time.perf_counter() - began)
    return times


@click.command()
@click.option("--layer", default="norm2", show_default=True, help="Layer to invert.")
@click.option("--comparator", default="norm2", show_default=True, help="Layer of the feature loss.")
@click.option("--batch", default=8, show_default=True, help="Photographs per step.")
@click.option("--adversarial/--no-adversarial", default=False, help="Train a discriminator too.")
@click.option("--width", default=1.0, show_default=True, help="Width of the networks.")
@click.option("--repeats", default=9, show_default=True, help="Timed steps per contender.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the figures as JSON.")
def main(
    layer: str, comparator: str, batch: int, adversarial: bool, width: float, repeats: int, output: Path | None
) -> None:
    """Compare the training step with a plain PyTorch loop on this machine's CPU."""
    values = {"layer": layer, "comparator": comparator, "batch": batch, "width": width}
    values["lambda_adv"] = 100.0 if adversarial else 0.0
    plain = {"optimizer": "adam", "precision": "fp32", "warm_up": 0, "schedule": "constant", "learning_rate": 1e-4}
    config = PRESETS["demo"].updated({**values, **_NO_PAUSING, **plain, "lambda_feat": 2e-3})
    photos = pink_noise(batch, CAFFE_FRAMING.side, seed=1)
    difference = verify(config, photos)
    times = measure(config, photos, repeats)
    medians = {name: statistics.median(values) for name, values in times.items()}
    threads = f"{torch.get_num_threads()} threads"
    click.echo(f"{layer}, comparator {comparator}, batch {batch}, {threads}, fp32, torch {torch.__version__}")
    click.echo(f"losses after three steps agree to {difference:.1e}")
    for name, median in medians.items():
        spread = f"{min(times[name]):.3f} to {max(times[name]):.3f}"
        click.echo(f"{name:22} {median:.3f} s ({spread})   deepsim is {median / medians['deepsim']:.2f}x as fast")
    if output:
        record = {"config": values, "relative_difference": difference, "median_seconds": medians, "seconds": times}
        write_atomic(output, json.dumps({**record, "environment": environment()}, indent=2) + "\n")


if __name__ == "__main__":
    run(main, "training_step.py")
