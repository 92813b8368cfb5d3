"""The page as one HTML text: template, style sheet and script, with what the bundle is."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from deepsim.evaluate.explore.codes import ZERO
from deepsim.evaluate.explore.explorer import MOST_SEED, MOST_TEMPERATURE, STRIP, Explorer
from deepsim.evaluate.explore.guard import MOST_UPLOAD
from deepsim.evaluate.explore.samples import Sample
from deepsim.evaluate.pages import filled
from deepsim.evaluate.pictures import data_uri
from deepsim.evaluate.wording import encoder_words
from deepsim.runtime.features import SUFFIXES
from deepsim.runtime.images import SUFFIXES as IMAGE_SUFFIXES

_THUMBNAIL = 96  # pixels


def render(explorer: Explorer, samples: tuple[Sample, ...], nonce: str) -> str:
    """Return the page; ``nonce`` marks its own style and script for the browser."""
    inverter = explorer.inverter
    manifest = inverter.bundle.manifest
    return filled(
        "deepsim.evaluate.explore",
        "page.html",
        nonce=nonce,
        name=manifest.name,
        layer=inverter.layer,
        encoder=encoder_words(manifest.encoder_name),
        units=" \N{MULTIPLICATION SIGN} ".join(f"{extent:,}" for extent in inverter.feature_shape),
        backend=inverter.backend if inverter.device == inverter.backend else f"{inverter.backend} on {inverter.device}",
        side=inverter.image_size,
        no_encoder=explorer.no_encoder,
        prior=explorer.prior,
        most_seed=MOST_SEED,
        most_temperature=MOST_TEMPERATURE,
        samples=[(sample.name, _thumbnail(sample)) for sample in samples],
        image_suffixes=",".join(IMAGE_SUFFIXES),
        feature_suffixes=",".join(SUFFIXES),
        is_map=len(inverter.feature_shape) == 3,
        shape=inverter.feature_shape,
        config=_config(explorer),
    )


def content_security_policy(nonce: str) -> str:
    """Return what the page may do: its own style and script, pictures that it made, questions to where it came from."""
    return (
        f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src data: blob:; "
        "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    )


def _config(explorer: Explorer) -> dict[str, Any]:
    """Return what the script knows of the bundle."""
    return {
        "shape": explorer.inverter.feature_shape,
        "side": explorer.inverter.image_size,
        "encodes": explorer.no_encoder is None,
        "zero": ZERO,
        "strip": STRIP,
        "mostUpload": MOST_UPLOAD,
        "featureSuffixes": SUFFIXES,
    }


def _thumbnail(sample: Sample) -> str:
    """Return a sample's central square, small, as a data URI."""
    height, width = sample.rgb.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = Image.fromarray(np.ascontiguousarray(sample.rgb[top : top + side, left : left + side]))
    return data_uri(np.asarray(square.resize((_THUMBNAIL, _THUMBNAIL))))
