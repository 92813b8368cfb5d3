"""Times on the GPU: whole calls of every contender in alternating rounds, and single layers kernel by kernel."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from itertools import cycle
from typing import Any

import torch
from torch import Tensor

from deepsim.benchmarks.gpu.checks import DISTINCT, exact, photographs, relative, weights_of
from deepsim.benchmarks.gpu.device import WARM_UP, Call, Gpu, busy_seconds
from deepsim.benchmarks.gpu.ours import Ours
from deepsim.benchmarks.gpu.peers import TorchLayers, captured_layers
from deepsim.benchmarks.gpu.steps import INPUT, OUTPUT, Step, attribute, encoder_steps, floor_seconds, generator_steps
from deepsim.benchmarks.work import Roofs
from deepsim.export.sources import Source
from deepsim.runtime.errors import DeepsimError, NumericError

OWN, COMPILED = "cuda", "torch-compile-graph"
CALLS = {"encode": ("encoder",), "decode": ("generator",), "reencode": ("encoder", "generator")}
LOOP = 8  # iterations of a timed call to reencode
ROUNDS = 7
LATENCIES = 200  # calls whose latency is taken
LARGE, COPIES = 1 << 24, 4  # bytes of weights of which there are several; how many, more than a cache holds
PROFILED = 10  # calls whose kernels are timed
MOST_CALLS = 1000  # of one round
AGREES = 5e-3  # mean difference from ours, of the largest value; relative error of a layer against float64
PRODUCTS = (4096, 8192)  # sides of the matrices of the product that shows the roof
ROOF_SECONDS = 1.0  # for each of them
BUSY = 3e14  # about the multiply-adds of a second
COPIED = 1 << 28  # fp32 values of the copy that shows the memory's
Contender = Callable[..., Call]  # (what, argument, iterations) -> call
Refuse = Callable[[str], None]
Guard = Callable[[str], AbstractContextManager[None]]


def measure_roofs(gpu: Gpu) -> Roofs:
    """Measure fp16 multiply-adds of the better of two matrix products, and bytes read and written by a copy."""
    rates = []
    for side in PRODUCTS:
        a, b = (gpu.empty((side, side), torch.half).normal_() for _ in range(2))
        gpu.seconds(partial(torch.matmul, a, b), max(1, int(ROOF_SECONDS * BUSY / side**3)))  # clocks as under load
        rates.append(side**3 / median_seconds(gpu, {"": partial(torch.matmul, a, b)}, ROOF_SECONDS)[""])
    source, target = (gpu.empty((COPIED,), torch.float32).zero_() for _ in range(2))
    copy = median_seconds(gpu, {"": lambda: target.copy_(source)}, ROOF_SECONDS)[""]
    return Roofs(max(rates) / 1e9, 2 * source.nbytes / copy / 1e9)


def median_seconds(
    gpu: Gpu, calls: Mapping[str, Call], seconds: float, guarded: Guard = lambda name: nullcontext()
) -> dict[str, float]:
    """Return seconds for each call: the median of alternating rounds, each of as many calls as ``seconds`` allow.

    Calls run within ``guarded(name)``; one whose failure it keeps to itself is missing in what is returned.
    """
    rounds: dict[str, list[float]] = {name: [] for name in calls}

    def alternate(work: Callable[[str, Call], None]) -> None:
        for name in list(rounds):
            done = False
            with guarded(name):
                work(name, calls[name])
                done = True
            if not done:
                del rounds[name]

    def warm_up(name: str, call: Call) -> None:
        for _ in range(WARM_UP):
            call()
        gpu.synchronize()

    def measure(name: str, call: Call) -> None:
        once = gpu.seconds(call, 1)
        count = max(1, min(MOST_CALLS, int(seconds / ROUNDS / max(once, 1e-6))))
        rounds[name].append(gpu.seconds(call, count))

    alternate(warm_up)
    for _ in range(ROUNDS):
        alternate(measure)
    return {name: statistics.median(values) for name, values in rounds.items()}


def time_call(
    gpu: Gpu,
    source: Source,
    contenders: Mapping[str, Contender],
    what: str,
    batch: int,
    seconds: float,
    roofs: Roofs,
    refuse: Refuse,
) -> list[dict[str, Any]]:
    """Return a row for each contender, ours first: {"what", "batch", "backend", "images_per_second" ...}.

    "microseconds" is for one of many calls that are queued one after the other, "latency_us" the median of single
    calls on an idle GPU by the host's clock; "roof_share" the least time, layer by layer, over the first. A call to
    reencode makes eight iterations, and its images count once for each. Whoever differs from ours is not timed.
    """
    images = gpu.tensor(photographs(batch, seed=7))
    argument = contenders[OWN]("encode", images)() if what == "decode" else images
    iterations = LOOP if what == "reencode" else 1

    def guarded(name: str) -> AbstractContextManager[None]:
        return nullcontext() if name == OWN else left_out(f"{name}: {what} at batch {batch}", refuse)

    calls = {}
    for name in agreeing(contenders, argument, what, guarded):
        with guarded(name):
            calls[name] = contenders[name](what, argument, iterations)
    floor = iterations * least_seconds(source, what, batch, roofs)
    rows = []
    for name, each in median_seconds(gpu, calls, seconds, guarded).items():
        with guarded(name):
            latency = statistics.median(gpu.latency(calls[name]) for _ in range(_latencies(each, seconds)))
            row = {"what": what, "batch": batch, "backend": name, "images_per_second": batch * iterations / each}
            rows.append({**row, "microseconds": each * 1e6, "latency_us": latency * 1e6, "roof_share": floor / each})
    return rows


def agreeing(contenders: Mapping[str, Contender], argument: Tensor, what: str, guarded: Guard) -> list[str]:
    """Return those whose result is near ours, the first; the others raise NumericError within ``guarded(name)``."""
    wanted = contenders[OWN](what, argument, 1)().float()
    found = [OWN]
    for name, make in contenders.items():
        if name == OWN:
            continue
        with guarded(name):
            check_agreement(make(what, argument, 1)(), wanted)
            found.append(name)
    return found


def check_agreement(result: Tensor, wanted: Tensor) -> None:
    """Raise NumericError where a result is not near ours, in fp32."""
    scale = wanted.abs().max().clamp(min=1e-30)
    near = result.shape == wanted.shape
    difference = float((result.float() - wanted).abs().mean() / scale) if near else float("inf")
    if not difference <= AGREES:
        raise NumericError(f"differs from ours by {difference:.2g}, expected at most {AGREES}.")


@contextmanager
def left_out(what: str, refuse: Refuse) -> Iterator[None]:
    """Tell ``refuse`` of what fails or is wrong inside, which is a peer's or the profiler's, and go on."""
    try:
        yield
    except Exception as error:  # whatever compilers and other libraries raise
        kind = "" if isinstance(error, DeepsimError) else f"{type(error).__name__}: "
        refuse(f"{what}: {kind}{' '.join(str(error).split())[:300]}")


def least_seconds(source: Source, what: str, batch: int, roofs: Roofs) -> float:
    """Return the least time of a call, layer by layer (of whole images), at the roofs."""
    steps = networks(source)
    return sum(floor_seconds(steps[network], batch, roofs) for network in CALLS[what])


def networks(source: Source) -> dict[str, list[Step]]:
    """Return the steps of both networks."""
    encoder, generator = source.table, source.generator_table
    return {
        "encoder": encoder_steps(encoder.layers, encoder.input_shape),
        "generator": generator_steps(generator.layers, generator.input_shape),
    }


def torch_steps(
    gpu: Gpu, source: Source, batch: int, compiled: bool, roofs: Roofs, refuse: Refuse, late: Callable[[str], bool]
) -> list[dict[str, Any]]:
    """Return rows as :func:`own_steps` does for PyTorch's forms, which run the one layer again and again as a graph.

    ``late(name)`` tells whether there is no time left for a layer.
    """
    rows = []
    for network, steps in networks(source).items():
        for step in steps:
            floor = step.floor_seconds(batch, roofs)
            if late(f"torch: {step.name} at batch {batch}"):
                continue
            with left_out(f"torch: {step.name} at batch {batch}", refuse):
                for name, each in _torch_times(gpu, step, weights_of(source), batch, compiled, refuse).items():
                    row = {"network": network, "step": step.name, "batch": batch, "backend": name}
                    rows.append({**row, "microseconds": each * 1e6, "roof_share": floor / each})
    return rows


def own_steps(gpu: Gpu, source: Source, ours: Ours, batch: int, roofs: Roofs, name: str = OWN) -> list[dict[str, Any]]:
    """Return a row for each step, under a name: {"network", "step", "batch", "backend", "microseconds", "roof_share"}.

    All times are those of kernels alone, as the profiler has them from the GPU, without what lies between them; kernels
    run as they do in a whole call. "input" and "output" are what converts pixels and features, and have no share.
    """
    rows = []
    images = gpu.tensor(photographs(batch, seed=7))
    arguments = {"encoder": ("encode", images), "generator": ("decode", ours.result("encode", images))}
    for network, steps in networks(source).items():
        what, argument = arguments[network]
        call = ours.call(what, argument, ours.output(what, batch))
        floors = {step.name: step.floor_seconds(batch, roofs) for step in steps}
        for step, each in by_step(gpu.kernels(call, PROFILED), ours.steps_of_kernels(what, batch), steps).items():
            share = floors[step] / each if step in floors else None
            row = {"network": network, "step": step, "batch": batch, "backend": name}
            rows.append({**row, "microseconds": each * 1e6, "roof_share": share})
    return rows


def by_step(calls: Sequence[Sequence[Any]], places: Sequence[int], steps: Sequence[Step]) -> dict[str, float]:
    """Sum the median times of the kernels of equal calls for each step, "input" and "output" (see ``attribute``)."""
    names = [kernel.name for kernel in calls[0]]
    medians = [statistics.median(call[at].seconds for call in calls) for at in range(len(names))]
    sums = dict.fromkeys([*(step.name for step in steps), INPUT, OUTPUT], 0.0)
    for name, seconds in zip(attribute(names, places, steps), medians, strict=True):
        sums[name] += seconds
    return {name: seconds for name, seconds in sums.items() if seconds > 0}


def _latencies(each: float, seconds: float) -> int:
    return max(1, min(LATENCIES, int(seconds / each)))


def _torch_times(
    gpu: Gpu, step: Step, weights: Mapping[str, Any], batch: int, compiled: bool, refuse: Refuse
) -> dict[str, float]:
    """Return seconds of a step's kernels in PyTorch, by name of the form, each verified against float64.

    Large weights are there several times, and used in turns: in a whole call none would be found in the GPU's cache.
    """
    table, shape = step.without_reshape
    copies = [TorchLayers(gpu, table, weights) for _ in range(COPIES if step.weight_bytes > LARGE else 1)]
    distinct = gpu.empty((min(batch, DISTINCT), *shape), torch.half).normal_()
    x = distinct[torch.arange(batch) % len(distinct)]
    if step.kind != "fc":
        x = x.contiguous(memory_format=torch.channels_last)
    wanted = exact(gpu, table, weights, distinct)
    found = {}
    for name in ("torch-graph", COMPILED)[: 2 if compiled else 1]:
        with left_out(f"{name}: {step.name} at batch {batch}", refuse):
            calls = cycle([captured_layers(gpu, each, x, name == COMPILED) for each in copies])
            error = relative(next(calls)(), wanted)
            if not error <= AGREES:
                raise NumericError(f"differs from float64 by {error:.2g}, expected at most {AGREES}.")
            ran = gpu.kernels(lambda: next(calls)(), PROFILED, ordered=False)  # noqa: B023
            found[name] = statistics.median(busy_seconds(each) for each in ran)
    return found
