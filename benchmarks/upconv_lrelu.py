"""Time the operator ``deepsim::upconv_lrelu`` beside PyTorch's forms of it, on the up-convolutions of a generator.

Every contender's output and gradients are compared with float64 first; one that is further off than TOLERANCES is an
error. Then the contenders alternate, and medians are compared: of the forward pass alone, and of forward and backward
with the gradients of input, weight and bias. Runs on the GPU where there is one, in fp16, as CUDA graphs that are
replayed; else on the CPU, in fp32. fp32 is without TF32. The operator takes part with channels-last and with
contiguous memory.

    python -m deepsim.benchmarks.upconv_lrelu [--layer fc6] [--batch 8 --batch 64] [--precision bf16] [-o result.json]
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click
import torch
from torch import Tensor
from torch.nn import functional

from deepsim.benchmarks.gpu.device import captured, queued_seconds
from deepsim.kernels.activations import LRELU_SLOPE
from deepsim.kernels.layers import Layer, shapes
from deepsim.kernels.upconv_lrelu import stacked, upconv_lrelu
from deepsim.runtime.cli.exits import run
from deepsim.runtime.errors import NumericError
from deepsim.runtime.files import write_atomic
from deepsim.runtime.generators import generator_spec
from deepsim.runtime.machine import environment

PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
# Relative errors against float64, |found - wanted| / |wanted|: of the output, and of the gradients of input, weight and
# bias, of which the last two are sums over the batch (PyTorch's own of fp32 lose 7e-5 at batch 64).
TOLERANCES = {
    torch.float32: (1e-5, 2e-4, 2e-4, 2e-4),
    torch.float16: (5e-4, 1e-3, 1e-3, 1e-3),
    torch.bfloat16: (4e-3, 8e-3, 8e-3, 8e-3),
}
OPERATOR = "operator"
ONE_OR_MORE = click.IntRange(1)
REPLAYS = 10  # of a CUDA graph, timed together
Upconvolution = Callable[[Tensor, Tensor, Tensor, float], Tensor]


class Case(NamedTuple):
    """One layer's tensors at one batch size."""

    name: str
    x: Tensor  # (N, Ci, H, W)
    weight: Tensor  # (Ci, Co, 4, 4)
    bias: Tensor
    grad: Tensor  # of the output, (N, Co, 2H, 2W); positive, so that no sum of it cancels
    slope: float

    def to(self, **options: Any) -> Case:
        """Return the case with its tensors converted as by :meth:`torch.Tensor.to`."""
        of_vectors = {name: value for name, value in options.items() if name != "memory_format"}
        x, weight, grad = (each.to(**options) for each in (self.x, self.weight, self.grad))
        return Case(self.name, x, weight, self.bias.to(**of_vectors), grad, self.slope)


def plain(x: Tensor, weight: Tensor, bias: Tensor, slope: float) -> Tensor:
    """Apply PyTorch's transposed convolution and its LeakyReLU in place, as a network would."""
    y = functional.conv_transpose2d(x, weight, bias, 2, 1)
    return y if slope == 1 else functional.leaky_relu(y, slope, inplace=True)


CONTENDERS: dict[str, tuple[Upconvolution, torch.memory_format]] = {
    OPERATOR: (upconv_lrelu, torch.channels_last),
    "operator, contiguous": (upconv_lrelu, torch.contiguous_format),
    "torch channels-last": (plain, torch.channels_last),
    "torch": (plain, torch.contiguous_format),
    "stacked": (stacked, torch.channels_last),
}


def cases(layer: str, batch: int, device: torch.device, dtype: torch.dtype) -> Iterator[Case]:
    """Yield the up-convolutions of the generator that inverts ``layer``, with random values."""
    spec = generator_spec(layer)
    before = [spec.input_shape, *shapes(spec.layers, spec.input_shape)]
    rng = torch.Generator().manual_seed(0)
    for entry, (channels, *extent) in ((e, s) for e, s in zip(spec.layers, before, strict=False) if is_upconv(e)):
        x = torch.randn(batch, channels, *extent, generator=rng)
        weight = torch.randn(entry.weight_shape, generator=rng) / (4 * channels) ** 0.5
        grad = torch.rand(batch, entry.outputs, *(2 * side for side in extent), generator=rng)
        slope = LRELU_SLOPE if entry.activation == "lrelu" else 1.0
        yield Case(entry.name, x, weight, torch.randn(entry.outputs, generator=rng), grad, slope).to(
            device=device, dtype=dtype
        )


def is_upconv(layer: Layer) -> bool:
    """Tell whether a layer is what the operator computes."""
    fits = (layer.kind, layer.kernel, layer.stride, layer.padding, layer.groups) == ("deconv", 4, 2, 1, 1)
    return fits and layer.activation in ("none", "lrelu")


def forward_and_backward(upconvolution: Upconvolution, case: Case) -> list[Tensor]:
    """Return the output and the gradients of input, weight and bias."""
    x, weight, bias = inputs = [each.detach().requires_grad_() for each in (case.x, case.weight, case.bias)]
    y = upconvolution(x, weight, bias, case.slope)
    return [y.detach(), *torch.autograd.grad(y, inputs, case.grad)]


def exact(case: Case, output: Tensor) -> list[Tensor]:
    """Return what :func:`forward_and_backward` should, in float64.

    A value that rounding puts on the other side of zero moves the gradients by far more than rounding: the sides are
    those of ``output``, the contender's own.
    """
    wide = case.to(dtype=torch.float64)
    sides = torch.where(output > 0, 1.0, case.slope).double()
    _, *gradients = forward_and_backward(plain, wide._replace(grad=wide.grad * sides, slope=1.0))
    return [plain(wide.x, wide.weight, wide.bias, case.slope).detach(), *gradients]


def verify(case: Case) -> dict[str, float]:
    """Return every contender's largest relative error against float64. Raises NumericError for one that is far off."""
    errors = {}
    for name, (upconvolution, memory_format) in CONTENDERS.items():
        found = forward_and_backward(upconvolution, case.to(memory_format=memory_format))
        pairs = zip(found, exact(case, found[0]), strict=True)
        each = [float((a.double() - b).norm() / b.norm()) for a, b in pairs]
        limits = TOLERANCES[case.x.dtype]
        if not all(error <= limit for error, limit in zip(each, limits, strict=True)):
            raise NumericError(f"{case.name}, {name}: errors {each}, expected at most {limits}. Not timed.")
        errors[name] = max(each)
    return errors


def calls(case: Case, backward: bool) -> dict[str, Callable[[], object]]:
    """Bind what is timed: every contender on its own copy of the case's tensors."""

    def call(upconvolution: Upconvolution, own: Case) -> Callable[[], object]:
        def forward() -> Tensor:
            with torch.no_grad():
                return upconvolution(own.x, own.weight, own.bias, own.slope)

        return (lambda: forward_and_backward(upconvolution, own)) if backward else forward

    return {name: call(function, case.to(memory_format=order)) for name, (function, order) in CONTENDERS.items()}


def milliseconds(call: Callable[[], object], device: torch.device) -> float:
    """Time a call; on a GPU, several that follow each other there."""
    if device.type != "cuda":
        began = time.perf_counter()
        call()
        return 1000 * (time.perf_counter() - began)
    return 1000 * queued_seconds(call, REPLAYS)


def measure(contenders: dict[str, Callable[[], object]], repeats: int, device: torch.device) -> dict[str, list[float]]:
    """Return the milliseconds of each contender's calls, after two rounds to warm up.

    Every round begins with another contender: what runs first finds caches and memory as another left them.
    """
    if device.type == "cuda":
        contenders = {name: captured(call) for name, call in contenders.items()}
    times: dict[str, list[float]] = {name: [] for name in contenders}
    names = list(contenders)
    for number in range(repeats + 2):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            each = milliseconds(contenders[name], device)
            if number >= 2:
                times[name].append(each)
    return times


def compare(layer: str, batch: int, repeats: int, device: torch.device, dtype: torch.dtype) -> Iterator[dict[str, Any]]:
    """Yield a row for each layer and pass: {"layer", "batch", "pass", "median_ms", "ms", "relative_errors"}."""
    for case in cases(layer, batch, device, dtype):
        errors = verify(case)
        for backward in (False, True):
            times = measure(calls(case, backward), repeats, device)
            medians = {name: statistics.median(each) for name, each in times.items()}
            row = {"layer": case.name, "batch": batch, "pass": "forward and backward" if backward else "forward"}
            yield {**row, "median_ms": medians, "ms": times, "relative_errors": errors}


def show(row: dict[str, Any]) -> None:
    """Print one row: the operator's median, and the others' with how many times as fast the operator is."""
    medians = row["median_ms"]
    ours = medians[OPERATOR]
    others = (f"{name} {each:.2f} ({each / ours:.2f}x)" for name, each in medians.items() if name != OPERATOR)
    click.echo(f"{row['layer']:8} {row['batch']:3} {row['pass']:20} {ours:8.2f} ms   {'   '.join(others)}")


@click.command()
@click.option("--layer", default="fc6", show_default=True, help="Layer whose generator's up-convolutions are timed.")
@click.option(
    "--batch", "batches", type=ONE_OR_MORE, multiple=True, default=(8, 64), show_default=True, help="Images at a time."
)
@click.option("--precision", type=click.Choice(list(PRECISIONS)), help="Without: fp16 on a GPU, fp32 on a CPU.")
@click.option("--repeats", type=ONE_OR_MORE, default=9, show_default=True, help="Timed calls of each contender.")
@click.option("--threads", type=ONE_OR_MORE, help="Threads of PyTorch on the CPU; PyTorch's own choice without.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the figures as JSON.")
def main(
    layer: str, batches: tuple[int, ...], precision: str | None, repeats: int, threads: int | None, output: Path | None
) -> None:
    """Compare the operator with PyTorch's forms of it, verified against float64 first."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True  # PyTorch at its best
    if threads:
        torch.set_num_threads(threads)
    precision = precision or ("fp16" if device.type == "cuda" else "fp32")
    threads = torch.get_num_threads()
    click.echo(f"{layer}, {device.type}, {threads} threads, {precision}, torch {torch.__version__}")
    rows = []
    for batch in batches:
        for row in compare(layer, batch, repeats, device, PRECISIONS[precision]):
            show(row)
            rows.append(row)
    if output:
        record = {
            "generator": layer,
            "device": device.type,
            "precision": precision,
            "torch_threads": threads,
            "rows": rows,
        }
        write_atomic(output, json.dumps({**record, "environment": environment()}, indent=2) + "\n")


if __name__ == "__main__":
    run(main, "upconv_lrelu.py")
