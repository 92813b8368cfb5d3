"""The command ``deepsim info``: what a bundle holds, who can run it here, how it was checked, where it comes from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from deepsim.kernels.layers import macs, parameters
from deepsim.runtime.bundle import Bundle
from deepsim.runtime.cli.options import bundle_argument
from deepsim.runtime.generators import GeneratorSpec
from deepsim.runtime.geometry import Framing
from deepsim.runtime.inverter import available_backends
from deepsim.runtime.manifest import EncoderRecord, Manifest
from deepsim.runtime.networks import EncoderSpec

_DISPLAYS = {"stretch": "2 % of an image's values clipped at either end, the rest stretched to 0-255"}


def describe(bundle: Bundle) -> dict[str, Any]:
    """Collect what is known of a bundle, without reading its weights: plain JSON values."""
    manifest, backends = bundle.manifest, available_backends()
    return {
        "bundle": str(bundle.path),
        "name": manifest.name,
        "schema": manifest.schema,
        "layer": manifest.layer,
        "encoder": _encoder(manifest.encoder),
        "generator": manifest.generator and _network(manifest.generator),
        "geometry": {**manifest.geometry.to_json(), "full": manifest.full_size},
        "display": manifest.display,
        "prior": manifest.prior,
        "tensors": manifest.tensors(),
        "files": {name: vars(record) for name, record in manifest.files.items()},
        "engines": list(manifest.engines),
        "backends": backends,
        "runs": {
            "encoder": _encoder_runs_on(manifest, backends),
            "generator": None if manifest.generator is None else "the backend",
        },
        "verification": manifest.verification,
        "provenance": manifest.provenance,
    }


@click.command(epilog="\b\nExamples:\n  deepsim info fc6.deepsim\n  deepsim info fc6.deepsim --check --json")
@bundle_argument
@click.option("--check", is_flag=True, help="Read every file and compare it with its SHA-256.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def info(bundle: Path, check: bool, as_json: bool) -> None:
    """Show what a bundle holds: networks, files, backends that can run it here, verification and provenance."""
    opened = Bundle.open(bundle)
    if check:
        for name in opened.manifest.files:
            opened.read(name)
    found = {**describe(opened), "files_checked": check}
    click.echo(json.dumps(found, indent=2) if as_json else "\n".join(_lines(found)))


def _encoder(encoder: EncoderRecord) -> dict[str, Any] | None:
    if encoder is None:
        return None
    if isinstance(encoder, EncoderSpec):
        return {"kind": "table", "name": encoder.name, **_network(encoder)}
    return {
        "kind": "graph",
        "name": encoder.name,
        "input_shape": list(encoder.input_shape),
        "pixels": encoder.pixels.to_json(),
        "feature_shape": list(encoder.feature_shape),
    }


def _encoder_runs_on(manifest: Manifest, backends: Mapping[str, str | None]) -> str | None:
    """Say in words what runs the encoder here; None without one."""
    if manifest.encoder_kind == "none":
        return None
    if manifest.encoder_kind == "table":
        return "the backend"
    reason = backends["onnxruntime"]
    return "onnxruntime" if reason is None else f"nothing here: {reason}"


def _network(spec: EncoderSpec | GeneratorSpec) -> dict[str, Any]:
    return {
        "input_shape": list(spec.input_shape),
        "layers": [layer.name for layer in spec.layers],
        "parameters": parameters(spec.layers),
        "multiply_adds": macs(spec.layers, spec.input_shape),
        "pixels": spec.pixels.to_json(),
    }


def _lines(found: Mapping[str, Any]) -> Iterator[str]:
    shape = " x ".join(map(str, found["tensors"]["features"]["shape"][1:]))
    geometry, encoder = found["geometry"], found["encoder"]
    of = f"{encoder['name']} {found['layer']}" if encoder else found["layer"]
    does = "inverts" if found["generator"] else "encodes"
    yield f"{found['bundle']}: {does} {of}, features {shape} (schema {found['schema']})"
    yield f"photographs  {Framing.from_json(geometry['photograph'])} pixels"
    if found["generator"]:
        yield from _image_lines(found)
    for name, other in (("encoder", "decodes features"), ("generator", "encodes photographs")):
        yield f"{name:12} {_network_line(found[name], other)}"
    if found["prior"]:
        yield f"prior        {found['prior']}: codes can be drawn (deepsim sample)"
    if found["runs"]["encoder"] not in (None, "the backend"):
        generator = "; the generator by the backend" if found["generator"] else ""
        yield f"             the encoder is a graph, run by {found['runs']['encoder']}{generator}"
    yield from _files(found)
    yield "\nruns here"
    yield from (f"  {name:13} {reason or 'usable'}" for name, reason in found["backends"].items())
    yield "\nverified when it was exported"
    yield from (f"  {name:24} {_figures(check)}" for name, check in found["verification"].items())
    yield "\nprovenance"
    yield from (f"  {name:24} {value}" for name, value in _flat(found["provenance"]))


def _image_lines(found: Mapping[str, Any]) -> Iterator[str]:
    geometry = found["geometry"]
    side, offset = geometry["generated"]["side"], geometry["generated"]["offset"]
    shown = geometry["photograph"]["side"]
    enlarged = f", enlarged to {shown}x{shown}" if side < shown else ""
    yield f"images       {geometry['full']} pixels, of which {side}x{side} from {offset} on were trained{enlarged}"
    if found["display"] != "clip":
        yield f"display      {found['display']}: {_DISPLAYS[found['display']]}"


def _network_line(network: Mapping[str, Any] | None, other: str) -> str:
    if network is None:
        return f"none: this bundle {other} only"
    pixels = network["pixels"]
    means = f"{pixels['order']} minus {', '.join(f'{mean:g}' for mean in pixels['mean'])}"
    if "layers" not in network:
        return f"graph {network['name']}; {means}"
    return (
        f"{len(network['layers'])} layers, {network['parameters'] / 1e6:.1f} M parameters, "
        f"{network['multiply_adds'] / 1e6:.0f} M multiply-adds; {means}"
    )


def _files(found: Mapping[str, Any]) -> Iterator[str]:
    total = sum(record["size"] for record in found["files"].values())
    checked = "all as the manifest says" if found["files_checked"] else "not read; --check compares their SHA-256"
    yield f"\nfiles        {len(found['files'])}, {total / 1e6:.1f} MB, {checked}"
    for name, record in found["files"].items():
        yield f"  {name:44}{record['size'] / 1e6:9.2f} MB  {record['sha256'][:12]}"
    for engine in found["engines"]:
        yield f"  {engine['path']}: {engine['built_for']}; {engine['inspected']}"


def _figures(check: Mapping[str, Any]) -> str:
    figures = check.get("figures", check)
    return ", ".join(f"{key.replace('_', ' ')} {value:.3g}" for key, value in figures.items() if _is_number(value))


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _flat(record: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the entries of nested records, with dots between their names; those of a list of records have numbers."""
    for name, value in record.items():
        if isinstance(value, list) and all(isinstance(entry, dict) for entry in value):
            value = {str(index): entry for index, entry in enumerate(value)} if value else "none"
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            texts = isinstance(value, list) and all(isinstance(entry, str) for entry in value)
            yield f"{prefix}{name}", "; ".join(value) if texts else value
