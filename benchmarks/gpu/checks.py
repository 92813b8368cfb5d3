"""What has to hold before anything is timed: errors against float64 beside PyTorch's own fp16, equal bits in every
repeat and where results must agree."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepsim.benchmarks.float64_error import linear_layers
from deepsim.benchmarks.gpu.device import Gpu
from deepsim.benchmarks.gpu.ours import Ours, write_beginning
from deepsim.benchmarks.gpu.peers import TorchForm, TorchLayers
from deepsim.benchmarks.gpu.plan import KERNELS_VARIABLE
from deepsim.benchmarks.gpu.steps import Step, encoder_steps, generator_steps
from deepsim.export.calibration import calibration_images
from deepsim.export.sources import Source
from deepsim.kernels.layers import Layer
from deepsim.kernels.torch_layers import activate, apply_layer
from deepsim.runtime.geometry import CAFFE_FRAMING, Geometry
from deepsim.runtime.pixels import Pixels

DISTINCT = 8  # images of a batch that differ; the others repeat them
TIMES_TORCH = 2.0  # how large an error may be beside that of PyTorch's fp16
EXACT = 1e-7  # a relative error that counts as none
POISONS = (0x00, 0xFF)  # bytes
FEW = (1, 33, 64)  # images of the calls that are looked at for gaps and repeated: split sums, ragged groups, whole ones
ITERATIONS = 3  # of re-encoding, in one graph
Weights = Mapping[str, NDArray[np.float32]]


def photographs(count: int, seed: int) -> Pixels:
    """Draw (count, 227, 227, 3) images, of which at most eight differ."""
    distinct = calibration_images(min(count, DISTINCT), CAFFE_FRAMING.side, seed)
    return distinct[np.arange(count) % len(distinct)]


def weights_of(source: Source) -> Weights:
    """Return the weights of both networks by layer."""
    return {**source.encoder_weights, **source.generator_weights}


def step_errors(
    gpu: Gpu, source: Source, folder: Path, batches: Sequence[int], kernels: str | None = None
) -> list[dict[str, Any]]:
    """Return rows {"network", "step", "batch", "error", "torch_error"}: relative errors of every step by itself.

    A step's input is what our kernels computed before it, exactly (fp16 values read out as fp32); its output is
    compared with float64 arithmetic on that input and the weights in fp32. PyTorch's fp16 gets the same input, of the
    first eight images. The last layer gives numbers here, without a tanh, instead of pixels.
    """
    steps = {
        "encoder": _encoder(source),
        "generator": generator_steps(_linear(source), source.generator_table.input_shape),
    }
    images = photographs(max(batches), seed=5)
    inputs = {batch: _pixels(gpu, source, images[:batch]) for batch in batches}
    before: tuple[Layer, ...] = ()
    rows: list[dict[str, Any]] = []
    for network, step in ((name, step) for name, each in steps.items() for step in each):
        before = (*before, *step.layers)
        bundle = write_beginning(folder / "beginning", source, before)
        ours = Ours(gpu, bundle, max(batches), kernels=kernels)
        for batch in batches:
            found = ours.result("encode", gpu.tensor(images[:batch]))
            errors = _step_error(gpu, step.layers, weights_of(source), inputs[batch], found)
            rows.append({"network": network, "step": step.name, "batch": batch, **errors})
            inputs[batch] = found.half()
        shutil.rmtree(bundle)
    return rows


def network_errors(
    gpu: Gpu, source: Source, whole: Path, folder: Path, photos: int = 4, kernels: str | None = None
) -> dict[str, dict[str, float]]:
    """Return relative errors of features and of images before rounding, from pixels on, for each arithmetic.

    "image_levels" is the mean difference of the images in grey levels from those of float64, rounded. ``whole`` is
    the bundle of both networks. fp32 is left out where kernels for 16 bits are named, here or by the environment.
    """
    images = photographs(photos, seed=9)
    x, weights, linear = _pixels(gpu, source, images), weights_of(source), _linear(source)
    wanted = exact(gpu, source.table.layers, weights, x)
    image = exact(gpu, linear, weights, wanted)
    levels = _levels(source, image)
    bundles = [
        write_beginning(folder / f"{len(layers)}-layers", source, layers)
        for layers in (source.table.layers, (*source.table.layers, *linear))
    ]
    given = gpu.tensor(images)
    found: dict[str, dict[str, float]] = {}
    named = kernels or os.environ.get(KERNELS_VARIABLE)
    for precision in ("fp16", "bf16") if named else ("fp16", "bf16", "fp32"):
        features, plain = (Ours(gpu, bundle, photos, precision, kernels).result("encode", given) for bundle in bundles)
        pixels = Ours(gpu, whole, photos, precision, kernels).result("reencode", given)
        found[precision] = _three(features, wanted, plain, image, pixels, levels)
    half = TorchLayers(gpu, source.table.layers, source.encoder_weights)(x.half())
    plain = TorchLayers(gpu, linear, source.generator_weights)(half)
    pixels = TorchForm(gpu, source).call("reencode", given)()
    found["torch_fp16"] = _three(half, wanted, plain, image, pixels, levels)
    for bundle in bundles:
        shutil.rmtree(bundle)
    return found


def contradictions(gpu: Gpu, bundle: Path, batches: Iterable[int], kernels: str | None = None) -> list[str]:
    """Return in words which results differ that must have the same bits, as they have not where an output has a gap.

    Every call into memory that holds zeros, then ones; a crop and the middle of the whole images; one iteration of
    re-encoding and its two halves.
    """
    found = []
    for batch in batches:
        ours = Ours(gpu, bundle, batch, kernels=kernels)
        images = gpu.tensor(photographs(batch, seed=6))
        features = ours.result("encode", images)
        results: dict[str, Tensor] = {}
        for what in ("encode", "decode", "reencode"):
            for poison in POISONS:
                out = ours.output(what, batch)
                out.view(torch.uint8).fill_(poison)
                result = ours.call(what, features if what == "decode" else images, out)()
                if not _same_bits(results.setdefault(what, result), result):
                    found.append(f"{what} at batch {batch}: part of the output was not written")
        whole = ours.whole_images(features)
        start = Geometry.central(CAFFE_FRAMING, whole.shape[1]).offset
        middle = whole[:, start : start + CAFFE_FRAMING.side, start : start + CAFFE_FRAMING.side].contiguous()
        if not _same_bits(middle, results["decode"]):
            found.append(f"decode at batch {batch}: the crop differs from the middle of the whole image")
        if not _same_bits(results["reencode"], results["decode"]):
            found.append(f"reencode at batch {batch}: one iteration differs from encode and decode")
    return found


def differing_repeats(gpu: Gpu, bundle: Path, batch: int, repeats: int, kernels: str | None = None) -> int:
    """Re-encode two sets of images in turns; count the results that have not the bits of kernels that never overlap.

    In turns, since what a kernel reads too early is what the call before left there.
    """
    serial, ours = (Ours(gpu, bundle, batch, kernels=kernels, serial=serial) for serial in (True, False))
    sets = [gpu.tensor(photographs(batch, seed=seed)) for seed in (6, 8)]
    wanted, calls = (
        [each.call("reencode", images, each.output("reencode", batch), ITERATIONS) for images in sets]
        for each in (serial, ours)
    )
    rights = [call().clone() for call in wanted]
    return sum(not _same_bits(calls[number % 2](), rights[number % 2]) for number in range(repeats))


def failures(checks: Mapping[str, Any]) -> list[str]:
    """Return in words what of a network's checks did not hold."""
    found = [
        f"{row['step']} at batch {row['batch']}: error {row['error']:.2g}, PyTorch's fp16 {row['torch_error']:.2g}"
        for row in checks["steps"]
        if not near(row["error"], row["torch_error"])
    ]
    own, torch_fp16 = checks["network"]["fp16"], checks["network"]["torch_fp16"]
    found += [
        f"{name.replace('_', ' ')} of the network: error {own[name]:.2g}, PyTorch's fp16 {torch_fp16[name]:.2g}"
        for name in own
        if not near(own[name], torch_fp16[name])
    ]
    found += checks["contradictions"]
    found += [f"batch {b}: {n} repeats with other bits" for b, n in checks["repeats_that_differ"].items() if n]
    return found


def near(error: float, torch_error: float) -> bool:
    """Tell whether an error is at most twice PyTorch's; NaN is not."""
    return error <= max(TIMES_TORCH * torch_error, EXACT)


def exact(gpu: Gpu, layers: Iterable[Layer], weights: Weights, x: Tensor) -> Tensor:
    """Run layers in float64."""
    x = x.double()
    for layer in layers:
        own = (weights.get(f"{layer.name}.{kind}") for kind in ("weight", "bias"))
        x = apply_layer(layer, x, *(None if each is None else gpu.tensor(each).double() for each in own))
    return x


def relative(found: Tensor, wanted: Tensor) -> float:
    """Return |found - wanted| / |wanted| over all values; rows beyond those of ``wanted`` repeat them."""
    distinct = len(wanted)
    difference = whole = 0.0
    for begin in range(0, len(found), distinct):
        part = found[begin : begin + distinct].double()
        difference += float((part - wanted[: len(part)]).square().sum())
        whole += float(wanted[: len(part)].square().sum())
    return float((difference / whole) ** 0.5)


def _encoder(source: Source) -> list[Step]:
    return encoder_steps(source.table.layers, source.table.input_shape)


def _linear(source: Source) -> tuple[Layer, ...]:
    return linear_layers(source.generator_table)


def _pixels(gpu: Gpu, source: Source, images: Pixels) -> Tensor:
    return gpu.tensor(source.table.pixels.to_network(images))


def _step_error(gpu: Gpu, layers: tuple[Layer, ...], weights: Weights, x: Tensor, found: Tensor) -> dict[str, float]:
    x = x[:DISTINCT]
    wanted = exact(gpu, layers, weights, x)
    half = TorchLayers(gpu, layers, weights)(x.half())
    return {"error": relative(found, wanted), "torch_error": relative(half, wanted)}


def _three(*pairs: Any) -> dict[str, float]:
    features, wanted, plain, image, pixels, levels = pairs
    return {
        "features": relative(features, wanted),
        "image": relative(plain, image),
        "image_levels": float(np.abs(pixels.cpu().numpy().astype(np.int16) - levels).mean()),
    }


def _levels(source: Source, image: Tensor) -> NDArray[np.int16]:
    """Return the central pixels of images that a generator without its last activation gave, as grey levels."""
    values = activate(image.clone(), source.generator_table.layers[-1].activation)
    whole = source.generator_table.pixels.to_pixels(values.cpu().numpy())
    pixels = Geometry.central(CAFFE_FRAMING, whole.shape[1]).crop(whole)
    assert pixels.shape[1] == CAFFE_FRAMING.side
    return pixels.astype(np.int16)


def _same_bits(first: Tensor, second: Tensor) -> bool:
    return torch.equal(first.view(torch.uint8), second.view(torch.uint8))
