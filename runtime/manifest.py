"""The manifest of a bundle: what the folder ``NAME.deepsim/`` holds, in one typed record.

A bundle is published by :mod:`deepsim.export` and read by :mod:`deepsim.runtime.bundle`. The file is canonical JSON
(sorted keys, two spaces) that ends in a checksum of itself, so that no byte of it can change unnoticed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, get_args

from deepsim.kernels.layers import Layer, Shape, shapes
from deepsim.runtime.errors import BundleCorrupt, BundleError, BundleUnsafe
from deepsim.runtime.files import sha256
from deepsim.runtime.generators import GeneratorSpec
from deepsim.runtime.geometry import CAFFE_FRAMING, Geometry
from deepsim.runtime.networks import EncoderSpec, GraphEncoder
from deepsim.runtime.pixels import Display, PixelConvention
from deepsim.runtime.prior import Prior

SCHEMA = 2
READ = (1, 2)  # schema 1 knew CaffeNet's geometry and encoders that are tables, and stated neither
FILE_NAME = "manifest.json"
MAX_BYTES = 4 << 20
EncoderRecord: TypeAlias = EncoderSpec | GraphEncoder | None
EncoderKind: TypeAlias = Literal["table", "graph", "none"]


@dataclass(frozen=True)
class FileRecord:
    """Size in bytes and hexadecimal SHA-256 of one file."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """Everything a runtime needs to know about a bundle before it opens another of its files.

    ``encoder`` is a table that our engines run, a graph that ONNX Runtime runs, or None: then the bundle decodes only.
    ``generator`` is a table, or None: then the bundle encodes only. One of them is there. ``geometry`` says what a
    photograph becomes for the encoder, and where that square lies in the generator's output; without an encoder it is
    that of the network which the features come from, without a generator the offset is 0. ``display`` is how raw images
    become pictures. ``prior`` is the distribution that codes of the generator may be drawn from, as those of a
    variational autoencoder; None: none is known.

    ``files`` maps names relative to the bundle, with ``/`` between folders, to their records; ``engines`` lists one
    record per engine folder (target, precision, path); ``verification`` and ``provenance`` are for people and reports.
    """

    name: str
    geometry: Geometry
    encoder: EncoderRecord
    generator: GeneratorSpec | None
    files: dict[str, FileRecord]
    engines: tuple[dict[str, Any], ...] = ()
    verification: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    display: Display = "clip"
    prior: Prior | None = None
    schema: int = SCHEMA  # of the file that it was read from; what is written is always the newest

    @property
    def encoder_kind(self) -> EncoderKind:
        """Return what the encoder is: "table", "graph" or "none"."""
        if self.encoder is None:
            return "none"
        return "table" if isinstance(self.encoder, EncoderSpec) else "graph"

    @property
    def encoder_name(self) -> str | None:
        """Return the encoder's name, such as "caffenet"; None without one."""
        return None if self.encoder is None else self.encoder.name

    @property
    def has_tables(self) -> bool:
        """Tell whether a network of the bundle is a table of layers, whose weights are in weights.safetensors."""
        return self.encoder_kind == "table" or self.generator is not None

    @property
    def layer(self) -> str:
        """Return the name of the layer whose features the bundle decodes or encodes, such as "fc6"."""
        if self.generator is not None:
            return self.generator.layer
        encoder = self._only_encoder()
        return encoder.layers[-1].name if isinstance(encoder, EncoderSpec) else encoder.layer

    @property
    def feature_shape(self) -> Shape:
        """Return the shape of one feature, (C, H, W) or (C,)."""
        if self.generator is not None:
            return self.generator.input_shape
        encoder = self._only_encoder()
        if isinstance(encoder, EncoderSpec):
            return shapes(encoder.layers, encoder.input_shape)[-1]
        return encoder.feature_shape

    @property
    def full_size(self) -> int:
        """Return the side in pixels of the generator's whole output; without a generator, a photograph's."""
        return self.geometry.side if self.generator is None else self.generator.output_size

    def tensors(self) -> dict[str, Any]:
        """Describe the inputs and outputs of the graphs: shape with "N" for the batch, dtype and range."""
        side, full = self.geometry.side, self.full_size
        pixels = {"dtype": "uint8", "layout": "NHWC", "channels": "RGB", "range": [0, 255]}
        whole = {} if self.generator is None else {"image_full": {"shape": ["N", full, full, 3], **pixels}}
        return {
            "image": {"shape": ["N", side, side, 3], **pixels},
            **whole,
            "features": {"shape": ["N", *self.feature_shape], "dtype": "float32", "layout": "NCHW"},
        }

    def _only_encoder(self) -> EncoderSpec | GraphEncoder:
        """Return the encoder of a bundle without a generator. Raises ValueError for one without either."""
        if self.encoder is None:
            raise ValueError("neither an encoder nor a generator, expected one of them")
        return self.encoder

    def to_bytes(self) -> bytes:
        """Return the canonical file content, checksum included."""
        return _canonical(self._record())

    def _record(self) -> dict[str, Any]:
        generator = self.generator
        return {
            "schema": SCHEMA,
            "name": self.name,
            "layer": self.layer,
            "geometry": self.geometry.to_json(),
            "encoder": _encoder_to_json(self.encoder),
            "generator": generator and {"layer": generator.layer, **_network_to_json(generator)},
            "tensors": self.tensors(),
            **({} if self.display == "clip" else {"display": self.display}),
            **({} if self.prior is None else {"prior": self.prior}),
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
            generator = _generator_from_json(record)
            geometry = _geometry_from_json(record, generator)
            manifest = cls(
                record["name"],
                geometry,
                _encoder_from_json(record, geometry),
                generator,
                {name: FileRecord(**entry) for name, entry in record["files"].items()},
                tuple(record["engines"]),
                record["verification"],
                record["provenance"],
                _display_from_json(record),
                _prior_from_json(record, generator),
                record["schema"],
            )
            if generator is None and record["layer"] != manifest.layer:
                raise ValueError(f"layer {record['layer']!r}, its network gives {manifest.layer!r}")
            return manifest
        except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
            raise BundleError(
                f"{source}: not a valid manifest ({error!r}), expected schema {record['schema']}. Export it again."
            ) from error


def _encoder_to_json(encoder: EncoderRecord) -> dict[str, Any] | None:
    if encoder is None:
        return None
    if isinstance(encoder, EncoderSpec):
        return {"kind": "table", "name": encoder.name, **_network_to_json(encoder)}
    return {
        "kind": "graph",
        "name": encoder.name,
        "layer": encoder.layer,
        "input_shape": list(encoder.input_shape),
        "pixels": encoder.pixels.to_json(),
        "feature_shape": list(encoder.feature_shape),
    }


def _generator_from_json(record: dict[str, Any]) -> GeneratorSpec | None:
    generator = record["generator"]
    if generator is None and record["schema"] > 1:
        return None
    return GeneratorSpec(generator["layer"], **_network_from_json(generator))


def _geometry_from_json(record: dict[str, Any], generator: GeneratorSpec | None) -> Geometry:
    if record["schema"] == 1 and generator is not None:
        return Geometry.central(CAFFE_FRAMING, generator.output_size)
    return Geometry.from_json(record["geometry"])


def _display_from_json(record: dict[str, Any]) -> Display:
    display: Display = record.get("display", "clip")
    if display not in get_args(Display):
        raise ValueError(f"display {display!r}, expected {' or '.join(get_args(Display))}")
    return display


def _prior_from_json(record: dict[str, Any], generator: GeneratorSpec | None) -> Prior | None:
    if "prior" not in record:
        return None
    prior: Prior = record["prior"]
    if prior not in get_args(Prior):
        raise ValueError(f"prior {prior!r}, expected {' or '.join(get_args(Prior))}")
    if generator is None:
        raise ValueError("a prior without a generator, expected one that decodes its codes")
    return prior


def _encoder_from_json(record: dict[str, Any], geometry: Geometry) -> EncoderRecord:
    """Read the encoder, whose input shape must be the geometry's. Raises ValueError for an unknown kind."""
    encoder = record["encoder"]
    if encoder is None and record["schema"] > 1:
        return None
    kind, framing = "table" if record["schema"] == 1 else encoder["kind"], geometry.framing
    if tuple(encoder["input_shape"]) != (3, framing.side, framing.side):
        raise ValueError(f"encoder takes {encoder['input_shape']}, its geometry gives {framing.side} pixels")
    if kind == "table":
        network = _network_from_json(encoder)
        return EncoderSpec(encoder["name"], network["layers"], network["pixels"], framing)
    if kind == "graph":
        pixels, shape = PixelConvention.from_json(encoder["pixels"]), tuple(encoder["feature_shape"])
        return GraphEncoder(encoder["name"], encoder["layer"], framing, pixels, shape)
    raise ValueError(f"encoder of kind {kind!r}, expected table or graph")


def _network_to_json(spec: EncoderSpec | GeneratorSpec) -> dict[str, Any]:
    return {
        "input_shape": list(spec.input_shape),
        "pixels": spec.pixels.to_json(),
        "layers": [layer.to_json() for layer in spec.layers],
    }


def _network_from_json(record: dict[str, Any]) -> dict[str, Any]:
    layers = tuple(Layer.from_json(entry) for entry in record["layers"])
    shape = tuple(record["input_shape"])
    shapes(layers, shape)  # raises where the table does not fit together
    return {"layers": layers, "input_shape": shape, "pixels": PixelConvention.from_json(record["pixels"])}


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
    if type(record["schema"]) is not int or record["schema"] not in READ:
        raise BundleError(f"{source}: schema {record['schema']!r}, expected {' or '.join(map(str, READ))}.")
    record.pop("zz_checksum", None)
    if _canonical(record) != data:
        raise BundleCorrupt(f"{source}: its checksum does not match, it was changed. Copy or export the bundle again.")
    return record


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) != len(pairs):
        raise BundleUnsafe("manifest.json: a key appears twice. Do not use this bundle.")
    return record
