"""The README.md of a bundle: what it is, how to run it, how it was checked, whose weights it holds."""

from __future__ import annotations

from typing import Any

from deepsim.runtime.manifest import Manifest

_UNITS = {
    "relative_error": "",
    "cosine": "",
    "max_difference": "",
    "mean_difference": "",
    "psnr": " dB",
}


def model_card(manifest: Manifest) -> str:
    """Write the model card of a bundle as Markdown."""
    sections = (
        _what(manifest),
        _pixels(manifest),
        _run(manifest),
        _verification(manifest),
        _engines(manifest),
        _provenance(manifest.provenance),
        _LICENCE,
    )
    return "\n\n".join(section for section in sections if section) + "\n"


def _what(manifest: Manifest) -> str:
    layer, encoder = manifest.layer, manifest.encoder_name
    shape = " x ".join(str(extent) for extent in manifest.feature_shape)
    if manifest.generator is None:
        does = f"Turns photographs into {layer} features ({shape}) of {encoder}."
        return f"# {manifest.name}\n\n{does} It holds no generator."
    if manifest.prior is not None:
        encodes = f" Its encoder, of {encoder}, gives the mean code of a photograph." if encoder else ""
        return (
            f"# {manifest.name}\n\n"
            f"The decoder of a variational autoencoder turns codes ({shape}) into images (Dosovitskiy & Brox 2016, "
            f"arXiv 1602.02644, section 4.2). Its codes follow a {manifest.prior} distribution: `deepsim sample` draws "
            f"some.{encodes}"
        )
    if encoder is None:
        return (
            f"# {manifest.name}\n\n"
            f"Turns {layer} features ({shape}) into images (Dosovitskiy & Brox 2016, arXiv 1602.02644). It holds no "
            "encoder."
        )
    return (
        f"# {manifest.name}\n\n"
        f"Inverts {layer} of {encoder}: the encoder turns a photograph into {layer} features ({shape}), the generator "
        "turns features back into an image (Dosovitskiy & Brox 2016, arXiv 1602.02644)."
    )


def _pixels(manifest: Manifest) -> str:
    geometry, encoder = manifest.geometry, manifest.encoder
    side, full = geometry.side, manifest.full_size
    inside = ""
    if encoder is not None:
        means = ", ".join(f"{mean:g}" for mean in encoder.pixels.mean)
        inside = (
            f" A photograph's {geometry.framing} pixels are what {encoder.name} takes; inside, it sees "
            f"{encoder.pixels.order} minus {means}."
        )
    made = (
        f" The generator makes {full} x {full} pixels (`image_full`); `image` is the {geometry.generated_side} x "
        f"{geometry.generated_side} of them from {geometry.offset} on, the part that training scored"
        + (f", enlarged to {side} x {side} (bilinear)." if geometry.enlarges else ".")
    )
    return f"## Pixels\n\nImages are uint8 RGB, N x H x W x 3.{inside}{made if manifest.generator else ''}"


def _run(manifest: Manifest) -> str:
    shape, side = ", ".join(map(str, manifest.feature_shape)), manifest.geometry.side
    if manifest.generator is None:
        return _in_python(manifest, f'features = inverter.encode(["photo.jpg"])  # float32 (1, {shape})')
    call = 'inverter.reconstruct(["photo.jpg"])' if manifest.encoder else "inverter.decode(features)"
    of = "" if manifest.encoder else f" of float32 (1, {shape})"
    return _in_python(manifest, f"images = {call}  # uint8 RGB (1, {side}, {side}, 3){of}")


def _in_python(manifest: Manifest, call: str) -> str:
    return (
        "## Run\n\n```python\n"
        "from deepsim import runtime\n"
        f'inverter = runtime.Inverter("{manifest.name}.deepsim")\n'
        f"{call}\n"
        "```"
    )


def _verification(manifest: Manifest) -> str:
    checks = {name: check for name, check in manifest.verification.items() if "figures" in check}
    rows = [f"| {name} | {_figures(check['figures'])} | {_limits(check)} |" for name, check in checks.items()]
    header = "## Verification\n\nAgainst PyTorch in float32; images in grey levels.\n"
    return "\n".join([header, "| check | found | limit |", "|---|---|---|", *rows])


def _figures(figures: dict[str, float]) -> str:
    return ", ".join(f"{key.replace('_', ' ')} {value:.4g}{_UNITS.get(key, '')}" for key, value in figures.items())


def _limits(check: dict[str, Any]) -> str:
    upper = [f"{key.replace('_', ' ')} <= {value:.3g}" for key, value in check["upper"].items()]
    return ", ".join(upper + [f"{key.replace('_', ' ')} >= {value:g}" for key, value in check["lower"].items()])


def _engines(manifest: Manifest) -> str:
    if not manifest.engines:
        return ""
    rows = [
        f"* `{engine['path']}`: {engine['precision']}, TensorRT {engine['tensorrt_version']}, {engine['built_for']}, "
        f"batches 1 to {engine['max_batch']}; {engine['inspected']}"
        for engine in manifest.engines
    ]
    return "\n".join(["## Engines\n", *rows])


def _provenance(provenance: dict[str, Any]) -> str:
    rows: list[str] = []
    for key, value in provenance.items():
        if isinstance(value, list):
            rows += [f"* {key}: {_entries(entry)}" for entry in value]
        else:
            rows.append(f"* {key}: {_entries(value)}")
    return "\n".join(["## Where it comes from\n", *rows])


def _entries(value: Any) -> str:
    return ", ".join(f"{key} {entry}" for key, entry in value.items()) if isinstance(value, dict) else str(value)


_LICENCE = (
    "## Licence\n\n"
    "deepsim's licence covers its code. These weights are bound by the licences of the encoder's weights and of the "
    "photographs that the generator was trained on; weights published by the paper's authors are for research only."
)
