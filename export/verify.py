"""Does the exported graph compute what PyTorch computes? The answer decides whether anything is published.

Reference: PyTorch in float32 on calibration images. The fp32 graphs run in ONNX Runtime. The fp16 graphs run there
too, but its CPU provider computes half operators in float32 and rounds only where it must; so PyTorch's own half,
which rounds after every layer as an engine does, is run beside it and is held to the same limits.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepsim.export.calibration import calibration_features
from deepsim.export.sources import Source
from deepsim.export.torch_networks import decode, encode, encode_with_module, tensors
from deepsim.runtime.backends.onnxruntime import LEVELS, one_more_output
from deepsim.runtime.errors import NumericError, missing_extra
from deepsim.runtime.geometry import Geometry, enlarged
from deepsim.runtime.networks import EncoderSpec
from deepsim.runtime.pixels import Pixels, rounded
from deepsim.runtime.prior import draw_codes

Features = NDArray[np.float32]

ENCODER_RELATIVE = 1e-4  # |a - b| / |b| over all features, fp32
IMAGE_MAX, IMAGE_MEAN = 1.0, 0.01  # grey levels, fp32: nothing but ties of the rounding
HALF_RELATIVE, HALF_COSINE = 1e-2, 0.9999  # features, fp16
HALF_PSNR, HALF_MEAN = 40.0, 1.0  # dB and grey levels, fp16
HALF_RATIO = 2.0  # the fp16 graph's error over that of PyTorch's own half
_FLOOR = {"relative_error": 1e-4, "mean_difference": 0.01}  # below, the ratio of two errors says nothing
PSNR_CAP = 100.0  # dB, for equal images
HALF_IMAGES = 2  # PyTorch's half is slow on a CPU


@dataclass(frozen=True)
class Check:
    """One comparison: true when it passed; carries its figures and the limits that they were held to.

    ``upper`` and ``lower`` map figures to inclusive limits.
    """

    name: str
    figures: dict[str, float]
    upper: dict[str, float] = field(default_factory=dict)
    lower: dict[str, float] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return not self.failures

    @property
    def failures(self) -> list[str]:
        """List every limit that was broken, in words; NaN breaks every limit."""
        over = [f"{key} {self.figures[key]:.4g} > {limit:g}" for key, limit in self.upper.items() if self._over(key)]
        under = [f"{key} {self.figures[key]:.4g} < {limit:g}" for key, limit in self.lower.items() if self._under(key)]
        return over + under

    def _over(self, key: str) -> bool:
        return not self.figures[key] <= self.upper[key]

    def _under(self, key: str) -> bool:
        return not self.figures[key] >= self.lower[key]


@dataclass(frozen=True)
class Verification:
    """All checks of an export: true when every one passed."""

    checks: tuple[Check, ...]

    def __bool__(self) -> bool:
        return all(self.checks)

    def to_json(self) -> dict[str, Any]:
        """Return figures and limits by check, as plain JSON values. Raises NumericError where a check failed."""
        self.require()
        records = {check.name: asdict(check) for check in self.checks}
        return {name: {key: record[key] for key in ("figures", "upper", "lower")} for name, record in records.items()}

    def require(self) -> None:
        """Raise NumericError naming every broken limit, if there is one."""
        broken = [f"{check.name}: {', '.join(check.failures)}" for check in self.checks if not check]
        if broken:
            raise NumericError(
                f"verification: {'; '.join(broken)}; the export does not agree with PyTorch. Nothing was published. "
                "Export with --engine fp32, or report this if fp32 fails."
            )


def compare_features(found: Features, expected: Features) -> dict[str, float]:
    """Measure features (N, ...) against a reference: relative Euclidean error, cosine, largest difference."""
    a, b = found.astype(np.float64).ravel(), expected.astype(np.float64).ravel()
    norm = max(float(np.linalg.norm(b)), 1e-30)
    cosine = float(a @ b) / max(float(np.linalg.norm(a)) * norm, 1e-60) if a.any() or b.any() else 1.0
    return {
        "relative_error": float(np.linalg.norm(a - b)) / norm,
        "cosine": cosine,
        "max_difference": float(np.abs(a - b).max()),
    }


def compare_images(found: Pixels, expected: Pixels) -> dict[str, float]:
    """Measure uint8 images against a reference: largest and mean difference (grey levels), PSNR (dB, <= 100).

    >>> black = np.zeros((1, 2, 2, 3), np.uint8)
    >>> compare_images(black + np.uint8(1), black)["max_difference"]
    1.0
    """
    difference = found.astype(np.float64) - expected
    square = float((difference**2).mean())
    return {
        "max_difference": float(np.abs(difference).max()),
        "mean_difference": float(np.abs(difference).mean()),
        "psnr": min(PSNR_CAP, 10 * np.log10(255**2 / square)) if square else PSNR_CAP,
    }


class Reference:
    """PyTorch's answers on some images, computed once: features, pixels, and both in half."""

    def __init__(
        self, source: Source, images: Pixels, encoder_islands: frozenset[str], generator_islands: frozenset[str]
    ) -> None:
        self.source, self.images = source, images
        self._encoder, self._generator = tensors(source.encoder_weights), tensors(source.generator_weights)
        self._islands = {"encoder": encoder_islands, "generator": generator_islands}
        self.features = self._encode(images) if source.encoder is not None else _drawn(source, len(images))

    @cached_property
    def codes(self) -> Features:
        """Return what the generator is checked on: the features, and where there is a prior, as many draws from it.

        A unit that tells nothing has the same mean for every image, but not in draws.
        """
        if self.source.prior is None:
            return self.features
        draws = draw_codes(self.features.shape[1:], range(len(self.features)))
        return np.stack((self.features, draws), 1).reshape(-1, *draws.shape[1:])  # one of each in turn

    @cached_property
    def pixels(self) -> Pixels:
        """Return the whole images that the codes become, uint8 RGB (N, S, S, 3)."""
        return self._decode(self.codes)

    def half_features(self) -> Features:
        """Encode the first images in PyTorch's half with the export's float32 islands."""
        images = self.images[:HALF_IMAGES]
        return self._encode(images, half=True, fp32_layers=self._islands["encoder"])

    def half_pixels(self) -> Pixels:
        """Decode the first codes, float32, in PyTorch's half with the same islands; the whole image."""
        features = self.codes[:HALF_IMAGES]
        return self._decode(features, half=True, fp32_layers=self._islands["generator"])

    def _encode(self, images: Pixels, **options: Any) -> Features:
        encoder = self.source.encoder
        if isinstance(encoder, EncoderSpec):
            return encode(encoder, self.source.layer, self._encoder, images, **options)
        return encode_with_module(self.source.graph_module, images)

    def _decode(self, features: Features, **options: Any) -> Pixels:
        spec = self.source.generator_table
        return spec.pixels.to_pixels(decode(spec, self._generator, features, **options))


def _drawn(source: Source, count: int) -> Features:
    spec = source.generator_table
    return calibration_features(count, spec.input_shape, rectified=spec.layer != "fc8")  # the one without a ReLU


def verify_fp32(reference: Reference, encoder: bytes | None, generator: bytes | None) -> Verification:
    """Run the fp32 graphs in ONNX Runtime, batch 1 and the whole batch, against PyTorch in float32.

    A graph is None where the source has no such network.
    """
    checks = []
    if encoder is not None:
        found = compare_features(run_encoder(encoder, reference.images), reference.features)
        checks.append(Check("encoder_fp32", found, {"relative_error": ENCODER_RELATIVE}))
    if generator is not None:
        images = _decoded(generator, reference.codes, reference.source.geometry)
        limits = {"max_difference": IMAGE_MAX, "mean_difference": IMAGE_MEAN}
        checks.append(Check("generator_fp32", compare_images(images, reference.pixels), limits))
    return Verification(tuple(checks))


def verify_fp16(reference: Reference, encoder: bytes | None, generator: bytes | None) -> Verification:
    """Measure the fp16 graphs in ONNX Runtime, and PyTorch's half, against PyTorch in float32.

    The graphs' errors may be at most twice those of PyTorch's half. A graph is None where the source has no such
    network, or the network no fp16 graph.
    """
    encoders = () if encoder is None else _half_encoder(reference, encoder)
    return Verification((*encoders, *(() if generator is None else _half_generator(reference, generator))))


def _half_generator(reference: Reference, generator: bytes) -> tuple[Check, Check]:
    expected, pixels = reference.codes[:HALF_IMAGES], reference.pixels[:HALF_IMAGES]
    half_images = compare_images(reference.half_pixels(), pixels)
    images = compare_images(_decoded(generator, expected, reference.source.geometry), pixels)
    return (
        _half_images("generator_fp16", images, _ratio("mean_difference", half_images)),
        _half_images("generator_pytorch_half", half_images, HALF_MEAN),
    )


def _half_encoder(reference: Reference, encoder: bytes) -> tuple[Check, Check]:
    expected = reference.features[:HALF_IMAGES]
    half = compare_features(reference.half_features(), expected)
    features = compare_features(run_encoder(encoder, reference.images[:HALF_IMAGES]), expected)
    return (
        _half_features("encoder_fp16", features, _ratio("relative_error", half)),
        _half_features("encoder_pytorch_half", half, HALF_RELATIVE),
    )


def _half_features(name: str, figures: dict[str, float], limit: float) -> Check:
    return Check(name, figures, {"relative_error": limit}, {"cosine": HALF_COSINE})


def _half_images(name: str, figures: dict[str, float], limit: float) -> Check:
    return Check(name, figures, {"mean_difference": limit}, {"psnr": HALF_PSNR})


def _ratio(key: str, half: dict[str, float]) -> float:
    return max(HALF_RATIO * half[key], _FLOOR[key])


def run_encoder(graph: bytes, images: Pixels) -> Features:
    """Encode with a graph, the first image alone and then all; the alone one must agree (dynamic batch)."""
    with _session(graph) as session:
        alone, features = (session.run(["features"], {"image": batch})[0] for batch in (images[:1], images))
    return _agreeing("encoder", alone, features, 1e-4 * max(float(np.abs(features).max()), 1e-30))


def _decoded(graph: bytes, features: Features, geometry: Geometry) -> Pixels:
    """Decode with a graph, as :func:`run_encoder` encodes; also compares the scored part with the whole image."""
    names = ["image_full", "image"]
    if geometry.enlarges:
        graph, names = graph + one_more_output(LEVELS), [*names, LEVELS]
    with _session(graph) as session:
        alone, (full, image, *levels) = (session.run(names, {"features": batch}) for batch in (features[:1], features))
    part, most = geometry.crop(full), 0
    if geometry.enlarges:  # which the graph does before it clips and rounds, and rounds ties in its own way
        part, most = rounded(enlarged(geometry.crop(levels[0].transpose(0, 2, 3, 1)), geometry.side)), 1
    if not np.abs(image.astype(int) - part).max(initial=0) <= most:
        raise NumericError("generator: output image is not its part of image_full. Report this.")
    pixels: Pixels = _agreeing("generator", alone[0], full, 1.0)
    return pixels


def _agreeing(name: str, alone: NDArray[Any], batch: NDArray[Any], limit: float) -> NDArray[Any]:
    difference = float(np.abs(alone.astype(np.float64) - batch[:1]).max())
    if not difference <= limit:
        raise NumericError(f"{name}: batch 1 and batch {len(batch)} differ by {difference:g}. Report this.")
    return batch


@contextmanager
def _session(graph: bytes) -> Iterator[Any]:
    """Open a graph in ONNX Runtime on the CPU, and nowhere else."""
    try:
        onnxruntime = importlib.import_module("onnxruntime")
    except ImportError as error:
        raise missing_extra("onnxruntime", "export") from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    yield onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
