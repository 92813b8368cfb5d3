"""Write a bundle: build, verify, and only then publish the whole folder under its name by one rename."""

from __future__ import annotations

import importlib.metadata
import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import safetensors.numpy
import torch

from deepsim.export.calibration import calibration_images
from deepsim.export.engines import HOW, EngineJob, Target, build_engine, choose_target
from deepsim.export.model_card import model_card
from deepsim.export.module_onnx import FP16_NOTE, module_encoder_onnx
from deepsim.export.narrator import Narrator
from deepsim.export.onnx_from_layers import Precision, encoder_onnx, generator_onnx
from deepsim.export.ranges import WARN_ABOVE, RangeScan, scan_ranges
from deepsim.export.sources import Source, as_text
from deepsim.export.torch_networks import tensors
from deepsim.export.verify import Reference, verify_fp16, verify_fp32
from deepsim.runtime.errors import UsageError
from deepsim.runtime.files import publish_folder, reserved, restore, sha256
from deepsim.runtime.manifest import FILE_NAME, FileRecord, Manifest
from deepsim.runtime.networks import EncoderSpec
from deepsim.runtime.pixels import Pixels

Engine = Literal["onnx", "fp32", "fp16"]
NETWORKS = ("encoder", "generator")
PROCEDURAL, PHOTOGRAPHS, VERIFIED = 6, 2, 3  # calibration images of each kind; how many of them are compared
_PACKAGES = ("deepsim", "numpy", "torch", "onnx", "onnxruntime")


@dataclass(frozen=True)
class Options:
    """What to export: "onnx" graphs alone, with "fp32" engines, or with half graphs and "fp16" engines.

    ``without_encoder`` leaves the encoder and its weights out: the bundle decodes features only. The whole export is
    verified with the encoder all the same. ``target`` is an engine's library; engines take batches of 1 to
    ``max_batch``. TensorRT-RTX builds for ``gpus``: "ampere" and later (SM 80 to 121) or "turing" (SM 75).
    """

    engine: Engine = "fp16"
    target: Target = "auto"
    max_batch: int = 64
    without_encoder: bool = False
    gpus: Literal["ampere", "turing"] = "ampere"

    def __post_init__(self) -> None:
        if self.max_batch < 1:
            raise UsageError(f"--max-batch: {self.max_batch}, expected at least 1.")


def export_bundle(
    source: Source, target: Path, options: Options, overwrite: bool = False, narrator: Narrator | None = None
) -> Manifest:
    """Export ``source`` into the bundle folder ``target``; return its manifest.

    The folder appears whole, or not at all: when a check fails, the process is killed or the disk is full. Raises
    NumericError when a graph does not agree with PyTorch or an engine has the wrong precision, DeviceError when the
    engine library is missing or fails, UsageError when ``target`` exists (and is no bundle, with ``overwrite``) or
    another process exports to it.
    """
    if options.without_encoder and source.generator is None:
        raise UsageError("--without-encoder: the source is an encoder alone, nothing would be left.")
    restore(target)
    if overwrite and target.exists() and not (target / FILE_NAME).is_file():
        raise UsageError(f"{target}: exists and is no bundle, it is not overwritten. Choose another name.")
    with reserved(target), publish_folder(target, overwrite) as staging:
        name = as_text(target.name).removesuffix(".deepsim")
        return _Export(source, options, staging, name, narrator or Narrator()).run()


class _Export:
    """One export into a staging folder, stage by stage."""

    def __init__(self, source: Source, options: Options, staging: Path, name: str, narrator: Narrator) -> None:
        self.source, self.options, self.staging, self.name, self.narrator = source, options, staging, name, narrator
        self.verification: dict[str, Any] = {}
        self.islands: dict[str, frozenset[str]] = dict.fromkeys(NETWORKS, frozenset())
        missing = options.without_encoder or source.encoder is None, source.generator is None
        self.networks = [name for name, is_out in zip(NETWORKS, missing, strict=True) if not is_out]

    def run(self) -> Manifest:
        """Build, verify and write everything; return the manifest."""
        engine_target = None if self.options.engine == "onnx" else choose_target(self.options.target)
        images = _calibration(self.source.photographs, self.source.geometry.side)
        if self.options.engine == "fp16":
            self._scan(images)
        reference = Reference(self.source, images[:VERIFIED], self.islands["encoder"], self.islands["generator"])
        self._verified("fp32", reference)
        if self.options.engine == "fp16":
            self._verified("fp16", reference)
        self._write("weights.safetensors", safetensors.numpy.save(self._weights()))
        engines = () if engine_target is None else (self._engines(engine_target),)
        self.narrator.stage("write")
        return self._publish(engines, len(images))

    def _scan(self, images: Pixels) -> None:
        """Find the layers that half cannot hold."""
        self.narrator.stage("scan ranges")
        source, scans = self.source, {}
        encoder = source.encoder
        if isinstance(encoder, EncoderSpec):
            weights = tensors(source.encoder_weights)
            scans["encoder"] = scan_ranges(encoder.layers, torch.from_numpy(encoder.pixels.to_network(images)), weights)
        if source.generator is not None:
            features = torch.from_numpy(Reference(source, images, frozenset(), frozenset()).codes)
            scans["generator"] = scan_ranges(source.generator.layers, features, tensors(source.generator_weights))
        for network, scan in scans.items():
            self.islands[network] = scan.islands
            self._warn(network, scan)
        self.verification["ranges"] = {
            name: {"maxima": scan.maxima, "fp32_islands": sorted(scan.islands)} for name, scan in scans.items()
        }

    def _warn(self, network: str, scan: RangeScan) -> None:
        for layer in scan.warnings:
            kept = ", kept in fp32" if layer in scan.islands else ""
            self.narrator.warn(f"{network} {layer}: values up to {scan.maxima[layer]:.3g}, above {WARN_ABOVE:g}{kept}.")

    def _verified(self, precision: Precision, reference: Reference) -> None:
        """Build the graphs, compare them with PyTorch, keep them when they agree."""
        self.narrator.stage(f"{precision} graphs")
        encoder, generator = self._encoder_graph(precision), self._generator_graph(precision)
        self.narrator.stage(f"verify {precision}")
        verify = verify_fp16 if precision == "fp16" else verify_fp32
        checked = verify(reference, encoder, generator)
        self.verification.update(checked.to_json())
        for name, graph in zip(NETWORKS, (encoder, generator), strict=True):
            if name in self.networks and graph is not None:
                self._write(_graph_file(name, precision), graph)

    def _encoder_graph(self, precision: Precision) -> bytes | None:
        """Build the encoder's graph; None without an encoder, and for the fp16 graph of a PyTorch module."""
        source, metadata = self.source, _metadata(self.source, precision)
        if source.encoder is None:
            return None
        if isinstance(source.encoder, EncoderSpec):
            return encoder_onnx(
                source.encoder,
                source.layer,
                source.encoder_weights,
                precision,
                fp32_layers=self.islands["encoder"],
                metadata=metadata,
            )
        if precision == "fp16":
            self.narrator.warn(FP16_NOTE)
            return None
        return module_encoder_onnx(source.graph_module, metadata)

    def _generator_graph(self, precision: Precision) -> bytes | None:
        source = self.source
        if source.generator is None:
            return None
        return generator_onnx(
            source.generator,
            source.geometry,
            source.generator_weights,
            precision,
            fp32_layers=self.islands["generator"],
            metadata=_metadata(source, precision),
        )

    def _engines(self, target: str) -> dict[str, Any]:
        """Build the tables' engines with their sidecars; return the manifest's record of their folder."""
        precision: Precision = "fp16" if self.options.engine == "fp16" else "fp32"
        folder = f"engines/{target}-{precision}"
        (self.staging / folder).mkdir(parents=True)
        sidecar: dict[str, Any] = {}
        for network in self.networks:
            if network == "encoder" and not isinstance(self.source.encoder, EncoderSpec):
                continue
            self.narrator.stage(f"{network} engine")
            onnx, plan = self.staging / _graph_file(network, precision), self.staging / folder / f"{network}.plan"
            job = EngineJob(
                target, precision, onnx, plan, self.options.max_batch, self.islands[network], self.options.gpus
            )
            parity = {key: value for key, value in self.verification.items() if key.startswith(f"{network}_")}
            sidecar = {"network": network, **build_engine(job, self.narrator.step), "parity": {"how": HOW, **parity}}
            self._write(f"{folder}/{network}.plan.json", json.dumps(sidecar, indent=2).encode() + b"\n")
        shared = ("target", "precision", "built_for", "tensorrt_version", "compute_capabilities", "gpu", "inspected")
        return {"path": folder, "max_batch": self.options.max_batch, **{key: sidecar[key] for key in shared}}

    def _weights(self) -> dict[str, Any]:
        """Return the published networks' weights, each name behind its network's."""
        weights = {"encoder": self.source.encoder_weights, "generator": self.source.generator_weights}
        return {f"{network}.{name}": value for network in self.networks for name, value in weights[network].items()}

    def _write(self, name: str, data: bytes) -> None:
        (self.staging / name).write_bytes(data)

    def _publish(self, engines: tuple[dict[str, Any], ...], images: int) -> Manifest:
        source = self.source
        photographs = min(PHOTOGRAPHS, len(source.photographs))
        calibration = {"images": images, "photographs": photographs, "compared": VERIFIED}
        if source.encoder is None:
            calibration = {"features": images, "compared": VERIFIED}
        self.verification["calibration"] = calibration
        provenance = {**source.provenance, "exported": _now(), "versions": _versions()}
        encoder = None if self.options.without_encoder else source.encoder
        parts = (source.geometry, encoder, source.generator)
        manifest = Manifest(
            *(self.name, *parts, {}, engines, self.verification), provenance, source.display, source.prior
        )
        self._write("README.md", model_card(manifest).encode())
        manifest = replace(manifest, files=_records(self.staging))
        self._write(FILE_NAME, manifest.to_bytes())
        return manifest


def _calibration(photographs: Pixels, side: int) -> Pixels:
    """Return procedural images and some photographs, a photograph second: uint8 RGB (N, side, side, 3)."""
    procedural, chosen = list(calibration_images(PROCEDURAL, side)), list(photographs[:PHOTOGRAPHS])
    return np.stack([procedural[0], *chosen, *procedural[1:]])


def _graph_file(network: str, precision: Precision) -> str:
    return f"{network}.onnx" if precision == "fp32" else f"{network}.{precision}.onnx"


def _metadata(source: Source, precision: Precision) -> dict[str, str]:
    known: dict[str, Any] = {} if source.encoder is None else {"encoder": source.encoder.name}
    known |= {"layer": source.layer, "precision": precision}
    origin = {
        key: value for key in ("from", "run", "step", "seed") if (value := source.provenance.get(key)) is not None
    }
    return {f"deepsim.{key}": str(value) for key, value in {**known, **origin}.items()}


def _records(folder: Path) -> dict[str, FileRecord]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): FileRecord(path.stat().st_size, sha256(path)) for path in files}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _versions() -> dict[str, str]:
    """Return the versions of the packages that took part; a checkout that is not installed has none of its own."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found
