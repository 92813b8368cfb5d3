"""The manifest of a bundle: what the folder ``NAME.deepsim/`` holds, in one typed record.

A bundle is published by :mod:`deepsim.export` and read by :mod:`deepsim.runtime.bundle`. The file is canonical JSON
(sorted keys, two spaces) that ends in a checksum of itself, so that no byte of it can change unnoticed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from deepsim.kernels.layers import Layer, shapes
from deepsim.runtime.errors import BundleCorrupt, BundleError, BundleUnsafe
from deepsim.runtime.files import sha256
from deepsim.runtime.networks import EncoderSpec, GeneratorSpec
from deepsim.runtime.pixels import CROP, PixelConvention

SCHEMA = 1
FILE_NAME = "manifest.json"
MAX_BYTES = 4 << 20
_T = TypeVar("_T")


@dataclass(frozen=True)
class FileRecord:
    """Size in bytes and hexadecimal SHA-256 of one file."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """Everything a runtime needs to know about a bundle before it opens another of its files.

    ``files`` maps names relative to the bundle, with ``/`` between folders, to their records; ``engines`` lists one
    record per engine folder (target, precision, path); ``verification`` and ``provenance`` are for people and reports.
    """

    name: str
    encoder: EncoderSpec
    generator: GeneratorSpec
    files: dict[str, FileRecord]
    engines: tuple[dict[str, Any], ...] = ()
    verification: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """Return the canonical file content, checksum included."""
        return _canonical(self._record())

    def _record(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "name": self.name,
            "layer": self.generator.layer,
            "encoder": _network_to_json(self.encoder, name=self.encoder.name),
            "generator": _network_to_json(self.generator, layer=self.generator.layer),
            "tensors": tensors(self.generator),
            "files": {name: vars(record) for name, record in self.files.items()},
            "engines": list(self.engines),
            "verification": self.verification,
            "provenance": self.provenance,
        }

    @classmethod
    def from_bytes(cls, data: bytes, source: str = FILE_NAME) -> Manifest:
        """Read a manifest. ``source`` names it in messages.

        Raises BundleError on an unknown schema, BundleCorrupt on any changed byte, BundleUnsafe on duplicate keys or
        absurd size.
        """
        record = _read_canonical(data, source)
        try:
            return cls(
                record["name"],
                _network_from_json(record["encoder"], EncoderSpec, record["encoder"]["name"]),
                _network_from_json(record["generator"], GeneratorSpec, record["generator"]["layer"]),
                {name: FileRecord(**entry) for name, entry in record["files"].items()},
                tuple(record["engines"]),
                record["verification"],
                record["provenance"],
            )
        except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
            raise BundleError(
                f"{source}: not a valid manifest ({error!r}), expected schema {SCHEMA}. Export it again."
            ) from error


def tensors(generator: GeneratorSpec) -> dict[str, Any]:
    """Describe the inputs and outputs of the two graphs: shape with "N" for the batch, dtype and range."""
    side = generator.output_size
    pixels = {"dtype": "uint8", "layout": "NHWC", "channels": "RGB", "range": [0, 255]}
    return {
        "image": {"shape": ["N", CROP, CROP, 3], **pixels},
        "image_full": {"shape": ["N", side, side, 3], **pixels},
        "features": {"shape": ["N", *generator.input_shape], "dtype": "float32", "layout": "NCHW"},
    }


def _network_to_json(spec: EncoderSpec | GeneratorSpec, **names: str) -> dict[str, Any]:
    return {
        **names,
        "input_shape": list(spec.input_shape),
        "pixels": spec.pixels.to_json(),
        "layers": [layer.to_json() for layer in spec.layers],
    }


def _network_from_json(record: dict[str, Any], kind: Callable[..., _T], name: str) -> _T:
    layers = tuple(Layer.from_json(entry) for entry in record["layers"])
    shape = tuple(record["input_shape"])
    shapes(layers, shape)  # raises where the table does not fit together
    pixels = PixelConvention.from_json(record["pixels"])
    return kind(name, layers=layers, pixels=pixels, input_shape=shape)


def _canonical(record: dict[str, Any]) -> bytes:
    body = json.dumps(record, indent=2, sort_keys=True, allow_nan=False)
    checked = {**record, "zz_checksum": sha256(body.encode())}
    return (json.dumps(checked, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()


def _read_canonical(data: bytes, source: str) -> dict[str, Any]:
    if len(data) > MAX_BYTES:
        raise BundleUnsafe(f"{source}: {len(data):,} bytes, expected at most {MAX_BYTES:,}. Do not use this bundle.")
    try:
        record = json.loads(data, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise BundleCorrupt(f"{source}: not JSON ({error}). Copy or export the bundle again.") from error
    if not isinstance(record, dict) or "schema" not in record:
        raise BundleCorrupt(f"{source}: no schema field, expected a bundle manifest. Copy or export it again.")
    if record["schema"] != SCHEMA:
        raise BundleError(f"{source}: schema {record['schema']!r}, this version reads {SCHEMA}. Export it again.")
    record.pop("zz_checksum", None)
    if _canonical(record) != data:
        raise BundleCorrupt(f"{source}: its checksum does not match, it was changed. Copy or export the bundle again.")
    return record


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) != len(pairs):
        raise BundleUnsafe("manifest.json: a key appears twice. Do not use this bundle.")
    return record
