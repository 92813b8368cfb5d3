"""The backend cuda on the GPU of this machine: checked, then timed against PyTorch's forms, beside the measured roofs.

    python benchmarks/gpu.py                        # everything: about ten minutes
    python benchmarks/gpu.py --layers fc6 --check   # errors and repeats alone, as for compute-sanitizer

Checked before anything is timed: errors of features and of images before rounding against float64, beside those of
PyTorch's own fp16 on the same network (at most twice as large is asked); 250 repeats with equal bits. Timed: decode,
encode and one iteration of re-encoding, everything in memory of the GPU, by CUDA events, in alternating rounds, against
PyTorch in fp16 channels-last, eager, compiled (max-autotune) and captured as a CUDA graph. Every contender's images are
compared with ours first. Writes JSON and a table to benchmarks/results/.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from float64_error import chain, linear_layers, relative, run, write
from torch import Tensor

from deepsim.export.calibration import calibration_images
from deepsim.export.sources import Source, random_source
from deepsim.kernels.layers import Layer, macs
from deepsim.kernels.torch_layers import apply_layer
from deepsim.runtime import Inverter
from deepsim.runtime.backends.torch import to_network, to_pixels
from deepsim.runtime.bench import environment
from deepsim.runtime.pixels import CROP, crop_offset

BATCHES = (1, 8, 64, 256, 1024)
ROUNDS, REPEATS = 7, 250
Call = Callable[[], Tensor]


def main() -> None:
    """Check, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", default="fc6,pool5", help="generators, with commas between")
    parser.add_argument("--batches", default=",".join(map(str, BATCHES)))
    parser.add_argument("--check", action="store_true", help="do not time anything")
    parser.add_argument("--seconds", type=float, default=0.3, help="for each contender and row")
    chosen = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("gpu: PyTorch sees none, expected one. Run this on a machine with an NVIDIA GPU.")
    batches = [int(size) for size in chosen.batches.split(",")]
    record: dict[str, Any] = {"environment": environment(), "gpu": torch.cuda.get_device_name(), "layers": {}}
    record["roofs"] = {} if chosen.check else roofs()
    with tempfile.TemporaryDirectory() as folder:
        for layer in chosen.layers.split(","):
            source = random_source(layer)
            found: dict[str, Any] = {"checks": check(source, Path(folder))}
            print(json.dumps({layer: found}, indent=1), flush=True)
            if not chosen.check:
                found["rows"] = time_layer(source, Path(folder) / layer, batches, chosen.seconds, record["roofs"])
            record["layers"][layer] = found
    if not chosen.check:
        save(record)


def roofs() -> dict[str, float]:
    """Measure 1e12 fp16 multiply-adds a second of a large product, and 1e9 bytes a second of a large copy."""
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.half) for _ in range(2))
    product = median_seconds({"product": lambda: a @ b}, 1.0)["product"]
    source = torch.randn(1 << 29, device="cuda")
    target = torch.empty_like(source)
    copy = median_seconds({"copy": lambda: target.copy_(source)}, 1.0)["copy"]
    return {"multiply_adds_e12": 8192**3 / product / 1e12, "bytes_e9": 2 * source.nbytes / copy / 1e9}


def check(source: Source, folder: Path, photos: int = 4) -> dict[str, Any]:
    """Return errors against float64, ours and PyTorch's fp16, and the number of repeats whose bits differ."""
    plain, chained = (
        write(folder / source.layer, source),
        write(folder / f"{source.layer}-chained", chained_source(source)),
    )
    images = calibration_images(photos, seed=5)
    pixels = source.encoder.pixels.to_network(images)
    linear = linear_layers(source.generator)
    wanted = run(source.encoder.layers, source.encoder_weights, pixels, torch.float64)
    half = run_half(source.encoder.layers, source.encoder_weights, pixels)
    found: dict[str, Any] = {"torch_fp16": {"encoder": relative(half, wanted)}}
    for precision in ("fp16", "bf16", "fp32"):
        with Inverter(plain, "cuda", 0, precision=precision) as inverter:
            features = inverter.encode(images)
        with Inverter(chained, "cuda", 0, precision=precision) as inverter:
            image = inverter.encode(images)
        exact = run(linear, source.generator_weights, wanted, torch.float64)
        found[precision] = {"encoder": relative(features, wanted), "encoder and generator": relative(image, exact)}
    half_image = run_half(linear, source.generator_weights, half)
    found["torch_fp16"]["encoder and generator"] = relative(half_image, exact)
    found["repeats_that_differ"] = {str(batch): differing_repeats(plain, batch) for batch in (1, 8, 64)}
    return found


def chained_source(source: Source) -> Source:
    """Return the network whose encoder goes on to the image, so that it comes back unrounded."""
    return chain(source, linear_layers(source.generator))


def differing_repeats(bundle: Path, batch: int) -> int:
    """Re-encode the same images again and again; count the results that are not the first's bits."""
    images = torch.from_numpy(calibration_images(min(batch, 8), seed=6)).cuda().repeat(-(-batch // 8), 1, 1, 1)[:batch]
    with Inverter(bundle, "cuda", 0) as inverter:
        results = (torch.as_tensor(inverter.reconstruct(images), device="cuda") for _ in range(REPEATS))
        first = next(results).clone()
        return sum(not torch.equal(result, first) for result in results)


def run_half(layers: tuple[Layer, ...], weights: dict[str, Any], x: Any) -> np.ndarray[Any, Any]:
    """Run layers in PyTorch's fp16 on the GPU."""
    value = Network(layers, weights)(torch.from_numpy(np.asarray(x, np.float32)).cuda().half())
    result: np.ndarray[Any, Any] = value.float().cpu().numpy()
    return result


class Network(torch.nn.Module):
    """Layers in fp16, channels last, with their weights as buffers."""

    def __init__(self, layers: tuple[Layer, ...], weights: dict[str, Any]) -> None:
        super().__init__()
        self.table = layers
        for index, layer in enumerate(layers):
            for kind in ("weight", "bias") if layer.has_weights else ():
                tensor = torch.from_numpy(weights[f"{layer.name}.{kind}"]).cuda().half()
                if tensor.ndim == 4:
                    tensor = tensor.contiguous(memory_format=torch.channels_last)
                self.register_buffer(f"{kind}{index}", tensor)

    @torch.inference_mode()
    def forward(self, x: Tensor) -> Tensor:
        """Run the layers; LRN in fp32, where the squares of fp16 would overflow."""
        for index, layer in enumerate(self.table):
            own = (getattr(self, f"{kind}{index}", None) for kind in ("weight", "bias"))
            x = apply_layer(layer, x.float(), None, None).half() if layer.kind == "lrn" else apply_layer(layer, x, *own)
        return x


class Peer:
    """Both networks in PyTorch, from uint8 images and to uint8 images."""

    def __init__(self, source: Source, compiled: bool = False) -> None:
        self.source = source
        self.encoder = Network(source.encoder.layers, source.encoder_weights)
        self.generator = Network(source.generator.layers, source.generator_weights)
        if compiled:
            self.encode = torch.compile(self.encode, mode="max-autotune", dynamic=False)  # type: ignore[method-assign]
            self.decode = torch.compile(self.decode, mode="max-autotune", dynamic=False)  # type: ignore[method-assign]

    def encode(self, images: Tensor) -> Tensor:
        """Return fp32 features of uint8 (n, 227, 227, 3)."""
        with torch.inference_mode():
            return self.encoder(to_network(images, self.source.encoder.pixels).half()).float()

    def decode(self, features: Tensor) -> Tensor:
        """Return uint8 (n, 227, 227, 3) of fp32 features."""
        with torch.inference_mode():
            image = self.generator(features.half())
            start = crop_offset(image.shape[-1])
            image = image[:, :, start : start + CROP, start : start + CROP].float()
            return to_pixels(image, self.source.generator.pixels)

    def reencode(self, images: Tensor) -> Tensor:
        """Return decode(encode(images))."""
        return self.decode(self.encode(images))


def captured(function: Callable[[Tensor], Tensor], argument: Tensor) -> Call:
    """Return a replay of ``function(argument)`` as one CUDA graph."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            function(argument)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = function(argument)

    def replay() -> Tensor:
        graph.replay()
        return result

    return replay


def time_layer(
    source: Source, bundle: Path, batches: list[int], seconds: float, measured: dict[str, float]
) -> list[dict[str, Any]]:
    """Return one row for each call, batch and contender."""
    eager, compiled = Peer(source), Peer(source, compiled=True)
    work = {
        "encode": macs(source.encoder.layers, source.encoder.input_shape),
        "decode": macs(source.generator.layers, source.generator.input_shape),
    }
    work["reencode"] = work["encode"] + work["decode"]
    rows = []
    for batch in batches:
        images = (
            torch.from_numpy(calibration_images(8, seed=7)).cuda().repeat(-(-batch // 8), 1, 1, 1)[:batch].contiguous()
        )
        with Inverter(bundle, "cuda", 0, max_batch=batch) as inverter:
            for what in ("decode", "encode", "reencode"):
                argument = eager.encode(images) if what == "decode" else images
                calls = contenders(inverter, eager, compiled, what, argument)
                row = time_row(calls, seconds, batch, work[what], measured)
                rows += [{"what": what, "batch": batch, **entry} for entry in row]
                best = max(
                    (entry for entry in row if entry["contender"] != "deepsim"),
                    key=lambda entry: entry["images_per_second"],
                )
                ours = next(entry for entry in row if entry["contender"] == "deepsim")
                ratio = ours["images_per_second"] / best["images_per_second"]
                print(
                    f"{source.layer:6} {what:9} {batch:5}  {ours['images_per_second']:9.0f} images/s, "
                    f"{ratio:5.2f} x {best['contender']}, {ours['roof']:4.0%} of the roof",
                    flush=True,
                )
    return rows


def contenders(inverter: Inverter, eager: Peer, compiled: Peer, what: str, argument: Tensor) -> dict[str, Call]:
    """Return what is timed, by name; all in memory of the GPU, queued on PyTorch's stream."""
    queue = torch.cuda.current_stream().cuda_stream
    own = {
        "encode": lambda: torch.as_tensor(inverter.encode(argument, stream=queue), device="cuda"),
        "decode": lambda: torch.as_tensor(inverter.decode(argument, stream=queue), device="cuda"),
        "reencode": lambda: torch.as_tensor(inverter.reconstruct(argument, stream=queue), device="cuda"),
    }
    function = getattr(eager, what)
    return {
        "deepsim": own[what],
        "torch": lambda: function(argument),
        "torch graph": captured(function, argument),
        "torch compiled": lambda: getattr(compiled, what)(argument),
    }


def time_row(
    calls: dict[str, Call], seconds: float, batch: int, work: int, measured: dict[str, float]
) -> list[dict[str, Any]]:
    """Compare every result with ours, then time; a contender that differs is left out and said so."""
    wanted = calls["deepsim"]().float().clone()
    agreeing = {}
    for name, call in calls.items():
        scale = wanted.abs().max().clamp(min=1e-30)
        difference = float((call().float() - wanted).abs().mean() / scale)
        if difference < 5e-3:
            agreeing[name] = call
        else:
            print(f"{name}: differs by {difference:.3g} of the largest value, not timed", flush=True)
    medians = median_seconds(agreeing, seconds)
    return [
        {
            "contender": name,
            "images_per_second": batch / each,
            "microseconds": each * 1e6,
            "roof": batch / each * work / 1e12 / measured["multiply_adds_e12"],
        }
        for name, each in medians.items()
    ]


def median_seconds(calls: dict[str, Call], seconds: float) -> dict[str, float]:
    """Return seconds for each call: median over alternating rounds, each timed by CUDA events around many calls."""
    rounds: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        for _ in range(3):
            call()
    for _ in range(ROUNDS):
        for name, call in calls.items():
            once = timed(call, 1)
            count = max(1, min(1000, int(seconds / ROUNDS / max(once, 1e-6))))
            rounds[name].append(timed(call, count))
    return {name: statistics.median(values) for name, values in rounds.items()}


def timed(call: Call, count: int) -> float:
    """Return seconds for one of ``count`` calls."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    for _ in range(count):
        call()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1000 / count


def save(record: dict[str, Any]) -> None:
    """Write the record and a table of it."""
    day, name = datetime.date.today().isoformat(), record["gpu"].lower().replace(" ", "-")
    target = Path(__file__).parent / "results" / f"{day}-gpu-{name}"
    target.with_suffix(".json").write_text(json.dumps(record, indent=2) + "\n")
    lines = [f"# {day}: the backend cuda on {record['gpu']}", "", f"Roofs: {record['roofs']}", ""]
    lines += [
        "| layer | call | batch | contender | images/s | microseconds | of the roof |",
        "|---|---|---:|---|---:|---:|---:|",
    ]
    for layer, found in record["layers"].items():
        lines += [
            f"| {layer} | {row['what']} | {row['batch']} | {row['contender']} | {row['images_per_second']:.0f} | "
            f"{row['microseconds']:.0f} | {row['roof']:.0%} |"
            for row in found["rows"]
        ]
    target.with_suffix(".md").write_text("\n".join(lines) + "\n")
    print(f"{target}.md")


if __name__ == "__main__":
    main()
